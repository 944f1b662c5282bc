"""Ray clusters of a test's own: ports, token, home and temporary folder apart from every other cluster's.

Everything is started and ended by process id. `ray stop` is never run: it ends all clusters of the machine.
The test process itself never connects to such a cluster (it may hold the session's); it watches from a subprocess.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
OBJECT_STORE_BYTES = 100_000_000
HEAD_SECONDS = 120
#: a dead node is noticed in about 2 s instead of 15
QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
#: prints the living nodes as one JSON line, twice a second
WATCHER = """
import json, sys, time, ray
ray.init(address="auto", log_to_driver=False)
while True:
    nodes = [n for n in ray.nodes() if n["Alive"]]
    print(json.dumps({n["NodeID"]: {"resources": n["Resources"], "labels": n["Labels"]} for n in nodes}), flush=True)
    time.sleep(0.5)
"""


@dataclass
class OwnCluster:
    """A running head. `environment` is what a driver needs to find it."""

    folder: Path
    address: str
    environment: dict[str, str]
    head: subprocess.Popen[bytes]
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    def run(self, *command: str, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """A driver from start to end, outside the project's folder."""
        return subprocess.run(
            command, env={**self.environment, **more}, cwd=self.folder, timeout=timeout, capture_output=True, text=True
        )

    def start(self, *command: str, log: str, **more: str) -> subprocess.Popen[Any]:
        """A driver in the background, ended with the cluster; its streams go to ``<log>.out`` and ``<log>.err``."""
        with open(self.folder / f"{log}.out", "w") as out, open(self.folder / f"{log}.err", "w") as err:
            process = subprocess.Popen(
                command,
                env={**self.environment, **more},
                cwd=self.folder,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def raylet(self, node_id: str) -> psutil.Process:
        """The raylet of a node of this cluster."""
        for process in psutil.process_iter(["name", "cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if process.info["name"] == "raylet" and str(self.folder) in line and node_id in line:
                return process
        raise AssertionError(f"no raylet of node {node_id}")

    def left_over(self) -> list[psutil.Process]:
        """Processes of this machine that name this cluster's folder or address."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            mine = str(self.folder) in line or self.address in line
            if mine and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


class Watch:
    """The living nodes of a cluster as a driver sees them, followed from a subprocess."""

    def __init__(self, cluster: OwnCluster):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", WATCHER],
            env=cluster.environment,
            cwd=cluster.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        cluster.started.append(self.process)
        self.nodes: dict[str, dict[str, Any]] | None = None
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):
                self.nodes = json.loads(line)

    def workers(self) -> set[str]:
        """Node ids of the nodes that lend CPUs."""
        assert self.process.poll() is None, "the watcher has ended"
        return {node for node, facts in (self.nodes or {}).items() if facts["resources"].get("CPU")}

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> float:
        """Seconds until `condition` holds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, f"not in {seconds} s: {what}; workers: {self.workers()}"
            time.sleep(0.1)
        return round(time.monotonic() - started, 1)


def end_tree(pid: int, grace: float = 5.0) -> None:
    """SIGTERM to one process that was started here, then SIGKILL to what is left of its tree."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
        root.terminate()
    except psutil.NoSuchProcess:
        return
    for process in psutil.wait_procs(processes, timeout=grace)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def result_line(text: str) -> dict[str, Any]:
    """The JSON object in which a verb ends, in a stream that Ray may have written to as well."""
    return next(
        json.loads(line) for line in reversed(text.splitlines()) if line.startswith("{") and "exit_code" in line
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def base_environment(folder: Path) -> dict[str, str]:
    """This process's environment with a home, a token and no cluster of its own."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return inherited | {
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
    }


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a short name: Ray's sockets stand in it, and their paths may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="sf"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_cluster(
    *head_options: str, environment: dict[str, str] | None = None, autoscaling: dict[str, Any] | None = None
) -> Iterator[OwnCluster]:
    """A head on free ports until the block ends; then nothing of it is left, which is checked.

    Args:
        head_options: further options of `ray start --head`.
        environment: further environment of head, nodes and drivers.
        autoscaling: node types by name; given, workers are started by the autoscaler on this machine.
    """
    with temporary_folder() as folder:
        port = free_ports(1)[0]
        address = f"127.0.0.1:{port}"
        env = base_environment(folder) | QUICK_HEALTH_CHECKS | (environment or {})
        command = [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            f"--port={port}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={folder}/r",
            *head_options,
        ]
        if autoscaling is not None:
            path = folder / "autoscaling.json"  # JSON is YAML
            path.write_text(json.dumps(_autoscaling_config(folder, address, autoscaling)))
            command.append(f"--autoscaling-config={path}")
            env |= {"RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            head_env = env | {"RAY_CLOUD_INSTANCE_ID": "head", "RAY_NODE_TYPE_NAME": "head"}
        else:
            head_env = env
        with open(folder / "head.log", "w") as log:
            head = subprocess.Popen(command, env=head_env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        cluster = OwnCluster(folder, address, env | {"RAY_ADDRESS": address}, head)
        try:
            _wait_for_head(cluster)
            yield cluster
        finally:
            left = _end(cluster)
        assert not left, f"left over: {left}"


def _autoscaling_config(folder: Path, address: str, node_types: dict[str, Any]) -> dict[str, Any]:
    """With an external provider Ray fills in no defaults: every key must stand, the empty ones too."""
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    commands = ("head_start_ray_commands", "worker_start_ray_commands")
    empty = {k: [] for k in (*lists, *commands, "cluster_synced_files", "rsync_exclude", "rsync_filter")}
    head = {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    workers = {name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in node_types.items()}
    return empty | {
        "cluster_name": "test",
        "max_workers": sum(kind["max_workers"] for kind in workers.values()),
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "head_node_type": "head",
        "available_node_types": {"head": head, **workers},
        "provider": {
            "type": "external",
            "module": "local_raylets.LocalRaylets",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
            "head_node_id": "head",
            "head_node_type": "head",
            "folder": str(folder),
        },
    }


def _wait_for_head(cluster: OwnCluster) -> None:
    log = cluster.folder / "head.log"
    deadline = time.monotonic() + HEAD_SECONDS
    while "Ray runtime started" not in log.read_text():
        alive = cluster.head.poll() is None and time.monotonic() < deadline
        assert alive, f"the head did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def _end(cluster: OwnCluster) -> list[str]:
    """End drivers, head and nodes, all by their ids; returns what would not go."""
    for process in cluster.started:
        end_tree(process.pid)
        process.wait(10)
    end_tree(cluster.head.pid, grace=10)
    cluster.head.wait(10)
    for pid_file in cluster.folder.glob("node-*.pid"):
        end_tree(int(pid_file.read_text()), grace=2)
    deadline = time.monotonic() + 15
    while cluster.left_over() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = cluster.left_over()
    names = [" ".join(p.cmdline())[:120] for p in left if p.is_running()]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return names
