import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.models.embedding import Embedder
from synface.settings import build
from synface.store import artifact
from synface.train import augment, data, distributed, loop, run
from synface.train.config import TrainRecognizerConfig
from tests.train.conftest import pixels, write_toy


def test_a_recognizers_training_loads_no_diffusion_library():
    """What it would cost every controller and every worker: five seconds of a CPU."""
    found = "import sys, synface.train.run; print([m for m in ('diffusers', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def config_of(toy: str, output: Path | str, **changes) -> TrainRecognizerConfig:
    fields = {
        "images": [toy],
        "output": str(output),
        "backbone": "tiny",
        "image_size": 32,
        "embedding_dim": 16,
        "epochs": 2,
        "global_batch_size": 8,
        "margin": {"s": 16, "m": 0.2},
        "optimizer": {"lr": 0.05, "warmup_epochs": 0},
        "numerics": {"threads_per_worker": 1},
        "how": {"in_process": True},
    }
    return build(TrainRecognizerConfig, fields | changes)


def two_replicas(config: TrainRecognizerConfig) -> loop.State:
    """Data parallelism written out: two copies, their gradients averaged, running statistics of the first."""
    catalog = data.scan(config.images, config.image_size)
    shape = loop.shape_of(config, catalog)
    states = [loop.build_state(config, shape) for _ in range(2)]
    source = data.ImageSource(catalog, config.image_size, 1 << 30)
    rows = [s.rows for s in catalog.shards]
    for step in range(shape.total_steps):
        epoch, within = divmod(step, shape.epoch_steps)
        order = data.epoch_order(rows, None, config.seed, epoch)
        for rank, state in enumerate(states):
            state.model.train()
            index = order[data.rank_slice(within, config.global_batch_size, rank, 2)]
            draws = augment.draw(config.augmentation, config.seed, epoch, index, config.image_size)
            x = torch.from_numpy(augment.apply(source.take(index), draws)).permute(0, 3, 1, 2)
            state.optimizer.zero_grad()
            state.model(x, torch.from_numpy(catalog.labels[index]))[0].backward()
        for p, q in zip(*[s.model.parameters() for s in states], strict=True):
            if p.grad is not None and q.grad is not None:
                p.grad = (p.grad + q.grad) / 2
                q.grad = p.grad.clone()
        for state in states:
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), 5.0)
            for group in state.optimizer.param_groups:
                group["lr"] = loop.learning_rate(config.optimizer, step, shape)
            state.optimizer.step()
        for p, q in zip(*[s.model.buffers() for s in states], strict=True):
            q.copy_(p)
    return states[0]


@pytest.mark.ray
def test_two_workers_train_as_two_replicas_written_out(ray_cluster, toy_images, tmp_path, monkeypatch):
    """Of images at a relative path: workers stand in another folder."""
    monkeypatch.chdir(tmp_path)
    images = os.path.relpath(toy_images)
    config = config_of(images, tmp_path / "out", numerics={"num_workers": 2, "threads_per_worker": 1}, how={})
    result = run.run(config)
    assert (result["images"], result["classes"], result["steps"], result["cached"]) == (24, 6, 6, False)
    manifest = artifact.require(config.output, "recognizer")
    assert sorted(f.path for f in manifest.files) == ["config.json", "history.json", "model.safetensors"]
    embedder = Embedder.from_pretrained(config.output, threads=1)
    assert (embedder.dim, embedder.size) == (16, 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = two_replicas(config).model.backbone.state_dict()
    finally:
        torch.set_num_threads(threads)
    for name, value in embedder._module.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-3, msg=name)
    assert run.run(config)["cached"]


@pytest.mark.ray
def test_in_process_training_leaves_a_usable_recognizer(ray_cluster, toy_images, tmp_path):
    config = config_of(toy_images, tmp_path / "out", epochs=4, licence="Apache-2.0")
    result = run.run(config)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [h["epoch"] for h in history] == [1, 2, 3, 4]
    assert set(history[0]) == {"epoch", "step", "loss", "accuracy", "lr"}
    assert result["loss"] == history[-1]["loss"]
    assert list((tmp_path / "out" / "_synface" / "tensorboard").iterdir())
    assert not list((tmp_path / "out").rglob("*.pt"))
    x = np.stack([pixels(i, k, 32) for i in range(6) for k in (50, 51)])  # unseen samples
    e = Embedder.from_pretrained(config.output, threads=1).embed(x)
    cos = e @ e.T - 2 * np.eye(12)
    assert (cos.argmax(1) == np.arange(12) ^ 1).mean() >= 0.75
    again = run.run(config)
    assert again["cached"]
    assert {k: v for k, v in again.items() if k not in ("cached", "seconds")} == {
        k: v for k, v in result.items() if k not in ("cached", "seconds")
    }


def unfinished(config: TrainRecognizerConfig, steps: int) -> list[dict]:
    """An output as a training that was killed behind step `steps` leaves it; the history so far."""
    artifact.open_output(config, run.input_digests(config))
    catalog = data.scan(config.images, config.image_size)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    folder = f"{config.output}/{distributed.CHECKPOINTS}"
    source = data.ImageSource(catalog, config.image_size, 1 << 30)
    with pytest.raises(KeyboardInterrupt):
        loop.run_steps(
            config, catalog, source, shape, state, lambda s, ended: s.step == steps,
            lambda s: loop.save_checkpoint(folder, s), lambda s, *_: interrupt_after(s.step, steps),
        )  # fmt: skip
    return state.history


def interrupt_after(step: int, last: int) -> None:
    if step > last:
        raise KeyboardInterrupt


def test_only_the_same_training_is_gone_on_with(toy_images, tmp_path):
    with pytest.raises(InputError, match="no checkpoint of an unfinished training there"):
        run.run(config_of(toy_images, tmp_path / "b", continue_from=str(tmp_path / "a")))
    unfinished(config_of(toy_images, tmp_path / "a"), 4)
    numerics = {"num_workers": 2, "threads_per_worker": 1}
    same = config_of(toy_images, tmp_path / "b", continue_from=str(tmp_path / "a"), numerics=numerics, how={})
    assert set(run.input_digests(same)) == {"images.0", "continue_from"}
    other = config_of(toy_images, tmp_path / "b", continue_from=str(tmp_path / "a"), seed=1)
    with pytest.raises(InputError, match=r"another training(.|\n)*seed: '\(default\)' -> 1"):
        run.run(other)


@pytest.mark.slow
@pytest.mark.ray
def test_a_sharded_training_goes_on_with_two_workers(ray_cluster, toy_images, tmp_path):
    """PartialFC through Ray Train: one worker's checkpoint, divided over two; a merged one at the end."""
    head = {"sharded": True, "sample_rate": 0.7}
    history = unfinished(config_of(toy_images, tmp_path / "a", epochs=4, head=head), 4)
    numerics = {"num_workers": 2, "threads_per_worker": 1}
    config = config_of(
        toy_images, tmp_path / "b", epochs=4, head=head, continue_from=str(tmp_path / "a"), numerics=numerics, how={}
    )
    result = run.run(config)
    assert result["steps"] == 12
    written = json.loads((tmp_path / "b" / "history.json").read_text())
    assert written[:1] == history[:1] and len(written) == 4
    assert written[-1]["loss"] < 0.8 * written[0]["loss"]
    embedder = Embedder.from_pretrained(config.output, threads=1)
    assert np.isfinite(embedder.embed(np.stack([pixels(0, k, 32) for k in range(4)]))).all()


def test_plan_counts_steps_without_reading_images(toy_images, tmp_path):
    plan = run.plan(config_of(toy_images, tmp_path / "out"))
    assert plan["images"] == {toy_images: 24}
    assert (plan["steps_per_epoch"], plan["steps"]) == (3, 6)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet"}, "unknown backbone 'resnet'; known: ir_101, .*mobilefacenet"),
        ({"images": ["/nowhere/at/all"]}, "nothing stands there"),
        ({"global_batch_size": 64}, "larger than the 24 training images"),
        ({"image_size": 64}, "images are 32x32 pixels, image_size asks 64"),
    ],
)
def test_bad_input_is_refused_before_any_work(toy_images, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run.run(config_of(toy_images, tmp_path / "out", **change))
    assert not (tmp_path / "out" / artifact.MANIFEST).exists()


def test_one_class_only_is_refused(tmp_path):
    toy = write_toy(str(tmp_path / "one"), identities=1, per_identity=20)
    with pytest.raises(InputError, match="at least two identities"):
        run.run(config_of(toy, tmp_path / "out"))


@pytest.mark.ray
def test_divergence_is_told_and_the_last_good_checkpoint_kept(ray_cluster, toy_images, tmp_path, monkeypatch):
    config = config_of(toy_images, tmp_path / "out", how={"in_process": True, "checkpoint_every": 2})
    real_step = loop.train_step

    def poisoned(config, state, *rest):
        if state.step == 3:
            with torch.no_grad():
                state.model.head.weight.fill_(float("nan"))
        return real_step(config, state, *rest)

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(SynfaceError, match=r"no longer finite at step 4.*Lower optimizer\.lr"):
        run.run(config)
    assert artifact.load_manifest(config.output) is None
    names = loop.checkpoint_names(f"{config.output}/{distributed.CHECKPOINTS}")
    assert [int(n.split("-")[1]) for n in names] == [2]


DRIVER = """
import sys
from synface.settings import build
from synface.train.config import TrainRecognizerConfig
from synface.train import run
print(run.run(build(TrainRecognizerConfig, eval(sys.argv[1]))))
"""


def start(config: TrainRecognizerConfig) -> subprocess.Popen:
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, repr(config.model_dump(mode="json"))], env=environment, start_new_session=True
    )


LONG = {"epochs": 150, "how": {"checkpoint_every": 20}}


@pytest.fixture(scope="module")
def calm(toy_images, tmp_path_factory) -> Path:
    """The training that nothing disturbed."""
    output = tmp_path_factory.mktemp("calm") / "whole"
    assert start(config_of(toy_images, output, **LONG)).wait(400) == 0
    return output


def wait_for_checkpoint(process: subprocess.Popen, output: Path) -> None:
    deadline = time.monotonic() + 300
    while not checkpoints(output):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(output: Path) -> list[str]:
    return sorted(p.name for p in (output / "_synface" / "train").glob("step-*.pt"))


def assert_same(output: Path, calm: Path) -> None:
    for name in ("model.safetensors", "config.json", "history.json", artifact.MANIFEST):
        assert (calm / name).read_bytes() == (output / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_and_resumed_training_ends_with_the_same_bytes(calm, toy_images, tmp_path, victim):
    broken = config_of(toy_images, tmp_path / "broken", **LONG)
    process = start(broken)
    wait_for_checkpoint(process, tmp_path / "broken")
    if victim == "driver":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "broken" / artifact.MANIFEST).exists()
        process = start(broken)
    else:
        os.kill(worker_of(process.pid), signal.SIGKILL)
    assert process.wait(400) == 0
    assert_same(tmp_path / "broken", calm)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_stop_signal_leaves_a_checkpoint_of_that_moment(toy_images, tmp_path, number, workers):
    how = {"checkpoint_seconds": 3600}  # no other checkpoint would be there
    numerics = {"threads_per_worker": 1, "num_workers": workers}
    config = config_of(toy_images, tmp_path / "o", epochs=20_000, how=how, numerics=numerics)
    recipe = tmp_path / "recipe.json"  # JSON is YAML
    recipe.write_text(json.dumps({"train_recognizer": config.model_dump(mode="json")}))
    process = start_verb(recipe)
    assert process.stderr is not None
    line = next((text for text in process.stderr if "loss" in text), "")
    assert "train: " in line, "no step was done"
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 30, err[-3000:]
    result = json.loads(out.splitlines()[-1])
    assert (process.returncode, result["exit_code"]) == (3, 3), err[-3000:]
    assert f"stopped by {number.name}; what is finished is kept" in result["error"]
    kept = checkpoints(tmp_path / "o")
    assert len(kept) == 1 and int(kept[0].split("-")[1]) > 0
    process = start_verb(recipe)
    step = int(kept[0].split("-")[1])
    assert process.stderr is not None
    assert any(f"train: continues at step {step} of" in text for text in process.stderr)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def start_verb(recipe: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "synface.cli", "train", "recognizer", "--config", str(recipe)]
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    environment.pop("RAY_ADDRESS", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def worker_of(driver: int) -> int:
    """The process id of the training worker below a driver."""
    import psutil

    for process in psutil.Process(driver).children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            return process.pid
    raise AssertionError("no training worker found")


def test_a_training_that_another_process_stopped_is_not_finished():
    distributed.check_ended("o", 8, 8)
    with pytest.raises(PartialError, match="o: stopped at step 3 of 8; the same command continues"):
        distributed.check_ended("o", 3, 8)
