"""What synface uses of Ray beyond what Ray promises: read this first when a new version breaks something."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "synface"
#: (module, name, parameters that are passed to it)
INTERNALS = [
    ("ray.experimental.internal_kv", "_internal_kv_get", ["namespace"]),
    ("ray.experimental.internal_kv", "_internal_kv_put", ["namespace"]),
    ("ray.experimental.internal_kv", "_internal_kv_del", ["namespace"]),
    ("ray.experimental.internal_kv", "_internal_kv_exists", ["namespace"]),
    ("ray._private.ray_constants", "DEBUG_AUTOSCALING_STATUS", []),
    ("ray._raylet", "InnerGcsClient.get_cluster_status", []),
    ("ray._raylet", "InnerGcsClient.internal_kv_get", []),
    ("ray.core.generated.autoscaler_pb2", "GetClusterStatusReply", []),
    ("ray.train.torch", "TorchTrainer._create_default_callbacks", []),
    ("ray.train.torch", "TorchTrainer._register_sigint_handler", ["controller"]),
]


@pytest.mark.parametrize(("module", "name", "parameters"), INTERNALS)
def test_it_is_still_there(module, name, parameters):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert not parameters or set(parameters) <= set(inspect.signature(found).parameters)


def test_the_list_is_whole():
    """A private name of Ray in the source stands above."""
    names = {part for module, name, _ in INTERNALS for part in [module, *name.split(".")]}
    pattern = re.compile(r"ray\._\w+(?:\.\w+)*|ray\.core\.generated\.\w+|_internal_kv_\w+|super\(\)\.(_\w+)")
    used = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if re.search(r"\bray\b", text):
            used |= {m.group(1) or m.group(0) for m in pattern.finditer(text)}
    assert used <= names, used - names


def test_the_clusters_ray_lies_in_the_range_of_the_package():
    """`Dockerfile` and the manifests agree in tests/distributed; here with pyproject.toml."""
    root = SOURCE.parent
    pinned = re.search(r"ARG RAY_VERSION=(\S+)", (root / "Dockerfile").read_text())
    allowed = re.search(r'"ray\[data,train,tune\]>=([\d.]+),<([\d.]+)"', (root / "pyproject.toml").read_text())
    assert pinned and allowed
    low, version, high = (tuple(map(int, t.split("."))) for t in (allowed.group(1), pinned.group(1), allowed.group(2)))
    assert low <= version < high
