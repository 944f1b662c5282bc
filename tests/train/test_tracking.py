"""Curves in TensorBoard, MLflow (its file store) and Weights & Biases (offline): nothing here needs a network."""

import importlib
import importlib.util
import json
import sys

import pytest

from synface.core.errors import InputError
from synface.store import artifact
from synface.train import data, distributed, loop, run, tracking
from tests.train.test_run import config_of


def needed(name, in_ci):
    if importlib.util.find_spec(name) is None:
        (pytest.fail if in_ci else pytest.skip)(f'{name} is not installed: pip install "synface[{name}]"')
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(toy_images, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    config = config_of(toy_images, tmp_path / "out", how={"trackers": [name]})
    with pytest.raises(InputError, match=rf'how.trackers {name}: {name} is not .*pip install "synface\[{name}\]"'):
        run.plan(config)


def test_mlflow_needs_a_server(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        tracking.check(["wandb", "mlflow"])
    tracking.check(["wandb"])


def test_trackers_do_not_name_the_result(toy_images, tmp_path):
    plain, told = (config_of(toy_images, tmp_path / "out", how={"trackers": t}) for t in ([], ["wandb"]))
    artifact.open_output(plain, run.input_digests(plain))
    before = tracking.tracked(plain.output)
    assert before.config["backbone"] == "tiny" and len(before.key) == 16
    artifact.open_output(told, run.input_digests(told))
    assert tracking.tracked(told.output) == before


@pytest.mark.parametrize("fails_at", ["start", "add", "end"])
def test_a_tracker_that_fails_is_left_out(tmp_path, monkeypatch, capsys, fails_at):
    seen = {"good": [], "bad": []}

    def starting(name):
        def start(training):
            def add(step, scalars):
                if (name, fails_at, step) == ("bad", "add", 2):
                    raise OSError("the server\nis away")
                seen[name].append((step, scalars["loss"]))

            def end(well):
                if (name, fails_at) == ("bad", "end"):
                    raise OSError("the server\nis away")
                seen[name].append(well)

            if (name, fails_at) == ("bad", "start"):
                raise OSError("the server\nis away")
            return add, end

        return start

    monkeypatch.setattr(tracking, "STARTS", {name: starting(name) for name in seen})
    with tracking.boards(str(tmp_path), 0, ["bad", "good"]) as add:
        for step in (1, 2, 3):
            add(step, {"loss": step / 2})
    assert seen["good"] == [(1, 0.5), (2, 1.0), (3, 1.5), True]
    assert seen["bad"] == {"start": [], "add": [(1, 0.5)], "end": [(1, 0.5), (2, 1.0), (3, 1.5)]}[fails_at]
    assert capsys.readouterr().err.count("bad is left out from here on: the server\n") == 1


def test_an_interrupted_training_is_told_apart_from_an_ended_one(tmp_path, monkeypatch):
    ends = []
    monkeypatch.setattr(tracking, "STARTS", {"one": lambda training: (lambda *_: None, ends.append)})
    with pytest.raises(KeyboardInterrupt), tracking.boards(str(tmp_path), 0, ["one"]):
        raise KeyboardInterrupt
    with tracking.boards(str(tmp_path), 0, ["one"], enabled=False):
        pass  # another rank than 0
    assert ends == [False]


def test_leaves_are_dotted_paths():
    tree = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": {}}
    assert tracking.leaves(tree) == {"a.b": "1", "a.c.d": "[1,2]", "e": "text", "f": "{}"}


def wandb_records(path):
    """The messages of an offline run's file: LevelDB's log format behind seven bytes of its own."""
    data, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # a block's rest is empty
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def wandb_points(path, name):
    """step -> value of one curve."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    points = {}
    for message in wandb_records(path):
        record = messages.Record.FromString(message)
        values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        if name in values:
            points[values["_step"]] = values[name]
    return points


@pytest.mark.slow
def test_a_trainings_curves_reach_both(toy_images, tmp_path, monkeypatch, in_ci):
    mlflow, _ = needed("mlflow", in_ci), needed("wandb", in_ci)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    out = tmp_path / "out"
    config = config_of(toy_images, out, how={"in_process": True, "trackers": ["mlflow", "wandb"], "log_every": 1})
    artifact.open_output(config, run.input_digests(config))
    catalog, folder = data.scan(config.images, config.image_size), str(out / "checkpoints")
    # what a worker does, without the cluster that starts it
    assert distributed.train_recognizer(config, catalog, folder, "cpu", lambda state: False) is None
    state = loop.build_state(config, loop.shape_of(config, catalog))
    loop.unpack_checkpoint(state, loop.newest_checkpoint(folder) or b"", "cpu")
    expected = {h["step"]: h["loss"] for h in state.history}
    key = tracking.tracked(str(out)).key

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("synface-train")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.tags[tracking.KEY_TAG] == key
    assert found.data.params["backbone"] == "tiny" and found.data.params["margin.s"] == "16.0"
    points = client.get_metric_history(found.info.run_id, "epoch/loss")
    assert {p.step: p.value for p in points} == expected
    steps = [p.step for p in client.get_metric_history(found.info.run_id, "train/lr")]
    assert steps == [1, 2, 3, 4, 5, 6]

    (path,) = (out / "_synface").glob(f"wandb/offline-run-*/run-{key}.wandb")
    assert wandb_points(path, "epoch/loss") == expected

    # an interrupted training goes on in the same run
    add, end = tracking.start_mlflow(tracking.tracked(str(out)))
    add(7, {"train/lr": 0.5})
    end(False)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "KILLED"
    assert [p.step for p in client.get_metric_history(found.info.run_id, "train/lr")] == [*steps, 7]
