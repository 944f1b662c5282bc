"""A sweep whose outcomes stand already: no trial runs, the tables come from the store alone."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from synface.core.errors import InputError
from synface.flows import sweep, sweep_outcome
from synface.store import artifact

sys.path.insert(0, str(Path(__file__).parent))
from sweep_tools import planned

FIELDS = {
    "recipe": {"pool": None, "embed": None, "pack": None, "generate": {"num_identities": 4}},
    "space": {"train_recognizer.margin.m": [0.1, 0.2]},
    "seeds": [0, 1],
    "rungs": {"first": 2, "factor": 9},
    "test_on": [],
}


def evaluated(stage, accuracy):
    numbers = {"accuracy": {"heads-val/frontal": accuracy}, "average": {"heads-val": accuracy, "all": accuracy}}
    artifact.commit(stage, artifact.open_output(stage, {"weights": "0" * 64}), "evaluation", [], numbers)


@pytest.fixture
def standing(tmp_path):
    config, _, trials = planned(output=tmp_path / "s", **FIELDS)
    for trial in trials:
        for rung in trial.rungs:
            accuracy = 0.7 + 0.1 * trial.point + 0.01 * trial.seed - 0.1 * (rung.epochs == 2)
            evaluated(rung.stages["evaluate"], accuracy)
    return config, tmp_path / "s"


def tables(output):
    return {p.name: p.read_bytes() for p in output.glob("data/*.parquet")}


def test_tables_come_from_the_store_and_a_lost_manifest_costs_nothing(standing):
    config, output = standing
    result = sweep.run(config)
    assert (result["done"], result["failed"], result["cached"]) == (4, 0, False)
    assert result["best"]["values"] == {"train_recognizer.margin.m": 0.2}
    assert result["best"]["mean"] == pytest.approx(0.805) and result["best"]["n"] == 2
    assert result["early_ranks"] == {"2": {"points": 2, "spearman": 1.0}}
    before = tables(output)
    rows = pq.read_table(output / sweep_outcome.TRIALS_FILE).to_pylist()
    assert [r["metric"] for r in rows] == pytest.approx([0.7, 0.8, 0.71, 0.81])
    again = sweep.run(config)
    assert again["cached"] and again["best"] == result["best"]
    manifest = (output / artifact.MANIFEST).read_bytes()
    (output / artifact.MANIFEST).unlink()
    for name in before:
        (output / "data" / name).unlink()
    sweep.run(config)
    assert tables(output) == before and (output / artifact.MANIFEST).read_bytes() == manifest


def test_another_sweep_on_the_same_output_is_refused_with_the_difference(standing):
    config, _ = standing
    sweep.run(config)
    with pytest.raises(InputError, match=r"another configuration(.|\n)*seeds"):
        sweep.run(config.model_copy(update={"seeds": [0]}))


def test_costs_stand_beside_the_tables(standing):
    config, output = standing
    sweep.run(config)
    lines = (output / sweep_outcome.COSTS_FILE).read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("trial,point,values,seed,state,own_seconds")
    listed = json.loads((output / artifact.MANIFEST).read_text())["files"]
    assert {f["path"] for f in listed} == {"data/trials.parquet", "data/points.parquet"}
