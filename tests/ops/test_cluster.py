"""Which outputs a cluster may write to."""

import pytest

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
