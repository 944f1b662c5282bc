"""Fixtures that every room shares."""

import os
import subprocess

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# a test and the processes that it starts are one run: ledgers, which name it, can then be compared byte by byte
os.environ.setdefault("SYNFACE_RUN_ID", "tests")

import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parent))

from s3_server import s3, swift_server  # noqa: F401 (fixtures of a real S3 server, for slow tests)

settings.register_profile("synface", deadline=None)  # timings never gate a test
settings.load_profile("synface")


@pytest.hookimpl(tryfirst=True)  # before marks decide what is run
def pytest_collection_modifyitems(items):
    """Whatever uses the cluster is marked so: `make test` runs those tests beside all others."""
    for item in items:
        if "ray_cluster" in item.fixturenames:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray cluster for the whole session, small on purpose; tests never shut it down."""
    import ray

    from synface.ops import cluster

    cluster.connect(num_cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """Small random weights of Arc2Face on disk: option -> folder."""
    from arc2face_miniature import build

    return build(tmp_path_factory.mktemp("arc2face"))


@pytest.fixture(scope="session")
def controlnet(miniature, tmp_path_factory) -> str:
    """Folder of a ControlNet for them."""
    from arc2face_miniature import controlnet as build

    return build(tmp_path_factory.mktemp("controlnet"), miniature)


@pytest.fixture(scope="session")
def in_ci() -> bool:
    """Whether a missing tool must fail a test instead of skipping it."""
    return bool(os.environ.get("CI"))


@pytest.fixture
def small_disk(tmp_path, in_ci):
    """A function of a size (``64k``) that mounts an empty filesystem of that size and returns its folder."""
    mounted = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk-{size}"
        place.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
        if made.returncode:
            text = f"cannot mount a small tmpfs here: {made.stderr.decode().strip()}"
            (pytest.fail if in_ci else pytest.skip)(text)
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", place], check=True)
