"""The supervisor of benchmarks/chaos.py, on work of real processes that need no Ray."""

import importlib.util
import random
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from synface.settings import StageConfig
from synface.store import artifact, tables

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: twelve parts, one after the other, and a manifest; started again it goes on; told to, it hangs once behind the third
WORK = """
import sys, time
from pathlib import Path
output = Path(sys.argv[1])
parts = output / "stage" / "_synface" / "parts"
parts.mkdir(parents=True, exist_ok=True)
for n in range(12):
    if n == 3 and len(sys.argv) > 2 and not (output.parent / "hung").exists():
        (output.parent / "hung").touch()
        time.sleep(600)
    if not (parts / str(n)).exists():
        time.sleep(0.1)
        (parts / str(n)).write_text(f"part {n}")
(output / "stage" / "_synface" / "manifest.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def chaos():
    sys.path.append(str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("chaos", BENCHMARKS / "chaos.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["chaos"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("chaos", None)


def worked(chaos, monkeypatch, output, kills, *more, patience=300.0):
    monkeypatch.setattr(chaos, "command", lambda recipe, place: [sys.executable, "-c", WORK, str(place), *more])
    monkeypatch.setattr(chaos, "POLL_SECONDS", 0.05)
    return chaos.run_rough("none", output, kills, random.Random(1), patience)


def test_killed_drivers_are_started_again_until_the_work_is_done(chaos, monkeypatch, tmp_path):
    calm = worked(chaos, monkeypatch, tmp_path / "calm", 0)
    assert (calm.starts, calm.kills, calm.exit_codes, calm.hung) == (1, [], [0], 0)
    rough = worked(chaos, monkeypatch, tmp_path / "rough", 3)
    assert rough.kills == ["driver"] * 3 and rough.exit_codes == [-9, -9, -9, 0] and rough.starts == 4
    assert chaos.digests(tmp_path / "rough") == chaos.digests(tmp_path / "calm") != {}


@pytest.mark.slow
def test_a_driver_that_hangs_is_ended_and_counted(chaos, monkeypatch, tmp_path):
    found = worked(chaos, monkeypatch, tmp_path / "o", 0, "hang", patience=20.0)
    assert found.hung >= 1 and found.exit_codes[-1] == 0 and set(found.exit_codes[:-1]) == {-9}


def test_work_that_never_gets_on_is_given_up(chaos, monkeypatch, tmp_path):
    monkeypatch.setattr(chaos, "command", lambda recipe, place: [sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(chaos, "HOPELESS_STARTS", 2)
    with pytest.raises(SystemExit, match="came to nothing"):
        chaos.run_rough("none", tmp_path / "o", 1, random.Random(1), 300.0)


class Config(StageConfig):
    verb = "generate"


def images(root: Path, keys: list[tuple[str, int]]) -> None:
    """An images table of these rows, without pixels."""
    config = Config(output=str(root / "images"))
    opened = artifact.open_output(config, {})
    table = pa.table({"identity_id": [k for k, _ in keys], "sample": pa.array([n for _, n in keys], pa.int32())})
    entry = artifact.write_file(config.output, "data/a.parquet", tables.parquet_bytes(table), len(keys))
    artifact.commit(config, opened, "images", [entry], {"images": len(keys)})


@pytest.mark.parametrize(
    ("keys", "lost", "twice"),
    [
        ([("a", 0), ("a", 1), ("b", 0)], 0, 0),
        ([("a", 0), ("b", 0)], 1, 0),
        ([("a", 0), ("a", 1), ("b", 0), ("b", 0)], 0, 1),
    ],
)
def test_rows_are_counted(chaos, tmp_path, keys, lost, twice):
    images(tmp_path / "calm", [("a", 0), ("a", 1), ("b", 0)])
    images(tmp_path / "rough", keys)
    found = chaos.compare(tmp_path / "calm", tmp_path / "rough", 0.0)
    assert (found["rows"], found["rows_lost"], found["rows_twice"]) == (3, lost, twice)
    assert found["whole"] is (lost == twice == 0)


def test_a_changed_file_is_found_and_a_left_over_one_is_no_fault(chaos, tmp_path):
    images(tmp_path / "calm", [("a", 0)])
    shutil.copytree(tmp_path / "calm", tmp_path / "rough")
    (tmp_path / "rough" / "images" / "data" / "b.parquet").write_bytes(b"dead")
    found = chaos.compare(tmp_path / "calm", tmp_path / "rough", 0.0)
    assert found["whole"] and found["files_left_over"] == 1
    (tmp_path / "rough" / "images" / "_synface" / "plan.json").write_bytes(b"{}")
    found = chaos.compare(tmp_path / "calm", tmp_path / "rough", 0.0)
    assert not found["whole"] and found["files_that_differ"] == ["/images/_synface/plan.json"]
