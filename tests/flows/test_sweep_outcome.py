"""Tables, the best point and ranks from known outcomes, against values computed by hand."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from synface.flows import sweep_outcome as outcome
from synface.flows.sweep_plan import uses

sys.path.insert(0, str(Path(__file__).parent))
from sweep_tools import planned

PATH = "train_recognizer.margin.m"
#: accuracy of points 0.1, 0.2, 0.3 by seed 0, 1; None: failed
ACCURACY = {(0, 0): 0.80, (0, 1): 0.84, (1, 0): 0.90, (1, 1): None, (2, 0): 0.85, (2, 1): 0.87}
SHORT = {0: 0.6, 1: 0.7, 2: 0.5}


@pytest.fixture(scope="module")
def rows():
    _, _, found = planned(space={PATH: [0.1, 0.2, 0.3]}, seeds=[0, 1], rungs={"first": 2, "factor": 4})
    made = []
    for trial in found:
        value = ACCURACY[trial.point, trial.seed]
        short = {2: {"all": SHORT[trial.point], "heads-val": SHORT[trial.point]}}
        if value is None:
            made.append(outcome.Row(trial, outcome.FAILED, {}, short, {}, {}, "section generate: broken"))
        else:
            accuracy = {"all": value, "heads-val": value}
            test = {"heads-v1": value - 0.1} if trial.point == 2 else {}
            made.append(outcome.Row(trial, outcome.DONE, accuracy, short, test, {"asked": 0.5}))
    return made


def test_the_best_point_has_every_seed(rows):
    found = outcome.point_summaries(rows, "all")
    assert [(s.point, s.metric.n, s.complete) for s in found] == [(0, 2, True), (1, 1, False), (2, 2, True)]
    # point 1 has the highest mean, of a single seed
    best = outcome.best(found)
    assert best.point == 2 and best.metric.mean == pytest.approx(0.86)
    half = 12.706204736174698 * (0.02 / 2**0.5) / 2**0.5  # t with one degree of freedom, std of 0.85 and 0.87
    assert (best.metric.low, best.metric.high) == pytest.approx((0.86 - half, 0.86 + half))
    assert best.test["heads-v1"].mean == pytest.approx(0.76)
    assert outcome.best([found[1]]).point == 1 and outcome.best([]) is None
    assert json.loads(json.dumps(outcome.shown(best)))["values"] == {PATH: 0.3}


def test_one_row_a_trial_and_what_is_missing_is_said(rows):
    table = outcome.trials_table(rows, [PATH], "all").to_pylist()
    assert len(table) == 6
    failed = [r for r in table if r["state"] != "done"]
    assert [(r["point"], r["seed"], r["metric"], r["error"]) for r in failed] == [
        (1, 1, None, "section generate: broken")
    ]
    assert table[5] | {"trial": 5, PATH: 0.3, "seed": 1, "metric": 0.87, "asked": 0.5} == table[5]
    assert table[5]["test heads-v1"] == pytest.approx(0.77) and table[0]["test heads-v1"] is None
    assert table[0]["realised"] is None and table[0]["metric at 2 epochs"] == 0.6


def test_a_row_says_where_its_images_and_their_inquiries_stand(rows, tmp_path):
    made = outcome.trials_table(rows, [PATH], "all").to_pylist()[0]
    stages = rows[0].trial.whole.stages
    assert stages["generate"].output.endswith(made["images"]) and made["images"].startswith("generate/")
    assert stages["pack"].output.endswith(made["identities"]) and made["identities"].startswith("pack/")
    mine = str(tmp_path / "mine.parquet")
    Path(mine).write_bytes(b"people")
    recipe = {"pool": None, "embed": None, "pack": None, "generate": {"identities": mine}}
    given = planned(recipe=recipe, space={PATH: [0.1]}, seeds=[0])[2]
    assert outcome.identities_key(given[0]) == mine
    drawn = {**recipe, "generate": {"num_identities": 4}}
    assert outcome.identities_key(planned(recipe=drawn, space={PATH: [0.1]}, seeds=[0])[2][0]) is None


def test_one_row_a_point_with_its_interval(rows):
    table = outcome.points_table(outcome.point_summaries(rows, "all"), [PATH]).to_pylist()
    assert [r[PATH] for r in table] == [0.1, 0.2, 0.3]
    assert table[0]["metric mean"] == pytest.approx(0.82) and table[0]["metric n"] == 2
    assert table[0]["metric std"] == pytest.approx(0.04 / 2**0.5)
    assert table[1]["metric std"] is None and table[1]["metric low"] is None
    assert table[0]["test heads-v1 mean"] is None


def test_ranks_of_short_trainings_compare_points_over_the_seeds_that_have_both(rows):
    # whole 0.82, 0.90, 0.86 rank 1 3 2; short 0.6, 0.7, 0.5 rank 2 3 1: d2 = 2, rho = 1 - 12 / 24
    assert outcome.early_ranks(rows, "all") == {"2": {"points": 3, "spearman": 0.5}}


def test_values_are_numbers_or_text():
    assert outcome.values_column([1, None, 0.5]).to_pylist() == [1.0, None, 0.5]
    assert outcome.values_column(["a", {"range": [0, 1]}, None]).to_pylist() == ["a", '{"range":[0,1]}', None]
    assert outcome.values_column([True, False]).to_pylist() == ["true", "false"]
    assert outcome.values_column([None]).type == pa.string()


def test_what_was_asked_and_realised():
    table = pa.table(
        {
            "m": pa.array([0.0, 0.0, 1.0, None], pa.float32()),
            "similarity_target": pa.array([None, None, None, 0.6], pa.float32()),
            "similarity_inquiry": pa.array([0.2, 0.4, 0.9, None], pa.float32()),
            "similarity_other": pa.array([0.3, 0.1, None, 0.5], pa.float32()),
        }
    )
    found = outcome.similarity_numbers(table)
    assert found["asked"] == pytest.approx(0.4) and found["realised"] == pytest.approx(0.5)
    assert found["realised_std"] == pytest.approx(np.std([0.2, 0.4, 0.9]))
    assert found["nearer_to_another"] == 0.5
    nothing = table.select(["m"]).slice(3)
    assert outcome.similarity_numbers(nothing) == {}


def test_costs_are_of_own_and_of_shared_stages(rows, monkeypatch):
    spent = {"generate": 7.0, "train_recognizer": 3.0, "evaluate": 1.0}
    monkeypatch.setattr(outcome, "cost_of", lambda place: (v := spent.get(place.split("/")[-2], 0.0), 2 * v))
    text = outcome.costs_csv(rows, uses([r.trial for r in rows])).decode()
    lines = list(csv.DictReader(io.StringIO(text)))
    # two trainings (rungs) and two evaluations of its own; the images are every trial's
    assert {(r["own_seconds"], r["shared_seconds"]) for r in lines} == {("8.0", "7.0")}
    # on two GPUs: 8 s of its own, and a sixth of the images' 7 s
    assert {float(r["gpu_hours"]) for r in lines} == {round(2 * (8 + 7 / 6) / 3600, 4)}


def test_costs_are_noted_beside_the_output(tmp_path):
    config = planned(output=tmp_path / "s", space={PATH: [0.1]})[2][0].whole.stages["evaluate"]
    assert outcome.cost_of(config.output) == (0.0, 0.0)
    outcome.note_cost(config, {"seconds": 12.5}, 4)
    assert outcome.cost_of(config.output) == (12.5, 50.0)


def test_names_stand_in_both_tables():
    points = [{"name": "low", PATH: 0.1}, {"name": "high", PATH: 0.2}]
    found = [
        outcome.Row(t, outcome.DONE, {"all": 0.5 + t.values[PATH]}, {}, {}, {})
        for t in planned(points=points, seeds=[0, 1])[2]
    ]
    assert outcome.trials_table(found, [PATH], "all")["name"].to_pylist() == ["low", "high"] * 2
    summaries = outcome.point_summaries(found, "all")
    assert outcome.points_table(summaries, [PATH])["name"].to_pylist() == ["low", "high"]
    assert outcome.shown(outcome.best(summaries))["name"] == "high"
