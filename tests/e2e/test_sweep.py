"""A sweep for real, on two cores: drivers and workers together, a kill, a cached answer, a trial that always fails."""

import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from tools import digests, end_group  # noqa: E402

#: two trials at once, each with a group of two workers, on a cluster of two CPUs
SWEEP = {
    "recipe": {
        "generate": {
            "generator": "counting_generator:Counting",
            "num_identities": 6,
            "images_per_identity": 4,
            "image_size": 64,
        },
        "train_recognizer": {
            "backbone": "tiny",
            "image_size": 64,
            "epochs": 1,
            "global_batch_size": 8,
            "numerics": {"num_workers": 2, "threads_per_worker": 1},
        },
        "evaluate": {},
    },
    "space": {"generate.images_per_identity": [3, 4]},
    "seeds": [0, 1],
    "select_on": ["heads-val/frontal"],
    "test_on": [],
    "how": {"max_concurrent": 2, "retries": 1},
}
#: `synface sweep` on a cluster of two CPUs, whatever the machine has
COMMAND = (
    "import sys; from synface.ops import cluster; cluster.connect(2); from synface import cli; sys.exit(cli.main())"
)


def start(folder, output, sweep):
    recipe = folder / f"{output.name}.yaml"
    recipe.write_text(yaml.safe_dump({"sweep": sweep}))
    paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "sweep", "--config", str(recipe), "--output", str(output)],
        env={**os.environ, "MADE": str(folder / "made"), "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("a"),
        text=True,
        start_new_session=True,
    )


def finish(process, folder, code):
    out, _ = process.communicate(timeout=900)
    assert process.returncode == code, (folder / "log").read_text()[-6000:]
    lines = out.strip().splitlines()
    assert len(lines) == 1, out  # standard output carries the result and nothing else
    return json.loads(lines[0])


def made(folder):
    """(images per identity, label, sample) -> how often it was made."""
    return collections.Counter((folder / "made").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_resumed_cached_and_with_a_trial_that_always_fails(tmp_path):
    output = tmp_path / "sweep"
    process = start(tmp_path, output, SWEEP)
    while not list(output.glob("shared/evaluate/*/_synface/manifest.json")):
        assert process.poll() is None, (tmp_path / "log").read_text()[-6000:]
        time.sleep(0.3)
    end_group(process)
    standing = list(output.glob("shared/*/*/_synface/manifest.json"))
    times = {path: path.stat().st_mtime_ns for path in standing}
    cut = [p for p in output.glob("shared/generate/*/_synface/plan.json") if p.with_name("manifest.json") not in times]

    result = finish(start(tmp_path, output, SWEEP), tmp_path, 0)
    assert (result["trials"], result["done"], result["failed"], result["cached"]) == (4, 4, 0, False)
    assert result["stages"]["generate"] == {"distinct": 2, "uses": 4}
    assert {path: path.stat().st_mtime_ns for path in standing} == times  # what stood was not made again
    rows = pq.read_table(output / "data/trials.parquet").to_pylist()
    assert [(r["generate.images_per_identity"], r["seed"]) for r in rows] == [(3, 0), (4, 0), (3, 1), (4, 1)]
    assert all(r["state"] == "done" and 0.3 < r["metric"] <= 1 for r in rows)
    best = max((rows[0]["metric"] + rows[2]["metric"]) / 2, (rows[1]["metric"] + rows[3]["metric"]) / 2)
    assert result["best"]["mean"] == pytest.approx(best, abs=1e-6) and result["best"]["n"] == 2

    # each dataset once, but for one that the kill cut off
    generated = made(tmp_path)
    assert len(generated) == 6 * (3 + 4)
    assert sum(generated.values()) <= 42 + 24 * len(cut)

    kept = digests(output / "data")
    again = finish(start(tmp_path, output, SWEEP), tmp_path, 0)
    assert again["cached"] and again["best"] == result["best"] and digests(output / "data") == kept
    assert made(tmp_path) == generated

    # another sweep on the same store: what stands is not made again, what always fails is tried twice and named
    broken = {"generate.options": {"broken": True}}
    worse = {
        **SWEEP,
        "space": {},
        "points": [{"generate.images_per_identity": 3}, broken],
        "seeds": [0],
        "how": {**SWEEP["how"], "shared": str(output / "shared")},
    }
    partial = finish(start(tmp_path, tmp_path / "worse", worse), tmp_path, 3)
    assert (partial["done"], partial["failed"], partial["exit_code"]) == (1, 1, 3)
    assert "'broken': True" in partial["error"] and "section generate" in partial["error"]
    assert partial["best"]["values"] == {"generate.images_per_identity": 3}
    rows = pq.read_table(tmp_path / "worse/data/trials.parquet").to_pylist()
    assert [r["state"] for r in rows] == ["done", "failed"] and "asked to fail" in rows[1]["error"]
    assert rows[0]["metric"] == pq.read_table(output / "data/trials.parquet")["metric"][0].as_py()
    tried = {n for line, n in (made(tmp_path) - generated).items() if line.startswith("4 ")}
    assert tried == {2}  # once, and once more
