"""Autoscaling for real: nodes come for the work, one is preempted, the result is the same, nodes leave."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tools import OwnCluster, Watch, base_environment, own_cluster, result_line, temporary_folder

from synface.ops.cluster import SHARED_PATHS_VARIABLE

pytestmark = pytest.mark.slow

SHARDS = 24
#: what the nodes find in their environment: seconds per image, and a gate that holds back the second half
SLOW = {"SLOW_SECONDS": "0.3"}
WORKER = {"resources": {"CPU": 2, "object_store_memory": 100_000_000}, "labels": {"market": "spot"}, "max_workers": 3}
GENERATE = [
    *(sys.executable, "-m", "synface.cli", "generate", "--generator", "slow_generator:SlowGenerator"),
    *("--num-identities", str(SHARDS), "--images-per-identity", "4", "--images-per-shard", "4", "--image-size", "32"),
    # no --how.max-actors: the pool itself asks for more than stands, five actors for 24 shards
    *("--how.progress-seconds", "1"),
]
#: asks for what the node types can give and for what they cannot
DEMANDS = """
import sys, time, ray
from synface.ops import cluster, demand
cluster.connect()
for bundles in ([{"CPU": 1}] * 7, [{"CPU": 1, "GPU": 1}]):
    started = time.monotonic()
    try:
        demand.check_demand("pool", bundles, patience=3)
    except Exception as error:
        print(type(error).__name__, round(time.monotonic() - started), error)
try:
    cluster.check_output_reachable("/elsewhere/out")
except Exception as error:
    print(type(error).__name__, error)
demand.check_demand("pool", [{"CPU": 1}] * 6, patience=30)
print("accepted", len([n for n in demand.nodes() if n.get("CPU")]) < 3)
"""


@pytest.fixture(scope="module")
def gate() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "gate"


@pytest.fixture(scope="module")
def cluster(gate: Path) -> Iterator[OwnCluster]:
    options = ("--num-cpus=0", "--include-dashboard=false")
    environment = {**SLOW, "GATE": str(gate)}
    with own_cluster(*options, environment=environment, autoscaling={"worker": WORKER}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watch(cluster: OwnCluster) -> Watch:
    watch = Watch(cluster)
    watch.until(lambda: watch.nodes is not None, 90, "the watcher sees the head")
    return watch


def test_no_worker_before_any_work(watch):
    assert watch.workers() == set()


def test_demands_are_put_to_the_autoscaler(cluster, watch):
    asked = cluster.run(sys.executable, "-c", DEMANDS, timeout=150)
    assert asked.returncode == 0, asked.stderr[-3000:]
    lines = asked.stdout.splitlines()
    too_many, gpu, unreachable, accepted = (line for line in lines if line.startswith(("InputError", "accepted")))
    assert too_many.startswith("InputError 3 pool: the cluster cannot satisfy 7 x {CPU: 1} (room for")
    assert gpu.startswith("InputError 3 pool: the cluster cannot satisfy 1 x {CPU: 1, GPU: 1} (room for 0 of 1")
    assert unreachable.startswith("InputError output /elsewhere/out: a local path on a cluster")
    assert accepted == "accepted True"


def test_nodes_come_one_is_preempted_the_work_is_whole_and_nodes_leave(cluster, watch, gate):
    times = {"idle nodes gone": watch.until(lambda: not watch.workers(), 90, "idle nodes leave")}
    output = cluster.folder / "out"
    started = time.monotonic()
    shared = {SHARED_PATHS_VARIABLE: str(cluster.folder)}
    driver = cluster.start(*GENERATE, "--output", str(output), log="generate", **shared)
    try:
        watch.until(watch.workers, 90, "a first worker")
        times["first worker"] = round(time.monotonic() - started, 1)
        watch.until(lambda: len(watch.workers()) == WORKER["max_workers"], 120, "as many workers as there may be")
        times["all workers"] = round(time.monotonic() - started, 1)
        watch.until(lambda: len(list(output.glob("data/*"))) >= 2, 120, "two shards are done")

        before = watch.workers()
        victim = sorted(before)[0]
        cluster.raylet(victim).kill()
        times["death noticed"] = watch.until(lambda: victim not in watch.workers(), 60, "the death is noticed")
        times["replaced"] = watch.until(lambda: watch.workers() - before, 90, "a new node")
        assert driver.poll() is None, "the gate did not hold the work back"
        gate.touch()
        assert driver.wait(240) == 0
    finally:
        print((cluster.folder / "generate.err").read_text()[-6000:])
    times["work done"] = round(time.monotonic() - started, 1)
    times["workers gone"] = watch.until(lambda: not watch.workers(), 90, "workers leave")
    print(times)

    result = result_line((cluster.folder / "generate.out").read_text())
    assert (result["images"], result["failed"], result["exit_code"]) == (SHARDS * 4, 0, 0)
    assert digests(output) == calm_digests()


def digests(output: Path) -> dict[str, str]:
    """sha256 of every data file that the manifest may list."""
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(output.glob("data/*"))}
    assert len(files) == SHARDS
    return files


def calm_digests() -> dict[str, str]:
    """The same run on a local cluster of its own, undisturbed."""
    with temporary_folder() as folder:
        output = folder / "calm"
        command = [*GENERATE, "--output", str(output)]
        subprocess.run(command, env=base_environment(folder), cwd=folder, check=True, timeout=240, capture_output=True)
        return digests(output)
