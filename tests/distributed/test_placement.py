"""One job whose stages sit on different nodes, placed by labels: a real cluster of two nodes."""

import json
import sys
import time
from pathlib import Path

import pytest
from cluster_tools import RAY, ROOT, own_cluster

from synface.ops.cluster import SHARED_PATHS_VARIABLE

pytestmark = pytest.mark.slow

#: every actor that ever was, and the label of its node: [[class, pool], ...]
ACTORS = """
import json, ray
ray.init(address="auto", log_to_driver=False)
pools = {n["NodeID"]: n["Labels"].get("pool") for n in ray.nodes()}
actors = ray._private.state.actors().values()
print(json.dumps([[a["ActorClassName"], pools.get(a["Address"]["NodeID"])] for a in actors]))
"""
CPU, GPU = ("--how.labels.pool", "cpu"), ("--how.labels.pool", "gpu")


def test_stages_sit_on_the_nodes_that_their_labels_name():
    with own_cluster("--num-cpus=2", "--labels=pool=cpu", "--include-dashboard=false") as cluster:
        cluster.start(
            *(RAY, "start", "--block", "--disable-usage-stats", f"--address={cluster.address}", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", "--labels=pool=gpu", "--object-store-memory=100000000"),
            log="node",
        )
        wait_for_nodes(cluster, 2)
        output = cluster.folder / "out"
        recipe = Path(ROOT, "jobs/configs/smoke.yaml")
        labels = {"pool": CPU, "embed": GPU, "generate": GPU, "train_recognizer": GPU, "evaluate": CPU}
        options = [option for stage, (name, pool) in labels.items() for option in (f"--{stage}.{name[2:]}", pool)]
        command = [sys.executable, "-m", "synface.cli", "pipeline", "--config", str(recipe), "--output", str(output)]
        shared = {SHARED_PATHS_VARIABLE: str(cluster.folder)}
        done = cluster.run(*command, *options, timeout=900, **shared)
        assert done.returncode == 0, done.stderr[-4000:]
        packed = ["pack", "--num-identities", "50", "--dim", "16", "--solver", "lse", "--how.workers", "2"]
        command = [sys.executable, "-m", "synface.cli", *packed, *GPU, "--output", str(cluster.folder / "packed")]
        done = cluster.run(*command, **shared)
        assert done.returncode == 0, done.stderr[-4000:]
        listed = cluster.run(sys.executable, "-c", ACTORS)
        places: dict[str, set[str]] = {}
        for name, pool in json.loads(listed.stdout.splitlines()[-1]):
            places.setdefault(name.split("(")[0], set()).add(pool)
        assert places["EmbedWorker"] == places["RayTrainWorker"] == places["PackWorker"] == {"gpu"}
        assert places["_EmbedActor"] == {"cpu"}
        assert places["MapWorker"] == {"cpu", "gpu"}  # the pool's, and those of generate
        # a label that no node has is told, not waited for
        nowhere = ["--pool.how.labels.pool", "tpu"]
        command = [sys.executable, "-m", "synface.cli", "pipeline", "--config", str(recipe)]
        refused = cluster.run(*command, "--output", str(cluster.folder / "no"), *nowhere, **shared)
        assert refused.returncode == 2 and "0 of them with these labels" in refused.stdout


def wait_for_nodes(cluster, count: int) -> None:
    """Until so many nodes have joined."""
    script = 'import ray; ray.init(address="auto", log_to_driver=False); print(sum(n["Alive"] for n in ray.nodes()))'
    deadline = time.monotonic() + 120
    while cluster.run(sys.executable, "-c", script).stdout.split()[-1:] != [str(count)]:
        assert time.monotonic() < deadline, (cluster.folder / "node.err").read_text()[-3000:]
