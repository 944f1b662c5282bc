"""An elastic training for real: a node joins, the group grows; the node dies, the group shrinks and goes on."""

import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_tools import OwnCluster, own_cluster, result_line
from local_raylets import start_raylet, wait_for_raylet

from synface.ops.cluster import SHARED_PATHS_VARIABLE
from tests.train.conftest import write_toy

EPOCHS, STEPS = 200, 600


def recipe(folder: Path) -> Path:
    fields = {
        "images": [write_toy(str(folder / "images"))],
        "output": str(folder / "out"),
        "backbone": "gated_backbone:Gated",
        "image_size": 32,
        "embedding_dim": 16,
        "epochs": EPOCHS,
        "global_batch_size": 8,
        "margin": {"s": 16, "m": 0.2},
        "optimizer": {"lr": 0.05, "warmup_epochs": 0},
        "numerics": {"num_workers": 2, "min_workers": 1, "threads_per_worker": 1},
        "how": {"checkpoint_every": 5, "resize_seconds": 1},
    }
    path = folder / "recipe.json"  # JSON is YAML
    path.write_text(json.dumps({"train_recognizer": fields}))
    return path


def groups(cluster: OwnCluster) -> list[tuple[int, int]]:
    """(first step, workers) of every group so far, as rank 0 says it: once per node, they share a folder of logs."""
    lines = re.findall(r"train: from step (\d+) on (\d) of 2 workers", (cluster.folder / "train.err").read_text())
    return sorted({(int(step), int(workers)) for step, workers in lines})


def size(cluster: OwnCluster) -> int:
    """Workers of the newest group."""
    return groups(cluster)[-1][1] if groups(cluster) else 0


def newest(output: Path) -> int:
    """Step of the newest checkpoint; -1: none."""
    return max((int(p.name.split("-")[1]) for p in (output / "_synface" / "train").glob("step-*.pt")), default=-1)


def join(cluster: OwnCluster) -> subprocess.Popen[bytes]:
    """A second node of one CPU; asked again where Ray's half minute is not enough for it to start."""
    without_address = {k: v for k, v in cluster.environment.items() if k != "RAY_ADDRESS"}
    for attempt in range(4):
        name = f"node-{attempt}"
        node = start_raylet(cluster.folder, cluster.address, name, {"CPU": 1}, {}, without_address)
        cluster.started.append(node)
        wait_for_raylet(cluster.folder, name, node)
        if node.poll() is None:
            return node
    raise AssertionError((cluster.folder / f"{name}.log").read_text()[-3000:])


def kill(pid: int) -> None:
    """SIGKILL to a process and all below it, as a machine that is gone."""
    root = psutil.Process(pid)
    for process in [*root.children(recursive=True), root]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_group_grows_with_a_node_and_outlives_its_death(tmp_path):
    gate, output = tmp_path / "gate", tmp_path / "out"
    # Ray looks for nodes every 20 s: a group of the old size is given up and asked for again until then
    more = {"GATE": str(gate), "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10", "RAY_DEDUP_LOGS": "0"}
    with own_cluster("--num-cpus=1", environment=more) as cluster:
        command = [sys.executable, "-m", "synface.cli", "train", "recognizer", "--config", str(recipe(tmp_path))]
        driver = cluster.start(*command, log="train", **{SHARED_PATHS_VARIABLE: str(tmp_path)})

        def until(condition: Callable[[], Any], what: str) -> None:
            deadline = time.monotonic() + 200
            while not condition():
                log = (cluster.folder / "train.err").read_text()[-5000:]
                assert driver.poll() is None and time.monotonic() < deadline, f"never: {what}\n{log}"
                time.sleep(0.1)

        until(lambda: newest(output) > 0, "a checkpoint of the group of one")
        node = join(cluster)
        until(lambda: size(cluster) == 2, "a group of two")
        until(lambda: newest(output) > groups(cluster)[-1][0], "a checkpoint of the group of two")
        kill(node.pid)
        until(lambda: size(cluster) == 1, "a group of one again")
        gate.touch()
        assert driver.wait(300) == 0, (cluster.folder / "train.err").read_text()[-5000:]
        result = result_line((cluster.folder / "train.out").read_text())
        starts = groups(cluster)

    assert [workers for workers, _ in itertools.groupby(workers for _, workers in starts)] == [1, 2, 1]
    # the steps that count: from a group's first to the next group's, which is the checkpoint that it went on from
    expected: Counter[str] = Counter()
    for (step, workers), (following, _) in itertools.pairwise([*starts, (STEPS, 0)]):
        expected[str(workers)] += following - step
    assert starts[0] == (0, 1) and min(expected.values()) > 0 and sum(expected.values()) == STEPS
    assert result["steps_by_workers"] == expected
    history = json.loads((output / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    assert all(sum(entry["workers"].values()) == STEPS / EPOCHS for entry in history)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
