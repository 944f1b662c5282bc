"""Turns, room on the cluster, and what becomes of errors; the trials themselves run in tests/e2e/test_sweep.py."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.exceptions import RayTaskError

from synface.core.errors import DivergedError, InputError, PartialError
from synface.flows import sweep_tune
from synface.flows.sweep_config import TRACKERS
from synface.ops import demand
from synface.settings import merge

sys.path.insert(0, str(Path(__file__).parent))
from sweep_tools import planned

TWO_WORKERS = {"train_recognizer": {"numerics": {"num_workers": 2, "threads_per_worker": 1}}}
SPACE = {"train_recognizer.margin.m": [0.1, 0.2, 0.3, 0.4]}


@pytest.fixture
def nodes(monkeypatch):
    """A function that says what nodes the cluster has."""

    def have(*found):
        monkeypatch.setattr(demand, "nodes", lambda labels=None: list(found))
        monkeypatch.setattr(demand, "autoscaled", lambda: False)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": sum(n.get("CPU", 0) for n in found)})

    return have


def test_an_output_has_one_maker_at_a_time():
    desk = sweep_tune.Desk()
    assert desk.take("a", 1) and desk.take("b", 2)
    assert not desk.take("a", 2)
    assert desk.take("a", 1)  # again, after a restart
    desk.give(1, "a")
    assert desk.take("a", 2)
    desk.lose(2)  # a lost driver gives back all that it held
    assert desk.take("a", 3) and desk.take("b", 3)
    desk.fail(3, "no such", True)
    desk.lose(3)
    assert desk.failures() == {2: ("its driver was lost with its process or node", False), 3: ("no such", True)}


GIB = 2**30


@pytest.mark.parametrize(
    ("found", "how", "limit"),
    [
        ([{"CPU": 2, "memory": 8 * GIB}], {}, 1),
        ([{"CPU": 2, "memory": 8 * GIB}], {"max_concurrent": 2}, 2),
        ([{"CPU": 8, "memory": 8 * GIB}], {}, 4),
        ([{"CPU": 64, "memory": 64 * GIB}], {}, 4),  # no more than there are trials
        ([{"CPU": 64, "memory": 1 * GIB}], {}, 2),  # drivers need room too
        ([{"CPU": 0, "trial_driver": 3}, {"CPU": 64}], {}, 3),
        ([{"CPU": 1, "memory": 8 * GIB}], {}, 1),
    ],
)
def test_as_many_trials_as_worker_groups_and_drivers_fit(nodes, found, how, limit):
    nodes(*found)
    config, _, trials = planned(recipe=TWO_WORKERS, space=SPACE, how=how)
    assert sweep_tune.concurrency(config, trials) == limit


def test_a_training_in_the_trials_own_process_counts_as_one_worker(nodes):
    nodes({"CPU": 2, "memory": 8 * GIB})
    alone = {
        "train_recognizer": {"numerics": {"num_workers": 1, "threads_per_worker": 1}, "how": {"in_process": True}}
    }
    config, _, trials = planned(recipe=alone, space=SPACE)
    assert len(trials) == 4
    assert sweep_tune.concurrency(config, trials) == 2


def test_groups_fit_on_the_nodes_of_their_labels_alone(monkeypatch):
    fast, slow = {"CPU": 4, "memory": 8 * GIB}, {"CPU": 64, "memory": 8 * GIB}
    monkeypatch.setattr(demand, "nodes", lambda labels=None: [fast] if labels else [fast, slow])
    monkeypatch.setattr(demand, "autoscaled", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 68})
    recipe = merge(TWO_WORKERS, {"train_recognizer": {"how": {"labels": {"pool": "fast"}}}})
    config, _, trials = planned(recipe=recipe, space=SPACE)
    assert sweep_tune.concurrency(config, trials) == 2
    config, _, trials = planned(recipe=TWO_WORKERS, space=SPACE)
    assert sweep_tune.concurrency(config, trials) == 4


def test_a_driver_asks_for_no_cpu(nodes):
    config, *_ = planned(space=SPACE)
    nodes({"CPU": 2, "memory": 8 * GIB})
    assert sweep_tune.driver_resources(config) == {"CPU": 0, "memory": GIB / 2}
    nodes({"CPU": 2, "memory": 8 * GIB}, {"trial_driver": 16})
    assert sweep_tune.driver_resources(config) == {"trial_driver": 1}


def test_pools_of_trials_that_run_together_leave_each_other_room(nodes):
    nodes({"CPU": 8})
    _, _, (trial, *_) = planned(space=SPACE, recipe={"embed": {"how": {"actors": 3}}})
    stages = sweep_tune.shared_out(trial, 4).whole.stages
    assert stages["evaluate"].how.actors == 2
    assert stages["embed"].how.actors == 3  # asked for
    assert sweep_tune.shared_out(trial, 1).whole.stages == trial.whole.stages
    assert {name: s.output for name, s in stages.items()} == {n: s.output for n, s in trial.whole.stages.items()}


CUDA = {"numerics": {"device": "cuda", "num_workers": 2}, "how": {"gpus_per_worker": 0.5}}


@pytest.mark.parametrize(
    ("section", "given", "held"),
    [
        ("train_recognizer", CUDA, 1.0),
        ("evaluate", {"numerics": {"device": "cuda"}}, 8.0),  # all there are
        ("evaluate", {"numerics": {"device": "cuda"}, "how": {"actors": 3}}, 3.0),
        ("generate", {"numerics": {"device": "cuda"}, "how": {"max_actors": 4, "gpus_per_actor": 0.25}}, 1.0),
        ("generate", {"numerics": {"device": "cuda"}, "how": {"max_actors": 99, "gpus_per_actor": 1}}, 8.0),
        ("evaluate", {}, 0.0),
        ("pack", {}, 0.0),
    ],
)
def test_gpus_that_a_stage_keeps(nodes, section, given, held):
    nodes({"CPU": 64, "GPU": 6}, {"CPU": 8, "GPU": 2})
    _, _, (trial,) = planned(points=[{"seed": 1}], recipe={section: given})
    assert sweep_tune.gpus_held(trial.whole.stages[section]) == held


def as_task_error(cause):
    return RayTaskError("make", "traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "text", "refused"),
    [
        (as_task_error(InputError("no such")), "no such", True),
        (as_task_error(DivergedError("not finite")), "not finite", True),
        (as_task_error(PartialError("3 of 8")), "3 of 8", False),
        (as_task_error(OSError("disk\nfull")), "OSError: full", False),
        (ray.exceptions.WorkerCrashedError(), "WorkerCrashedError: ", False),
    ],
)
def test_what_would_be_refused_again_is_not_tried_again(error, text, refused):
    found = sweep_tune.explained(error)
    assert found[0].startswith(text) and found[1] is refused


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    config, *_ = planned(space=SPACE, how={"trackers": [name]})
    with pytest.raises(InputError, match=f"how.trackers {name}: {name} is not installed; pip install {name}"):
        sweep_tune.callbacks(config)


def test_tensorboard_is_there():
    config, *_ = planned(space=SPACE, how={"trackers": ["tensorboard"]})
    assert [type(c).__name__ for c in sweep_tune.callbacks(config)] == ["TBXLoggerCallback"]


def pretended(config):
    """Reports what a trial's driver reports, without its stages."""
    tune.report({"metric": 0.5 + config["trial"] / 10, "epochs": 6, "accuracy/heads-val": 0.7})


@pytest.mark.slow
def test_each_tracker_holds_every_trials_point_and_accuracies(ray_cluster, tmp_path, monkeypatch, in_ci):
    for name in ("mlflow", "wandb"):
        if importlib.util.find_spec(name) is None:
            (pytest.fail if in_ci else pytest.skip)(f"{name} is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config, _, trials = planned(space={"train_recognizer.margin.m": [0.1, 0.2]}, how={"trackers": [*TRACKERS]})
    by_index = {t.index: t for t in trials}
    fitted = tune.Tuner(
        tune.with_resources(pretended, {"CPU": 0, "memory": 2**28}),
        param_space={"trial": tune.grid_search(sorted(by_index)), "point": sweep_tune._shown(by_index)},
        run_config=tune.RunConfig(
            name="t", storage_path=str(tmp_path / "tune"), verbose=0, callbacks=sweep_tune.callbacks(config)
        ),
    ).fit()
    client = importlib.import_module("mlflow").MlflowClient()
    experiment = client.get_experiment_by_name("synface-sweep")
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda r: r.data.params["trial"])
    assert [r.data.metrics["metric"] for r in runs] == [0.5, 0.6] and {r.info.status for r in runs} == {"FINISHED"}
    assert [next(v for k, v in r.data.params.items() if k.endswith("margin.m")) for r in runs] == ["0.1", "0.2"]
    assert len(list((tmp_path / "tune").rglob("events.out.tfevents.*"))) == 2
    folders = [Path(t.local_path) for t in fitted._experiment_analysis.trials]
    assert [len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) for folder in folders] == [1, 1]
