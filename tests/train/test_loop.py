import copy
import itertools

import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import recognizers
from synface.settings import build
from synface.train import augment, data, distributed, loop, run, steps_run
from synface.train.config import TrainRecognizerConfig
from synface.train.head import MarginHead

GIB = 1 << 30


pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(toy: str, **changes) -> TrainRecognizerConfig:
    fields = {
        "images": [toy],
        "output": "unused",
        "backbone": "tiny",
        "image_size": 32,
        "embedding_dim": 16,
        "epochs": 3,
        "global_batch_size": 8,
        "margin": {"s": 16, "m": 0.2},
        "optimizer": {"lr": 0.05, "warmup_epochs": 0},
    }
    return build(TrainRecognizerConfig, fields | changes)


def train(config: TrainRecognizerConfig, until: int | None = None, state: loop.State | None = None):
    """Train in this process; stop (as if killed) after step `until`. The state, and the steps that were saved."""
    catalog = data.scan(config.images, config.image_size)
    shape = loop.shape_of(config, catalog)
    state = state or loop.build_state(config, shape)
    source = data.ImageSource(catalog, config.image_size, config.how.memory_gb * GIB, config.shuffle_shards)
    saved: list[int] = []

    def watch(state: loop.State, loss: float, lr: float) -> None:
        if state.step == until:
            raise KeyboardInterrupt

    try:
        result = loop.run_steps(
            config, catalog, source, shape, state, lambda s, ended: ended, lambda s: saved.append(s.step), watch
        )
    except KeyboardInterrupt:
        result = None
    return state, saved, result


def same(a: loop.State, b: loop.State) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return a.history == b.history and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def undisturbed(toy_images):
    torch.set_num_threads(1)
    return train(config_of(toy_images))


def test_training_learns_the_toy_identities(undisturbed):
    state, saved, result = undisturbed
    assert result is None
    assert saved == [3, 6, 9]
    assert [entry["epoch"] for entry in state.history] == [1, 2, 3]
    assert state.history[-1]["accuracy"] > state.history[0]["accuracy"]
    assert state.history[-1]["loss"] < 0.5 * state.history[0]["loss"]


@pytest.mark.parametrize("killed_at", [2, 3, 7])
def test_resumed_training_has_the_bits_of_an_undisturbed_one(toy_images, undisturbed, killed_at):
    config = config_of(toy_images)
    state, _, _ = train(config, until=killed_at)
    packed = loop.pack_checkpoint(state)
    resumed = loop.build_state(config, loop.shape_of(config, data.scan(config.images, 32)))
    loop.unpack_checkpoint(resumed, packed, "cpu")
    assert resumed.step == killed_at
    train(config, state=resumed)
    assert same(resumed, undisturbed[0])


def dropping(dim: int, size: int) -> torch.nn.Module:
    """A backbone that draws in every step, as IR networks and transformers do."""
    return torch.nn.Sequential(recognizers.build("tiny", dim, size), torch.nn.Dropout(0.5))


def test_dropout_resumes_to_the_same_bits_and_leaves_the_global_generator(toy_images):
    config = config_of(toy_images, backbone=f"{__name__}:dropping", epochs=1)
    before = torch.get_rng_state()
    whole, _, _ = train(config)
    assert torch.equal(torch.get_rng_state(), before)
    part, _, _ = train(config, until=1)
    resumed = loop.build_state(config, loop.shape_of(config, data.scan(config.images, 32)))
    loop.unpack_checkpoint(resumed, loop.pack_checkpoint(part), "cpu")
    torch.rand(5)  # another process
    train(config, state=resumed)
    assert same(resumed, whole)
    drawn = []
    for step, rank in ((0, 0), (0, 0), (1, 0), (0, 1)):
        with loop.step_noise(config, step, loop.Shape(2, 1, 1, rank, 2)):
            drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


@pytest.mark.parametrize("optimizer", [{"name": "adamw", "lr": 1e-3}, {"name": "sgd", "clip_norm": None}])
def test_every_optimizer_resumes(toy_images, optimizer):
    config = config_of(toy_images, optimizer=optimizer, margin={"name": "adaface"}, epochs=1)
    whole, _, _ = train(config)
    part, _, _ = train(config, until=2)
    resumed = loop.build_state(config, loop.shape_of(config, data.scan(config.images, 32)))
    loop.unpack_checkpoint(resumed, loop.pack_checkpoint(part), "cpu")
    train(config, state=resumed)
    assert same(resumed, whole)
    assert whole.model.head.norm_mean != 20.0


@pytest.mark.parametrize(
    "how",
    [{"prefetch": 0}, {"prefetch": 5, "decode_threads": 1}, {"checkpoint_every": 2, "max_failures": 0}],
)
def test_how_fields_change_no_bit(toy_images, undisturbed, how):
    assert same(train(config_of(toy_images, how=how))[0], undisturbed[0])


def test_seed_and_streaming_change_the_order(toy_images, undisturbed):
    assert not same(train(config_of(toy_images, seed=1))[0], undisturbed[0])
    windowed = config_of(toy_images, shuffle_shards=1)
    streamed = config_of(toy_images, shuffle_shards=1, how={"memory_gb": 1e-6})
    assert same(train(windowed)[0], train(streamed)[0])
    assert not same(train(windowed)[0], undisturbed[0])


def test_a_loss_that_is_not_finite_stops_before_the_next_checkpoint(toy_images):
    config = config_of(toy_images)
    state, _, _ = train(config, until=4)
    with torch.no_grad():
        state.model.backbone.get_parameter("fc.weight")[0, 0] = float("inf")
    _, saved, result = train(config, state=state)
    assert result == loop.Diverged(5)
    assert saved == []


def test_one_step_is_the_textbook_one(toy_images):
    """A step by plain PyTorch: same images, cross entropy of CosFace logits, SGD with momentum and decay."""
    config = config_of(
        toy_images, optimizer={"lr": 0.05, "warmup_epochs": 0, "clip_norm": None, "schedule": "constant"}
    )
    catalog = data.scan(config.images, 32)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    naive = copy.deepcopy(state.model)
    velocity = {name: torch.zeros_like(p) for name, p in naive.named_parameters()}
    order = data.epoch_order([s.rows for s in catalog.shards], None, config.seed, 0)
    source = data.ImageSource(catalog, 32, GIB)
    for step in range(2):
        index = order[step * 8 : (step + 1) * 8]
        draws = augment.draw(config.augmentation, config.seed, 0, index, 32)
        x, y = augment.apply(source.take(index), draws), catalog.labels[index]
        loss, _ = loop.train_step(config, state, shape, x, y)
        naive.zero_grad()
        features = naive.backbone(torch.from_numpy(x).permute(0, 3, 1, 2))
        cos = torch.nn.functional.cosine_similarity(features[:, None], naive.head.weight[None], dim=2)
        target = torch.nn.functional.one_hot(torch.from_numpy(y), 6)
        expected = torch.nn.functional.cross_entropy(16 * (cos - 0.2 * target), torch.from_numpy(y))
        expected.backward()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
        with torch.no_grad():
            for name, p in naive.named_parameters():
                velocity[name] = 0.9 * velocity[name] + p.grad + 5e-4 * p
                p -= 0.05 * velocity[name]
    for (name, p), q in zip(state.model.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-3, msg=name)


def test_margin_warm_up_starts_at_plain_softmax():
    head = MarginHead(5, 8, config_of("x", margin={"name": "arcface", "m": 0.5}).margin)
    features, labels = torch.randn(4, 8), torch.tensor([0, 1, 2, 3])
    logits, cos = head(features, labels, share=0.0)
    torch.testing.assert_close(logits, 64.0 * cos, atol=1e-3, rtol=1e-4)
    full, _ = head(features, labels, share=1.0)
    assert (full.gather(1, labels[:, None]) < logits.gather(1, labels[:, None])).all()


def test_checkpoints_keep_the_newest_whole_ones(toy_images, tmp_path):
    state, _, _ = train(config_of(toy_images), until=1)
    folder = str(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        state.step = step
        loop.save_checkpoint(folder, state)
    names = loop.checkpoint_names(folder)
    assert [int(n.split("-")[1]) for n in names] == [3, 2]
    newest = tmp_path / "checkpoints" / names[0]
    newest.write_bytes(newest.read_bytes()[:-7])  # cut short
    data_found = loop.newest_checkpoint(folder)
    assert data_found == (tmp_path / "checkpoints" / names[1]).read_bytes()
    assert loop.newest_checkpoint(str(tmp_path / "none")) is None


def test_checkpoints_hold_no_code(toy_images, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    state, _, _ = train(config_of(toy_images), until=1)
    path = tmp_path / "evil.pt"
    torch.save({"model": Evil()}, path)
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        loop.unpack_checkpoint(state, path.read_bytes(), "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_batch_size": 9, "numerics": {"num_workers": 2}}, "not a multiple of 2 workers"),
        ({"global_batch_size": 2, "numerics": {"num_workers": 2}}, "batch normalisation needs two"),
        ({"margin": {"name": "sphereface"}}, "margin.name = 'sphereface'.*cosface"),
        ({"optimizer": {"schedule": "step"}}, "needs milestones"),
        ({"optimizer": {"milestones": [5, 3]}}, "must rise"),
        ({"augmentation": {"crop_scale": [1.0, 0.9]}}, "must rise"),
        ({"numerics": {"dtype": "float16"}}, "needs device cuda"),
        ({"image_size": 50}, "multiple of 16"),
        ({"how": {"in_process": True}, "numerics": {"num_workers": 2}}, "in_process is for one worker"),
        ({"images": []}, "images"),
        ({"head": {"sharded": True}, "numerics": {"dtype": "float16", "device": "cuda"}}, "use bfloat16"),
        ({"images": ["a", "a"]}, "the same table stands twice"),
        ({"numerics": {"num_workers": 3, "min_workers": 2}}, "8 with 2 to 3 workers.*a multiple of 6"),
        ({"numerics": {"num_workers": 2, "min_workers": 2}}, "min_workers 2 with num_workers 2: fewer"),
        (
            {"numerics": {"num_workers": 2, "min_workers": 1}, "how": {"labels": {"pool": "a"}}},
            "min_workers with how.labe",
        ),
        (
            {"global_batch_size": 12, "numerics": {"num_workers": 3, "min_workers": 1, "accumulate": 3}},
            "batch of 4 does not",
        ),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(InputError, match=message):
        config_of("a", **change)


def test_an_elastic_group_is_asked_of_ray_and_its_sizes_are_stated(toy_images):
    elastic = config_of(
        toy_images,
        global_batch_size=12,
        numerics={"num_workers": 3, "min_workers": 1, "threads_per_worker": 4},
        how={"resize_seconds": 7},
    )
    asked = distributed.scaling(elastic)
    assert (asked.num_workers, asked.elastic_resize_monitor_interval_s) == ((1, 3), 7)
    assert asked.resources_per_worker == {"CPU": 4.0}  # never a share of what there is now
    shape = loop.Shape(classes=6, epoch_steps=3, total_steps=6)
    state = loop.build_state(elastic, shape)
    state.step, state.losses = 3, [(3.0, 0.5, 2), (2.0, 1.0, 3), (1.0, 0.0, 2)]
    entry = loop.epoch_entry(state, 0.05, shape, elastic=True)
    assert entry == {"epoch": 1, "step": 3, "loss": 2.0, "accuracy": 0.5, "lr": 0.05, "workers": {"2": 2, "3": 1}}
    assert run.steps_by_workers([entry, {"workers": {"3": 3}}]) == {"2": 2, "3": 4}


def test_a_sharded_head_alone_trains_as_the_plain_one(toy_images):
    """PartialFC at full rate on one worker: the steps of the plain head, from the same centres."""
    plain, sharded = config_of(toy_images), config_of(toy_images, head={"sharded": True})
    catalog = data.scan(plain.images, 32)
    shape = loop.shape_of(plain, catalog)
    one, other = loop.build_state(plain, shape), loop.build_state(sharded, shape)
    with torch.no_grad():
        one.model.head.weight.copy_(other.model.head.weight)
    batches = loop.batches(plain, catalog, data.ImageSource(catalog, 32, GIB), shape, 0)
    for x, y in itertools.islice(batches, 3):
        expected, hits = loop.train_step(plain, one, shape, x, y)
        assert loop.train_step(sharded, other, shape, x, y) == (pytest.approx(expected, rel=1e-5), hits)
    torch.testing.assert_close(other.model.head.weight, one.model.head.weight, atol=1e-5, rtol=1e-3)


def test_accumulated_parts_are_the_mean_of_their_losses(toy_images):
    optimizer = {"lr": 0.05, "warmup_epochs": 0, "clip_norm": None, "momentum": 0, "weight_decay": 0}
    config = config_of(toy_images, numerics={"accumulate": 4}, optimizer=optimizer)
    catalog = data.scan(config.images, 32)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    naive = copy.deepcopy(state.model)
    x, y = next(loop.batches(config, catalog, data.ImageSource(catalog, 32, GIB), shape, 0))
    loss, hits = loop.train_step(config, state, shape, x, y)
    images, labels = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)
    parts = [naive(images[i : i + 2], labels[i : i + 2]) for i in range(0, 8, 2)]
    mean = sum(part for part, _ in parts) / 4
    mean.backward()
    assert loss == pytest.approx(float(mean.detach()), rel=1e-6)
    assert hits == sum(int(h) for _, h in parts) / 8
    for p, q in zip(state.model.parameters(), naive.parameters(), strict=True):
        if q.grad is not None:
            torch.testing.assert_close(p.detach(), q.detach() - 0.05 * q.grad, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="batch of 8 does not divide into 3 parts"):
        config_of(toy_images, numerics={"accumulate": 3})


def test_sampled_classes_resume_to_the_same_bits(toy_images):
    config = config_of(toy_images, head={"sharded": True, "sample_rate": 0.7})
    whole, _, _ = train(config)
    part, _, _ = train(config, until=4)
    resumed = loop.build_state(config, loop.shape_of(config, data.scan(config.images, 32)))
    loop.unpack_checkpoint(resumed, loop.pack_checkpoint(part), "cpu")
    train(config, state=resumed)
    assert same(resumed, whole)


def test_order_of_labels_follows_images(toy_images):
    config = config_of(toy_images, augmentation={"flip": 0, "crop_scale": [1, 1], "erasing": 0})
    catalog = data.scan(config.images, 32)
    shape = loop.shape_of(config, catalog)
    first = next(loop.batches(config, catalog, data.ImageSource(catalog, 32, GIB), shape, 4))
    order = data.epoch_order([10, 10, 4], None, 0, 1)
    assert np.array_equal(first[1], order[8:16] // 4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_checkpoints_are_estimated_by_what_one_holds(toy_images, optimizer):
    config = config_of(toy_images, epochs=1, optimizer={"name": optimizer, "lr": 0.01, "warmup_epochs": 0})
    state, _, _ = train(config)
    per_epoch = data.steps_per_epoch(data.scan(config.images, 32).per_epoch, config.global_batch_size)
    classes = state.model.head.weight.shape[0]
    found = run.estimate(config, per_epoch, steps_run.read_table(config), classes)["store"]["bytes_written"]
    assert found <= len(loop.pack_checkpoint(state)) < 1.1 * found + 100_000  # batch norms' statistics, names
