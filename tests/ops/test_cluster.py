"""Which outputs a cluster may write to, and which clusters can be joined."""

import os
import platform
import socket
import subprocess
import sys
import time

import pytest
import ray
from memory_pressure import short_of_memory
from ray._private.utils import check_version_info

from synface.core.errors import InputError
from synface.ops import cluster


@pytest.mark.ray
def test_one_node_may_write_to_its_own_disk(ray_cluster, tmp_path):
    cluster.check_output_reachable(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("output", "below"),
    [
        ("/mnt/shared", True),
        ("/mnt/shared/run", True),
        ("file:///mnt/shared/run", True),
        ("/data/x", True),
        ("/mnt/shared2/run", False),
        ("/mnt", False),
        ("/mnt/shared/../run", False),
    ],
)
def test_shared_mounts_are_whole_folders(monkeypatch, output, below):
    monkeypatch.setenv(cluster.SHARED_PATHS_VARIABLE, "/mnt/shared/:/data")
    assert cluster._below_shared_path(cluster.absolute(output)) is below


def test_nothing_is_shared_by_default(monkeypatch):
    monkeypatch.delenv(cluster.SHARED_PATHS_VARIABLE, raising=False)
    assert not cluster._below_shared_path("/mnt/shared/run")


def test_an_address_where_nobody_listens_is_refused_in_the_stated_time():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(InputError, match=f"RAY_ADDRESS = {address}: nobody answers.*waited 1 s"):
            cluster.check_address(address, patience=1.0)
        assert time.monotonic() - started < 60  # not for ever; the machine may be busy


def test_an_address_that_answers_passes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster.check_address(f"127.0.0.1:{server.getsockname()[1]}", patience=5.0)
    cluster.check_address("auto")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://localhost:8265", "a job server"),
        ("ray://head:10001", "Ray Client"),
        ("head:abc", "host:port"),
        ("head:99999", "host:port"),
    ],
)
def test_an_address_of_another_kind_is_refused_at_once(address, said):
    with pytest.raises(InputError, match=said):
        cluster.check_address(address)


def test_version_skew_names_both_versions():
    """In Ray's own words, so that a change of them is noticed."""
    there = {"ray_version": "2.9.3", "python_version": "3.8.10"}
    with pytest.raises(RuntimeError) as caught:
        check_version_info(there, "this machine", raise_on_mismatch=True)
    error = cluster.explained("head:6379", caught.value)
    assert isinstance(error, InputError)
    for part in ("head:6379", "2.9.3", "3.8.10", ray.__version__, platform.python_version(), "one image"):
        assert part in str(error)


def test_other_failures_to_join_or_start_are_errors_of_ours():
    assert isinstance(cluster.explained("head:6379", ValueError("odd")), InputError)
    local = cluster.explained("", Exception("The current node timed out during startup"))
    assert not isinstance(local, InputError) and "timed out" in str(local) and "try again" in str(local)


FILLS_MEMORY = """
import sys, time
from synface import cli

cli.OUT_OF_MEMORY_RETRIES = 1
assert cli.main(["status", "/nothing/here"]) == 2 and "ray" not in sys.modules

import ray
from synface.ops import cluster

cluster.connect(num_cpus=1)

@ray.remote
def fill(place):
    with open(place, "a") as stream:
        stream.write("x")
    held = []
    for _ in range(256):
        held.append(bytes([1]) * (64 << 20))
        time.sleep(0.02)

try:
    ray.get(fill.remote(sys.argv[1]))
except ray.exceptions.OutOfMemoryError:
    print("given up")
"""


@pytest.mark.slow
def test_a_task_that_is_always_out_of_memory_is_given_up(tmp_path):
    """A task (a writer, say), not an actor: Ray by itself would start it again for ever."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"} | short_of_memory()
    command = [sys.executable, "-c", FILLS_MEMORY, str(tmp_path / "tries")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.stdout.splitlines()[-1:] == ["given up"], done.stderr[-3000:]
    assert (tmp_path / "tries").read_text() == "xx"


WORKERS_MEMORY = """
import os
import ray
from synface.ops import cluster

cluster.connect(num_cpus=1)
seen = ray.remote(lambda: {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")}).remote()
print(dict(sorted(ray.get(seen).items())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"MALLOC_TRIM_THRESHOLD_": "7"}])
def test_workers_keep_freed_memory_unless_the_user_says_otherwise(given):
    environment = {k: v for k, v in os.environ.items() if k not in cluster.KEPT_MEMORY and k != "RAY_ADDRESS"}
    made = subprocess.run(
        [sys.executable, "-c", WORKERS_MEMORY], env=environment | given, capture_output=True, text=True, timeout=300
    )
    assert made.stdout.splitlines()[-1:] == [str(given or dict(sorted(cluster.KEPT_MEMORY.items())))], made.stderr[
        -2000:
    ]


@pytest.mark.parametrize(
    ("answers", "starts"),
    [
        (["slow", "up"], 2),
        (["slow", "slow", "slow"], 3),
        (["broken"], 1),
    ],
)
def test_a_local_cluster_that_was_not_up_in_time_is_started_again(monkeypatch, answers, starts):
    """Ray's half minute is fixed; what else goes wrong is not tried again."""
    said = {"slow": "The current node timed out during startup. This could happen", "broken": "no such file"}
    left, ended = list(answers), []

    def start(**options):
        answer = left.pop(0)
        if answer != "up":
            raise RuntimeError(said[answer])

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    for name in cluster.KEPT_MEMORY:
        monkeypatch.setenv(name, "1")
    if answers[-1] == "up":
        cluster._start(1)
    else:
        with pytest.raises(RuntimeError, match=said[answers[-1]][:10]):
            cluster._start(1)
    assert (len(answers) - len(left), len(ended)) == (starts, starts - 1)
