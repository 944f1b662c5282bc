"""What a sweep would do: points, draws, places by content, refusals. Nothing runs."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from synface.core.errors import InputError
from synface.flows import sweep, sweep_plan
from synface.flows.sweep_config import Dimension, SweepConfig
from synface.settings import build
from synface.store import artifact

sys.path.insert(0, str(Path(__file__).parent))
from sweep_tools import RECIPE, planned, sweep_config

M = "generate.variation.m"
CEMIFACE = {"generate": {"generator": "cemiface", "cemiface": {"weights": "/nowhere/weights"}}}


def places(trials, section):
    return [t.whole.stages[section].output for t in trials]


def test_the_grid_is_the_product_in_order_and_points_come_first():
    space = {"pack.num_identities": [4, 3], "train_recognizer.epochs": {"linspace": [2, 6, 3]}}
    _, _, found = planned(space={"pack.num_identities": [4, 3], "train_recognizer.margin.m": {"linspace": [0, 1, 3]}})
    assert [tuple(t.values.values()) for t in found] == [(4, 0), (4, 0.5), (4, 1), (3, 0), (3, 0.5), (3, 1)]
    config = sweep_config(space={"pack.num_identities": [4, 3]}, points=[{"seed": 1}, {"seed": 2}])
    assert [tuple(p.values()) for p in sweep_plan.points(config)] == [(1, 4), (1, 3), (2, 4), (2, 3)]
    assert space  # linspace gives floats: an integer field takes a list


def test_twenty_one_values_of_m_by_three_seeds_make_each_dataset_once():
    _, _, found = planned(recipe=CEMIFACE, space={M: {"linspace": [-1, 1, 21]}}, seeds=[0, 1, 2])
    assert len(found) == 63
    assert [t.values[M] for t in found[:21]] == pytest.approx([k / 10 for k in range(-10, 11)], abs=1e-12)
    counts = {name: len(by_place) for name, by_place in sweep_plan.uses(found).items()}
    expected = {"pool": 1, "embed": 1, "pack": 1, "generate": 21, "train_recognizer": 63, "evaluate": 63}
    assert counts == expected
    # neighbours in the queue differ by their point: two drivers do not wait for one dataset
    assert len(set(places(found[:21], "generate"))) == 21


def test_a_place_depends_on_what_is_asked_and_on_all_that_leads_there():
    one = planned(space={"pack.num_identities": [4, 3]})[2]
    two = planned(space={"pack.num_identities": [3, 4]}, output="/elsewhere/s")[2]
    keys = [[p.rsplit("/", 1)[1] for p in places(t, "evaluate")] for t in (one, two)]
    assert keys[0] == keys[1][::-1] and len(set(keys[0])) == 2
    other = planned(space={"pack.num_identities": [4, 3]}, recipe={"pool": {"first_seed": 7}})[2]
    assert not set(places(one, "evaluate")) & set(places(other, "evaluate"))
    # what decides only speed does not name a result
    faster = planned(space={"pack.num_identities": [4, 3]}, recipe={"generate": {"how": {"max_actors": 1}}})[2]
    assert places(faster, "evaluate") == places(one, "evaluate")


def test_an_input_from_outside_counts_by_its_content(tmp_path):
    pool = {**RECIPE, "pool": None, "embed": None}
    table = tmp_path / "a.parquet"
    table.write_bytes(b"one")
    first = planned(recipe={**pool, "pack": {"pool": str(table)}}, space={"pack.num_identities": [4]})[2]
    copy = tmp_path / "b.parquet"
    copy.write_bytes(b"one")
    same = planned(recipe={**pool, "pack": {"pool": str(copy)}}, space={"pack.num_identities": [4]})[2]
    table.write_bytes(b"two")
    changed = planned(recipe={**pool, "pack": {"pool": str(table)}}, space={"pack.num_identities": [4]})[2]
    assert places(first, "pack") == places(same, "pack") != places(changed, "pack")


def test_stages_read_each_other_at_their_places_and_select_on_validation():
    _, planner, (trial,) = planned(space={"pack.num_identities": [3]}, seeds=[5])
    stages = trial.whole.stages
    assert list(stages) == ["pool", "embed", "pack", "generate", "train_recognizer", "evaluate"]
    assert stages["generate"].identities == stages["pack"].output
    assert stages["train_recognizer"].images == [stages["generate"].output]
    assert stages["train_recognizer"].seed == 5 and stages["generate"].seed == 0
    assert stages["evaluate"].benchmarks == ("heads-val",) and stages["evaluate"].far == (0.1,)
    test = planner.test(trial)
    assert test.benchmarks == ("heads-v1",) and test.weights == stages["train_recognizer"].output
    assert test.output != stages["evaluate"].output


def test_a_section_may_be_taken_away():
    _, _, found = planned(points=[{"pack": None}, {"pack.num_identities": 3}])
    assert "pack" not in found[0].whole.stages
    assert found[0].whole.stages["generate"].identities == found[0].whole.stages["embed"].output


def test_names_tell_points_apart_and_change_no_place():
    points = [{"name": "few", "pack.num_identities": 3}, {"name": "many", "pack.num_identities": 4}]
    config, _, found = planned(points=points, seeds=[0, 1], real="few")
    assert [(t.name, t.values) for t in found[:2]] == [
        ("few", {"pack.num_identities": 3}), ("many", {"pack.num_identities": 4}),
    ]  # fmt: skip
    assert config.paths == ["pack.num_identities"]
    plain = planned(space={"pack.num_identities": [3, 4]}, seeds=[0, 1])[2]
    assert places(found, "evaluate") == places(plain, "evaluate") and not plain[0].name
    crossed = planned(points=points, space={"train_recognizer.margin.m": [0.1, 0.2]})[2]
    assert [t.name for t in crossed] == ["few", "few", "many", "many"]
    assert sweep.plan(sweep_config(points=points))["trials"][0]["name"] == "few"


def test_rungs_are_whole_trainings_that_share_the_images():
    _, _, (trial,) = planned(space={"pack.num_identities": [3]}, rungs={"first": 1, "factor": 2})
    assert [r.epochs for r in trial.rungs] == [1, 2, 4, 6]
    assert [r.stages["train_recognizer"].epochs for r in trial.rungs] == [1, 2, 4, 6]
    assert len({r.stages["generate"].output for r in trial.rungs}) == 1
    assert len({r.evaluation for r in trial.rungs}) == 4


@pytest.mark.parametrize(
    ("values", "low", "high", "mean"),
    [
        ({"uniform": [-1, 3]}, -1, 3, 1),
        ({"loguniform": [0.01, 100]}, 0.01, 100, 99.99 / math.log(1e4)),
        ({"randint": [2, 5]}, 2, 5, 3.5),
        ({"choice": [1, 2, 6]}, 1, 6, 3),
    ],
)
def test_draws_have_their_distribution_and_depend_on_their_number_alone(values, low, high, mean):
    dimension = build(Dimension, values)
    drawn = np.array([sweep_plan.draw(dimension, 0, "a.b", k) for k in range(3000)])
    assert low <= drawn.min() and drawn.max() <= high
    assert abs(drawn.mean() - mean) < 4 * drawn.std() / 3000**0.5
    assert [sweep_plan.draw(dimension, 0, "a.b", k) for k in (7, 3)] == [drawn[7], drawn[3]]


def test_random_points_are_drawn_once_and_more_of_them_keep_the_first():
    fields = {"space": {"train_recognizer.margin.m": {"uniform": [0, 0.5]}}, "search": "random"}
    few = sweep_plan.points(sweep_config(**fields, num_samples=4))
    many = sweep_plan.points(sweep_config(**fields, num_samples=9))
    assert few == many[:4] and len(many) == 9
    assert sweep_plan.points(sweep_config(**fields, num_samples=4, seed=1)) != few


SPACE = {"pack.num_identities": [3]}
POINT = {"pack.num_identities": 3}
REFUSED = [
    ({"space": {"generate.variation.n": [0.1]}}, r"point .*section generate(.|\n)*unknown field(.|\n)*known: .*m"),
    ({"space": {"generator.m": [0.1]}}, r"no section 'generator'; it has: .*generate"),
    ({"space": {"pack.solver.name": ["lse"]}}, r"'solver' is 'subset', which has no fields"),
    ({"space": {"pack.num_identities": []}}, r"space.pack.num_identities.grid"),
    ({"space": {"pack.num_identities": {"uniform": [1, 2]}}}, r"need search random or optuna"),
    ({"space": {"pack.num_identities": {"linspace": [2, 1, 3]}}}, r"low before high"),
    ({"space": {"pack.num_identities": {"grid": [1], "choice": [2]}}}, r"exactly one of"),
    ({"space": {"pack.num_identities": [1]}}, r"(?s)point .*section pack.*num_identities = 1"),
    ({"space": {"pack.num_identities": [3, 3]}}, r"stands twice"),
    ({"space": {"train_recognizer.seed": [1, 2]}}, r"this is seeds of the sweep"),
    ({"space": SPACE, "metric": "heads-v1"}, r"metric 'heads-v1'.*known: all, heads-val, heads-val/frontal"),
    ({"space": SPACE, "test_on": ["heads-val/pose"]}, r"must not have taken part"),
    ({"space": SPACE, "select_on": ["heads-v9"]}, r"unknown benchmark 'heads-v9'"),
    ({"space": SPACE, "search": "random"}, r"needs num_samples"),
    ({"space": SPACE, "scheduler": "asha"}, r"needs rungs"),
    ({"space": SPACE, "seeds": [1, 1]}, r"stands twice"),
    ({"space": {M: [0, 0.5]}, "scheduler": "asha", "rungs": {"first": 1}}, r"easy similarities converge early"),
    ({}, r"nothing to sweep"),
    ({"space": SPACE, "recipe": {"evaluate": None}}, r"no section 'evaluate', which every trial needs"),
    ({"points": [{"name": "a"}, {"name": "b"}]}, r"the point \{\} stands twice"),
    ({"points": [{"name": "a", **POINT}, {"name": "a"}]}, r"name 'a': .*another at each point"),
    ({"points": [{"name": 3, **POINT}]}, r"name 3: a text"),
    ({"points": [{"name": "a", **POINT}, {}]}, r"1 of 2 have a name; name all or none"),
    ({"points": [{"name": "a", **POINT}], "real": "b"}, r"real 'b': the name of one of the points; known: a"),
    ({"points": [{"name": "a", **POINT}], "space": {"seed": [1]}, "real": "a"}, r"real 'a': .*crossed with a space"),
    ({"points": [{"train_recognizer": None}]}, r"train_recognizer: null, but every trial needs it"),
    ({"space": SPACE, "recipe": {"generat": {}}}, r"did you mean 'generate'"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused_before_any_work(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        planned(output=tmp_path / "s", **fields)
    assert not (tmp_path / "s").exists()


def test_inputs_that_are_not_there_are_named_by_the_plan_and_refused_by_the_run(tmp_path):
    config = sweep_config(output=tmp_path / "s", recipe=CEMIFACE, space={M: [0.5, 1.0]})
    assert sweep.plan(config)["missing_inputs"] == ["generate.cemiface.weights /nowhere/weights"]
    with pytest.raises(InputError, match=r"inputs that are not there: generate.cemiface.weights /nowhere/weights"):
        sweep.run(config)


def test_the_plan_says_what_stands_and_estimates_the_rest(tmp_path):
    fields = {"output": tmp_path / "s", "space": {"pack.num_identities": [3, 4]}}
    config, _, found = planned(**fields)
    before = sweep.plan(config)
    assert {name: stages["done"] for name, stages in before["stages"].items()} == dict.fromkeys(before["stages"], 0)
    pool = found[0].whole.stages["pool"]
    artifact.commit(pool, artifact.open_output(pool, {}), "images", [], {"identities": 8}, {})
    after = sweep.plan(config)
    assert after["stages"]["pool"] == {"distinct": 1, "uses": 2, "done": 1}
    assert after["stages"]["pack"] == {"distinct": 2, "uses": 2, "done": 0}
    assert after["estimate"]["of"] == before["estimate"]["of"] - 1
    assert after["estimate"]["sections"] == before["estimate"]["sections"] - 1


def test_a_base_recipe_is_read_and_changed(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(json.dumps({**RECIPE, "report": {}, "pipeline": {"seed": 3}}))
    config = build(
        SweepConfig, {"output": "o", "base": str(base), "recipe": {"pack": {"num_identities": 2}}, "space": SPACE}
    )
    recipe = sweep_plan.resolved(config).recipe
    assert recipe["pack"] == {"solver": "subset", "num_identities": 2}
    assert recipe["seed"] == 3 and "report" not in recipe and recipe["pool"] == RECIPE["pool"]
