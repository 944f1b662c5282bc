"""Training of the generator: bits, workers, passes, modes, refusals."""

import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from synface.core import crops, dial, rng, scores
from synface.core.errors import DivergedError, InputError, SynfaceError
from synface.models import sampling
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.settings import with_input_uris
from synface.store import artifact
from synface.train import (
    average_loop,
    data,
    diffusion,
    distributed,
    generator_batches,
    generator_run,
    generator_setup,
    generator_worker,
    looks,
    loop,
    similarity,
    variance,
)
from synface.train.average_loop import Place
from synface.train.generator_config import TrainGeneratorConfig
from tests.train.conftest import write_toy
from tests.train.generator_helpers import config_of, same_bits, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def undisturbed(toy_images, networks, tmp_path_factory):
    torch.set_num_threads(1)
    return train(config_of(toy_images, networks), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_resumed_training_has_the_bits_of_an_undisturbed_one(
    toy_images, networks, undisturbed, tmp_path, monkeypatch, killed_at
):
    real = average_loop.train_step

    def killed(config, state, *rest):
        if state.step == killed_at:
            raise KeyboardInterrupt
        return real(config, state, *rest)

    config = config_of(toy_images, networks)
    monkeypatch.setattr(average_loop, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    monkeypatch.undo()
    assert bool(loop.checkpoint_names(str(tmp_path))) == (killed_at >= 2)
    assert same_bits(train(config, tmp_path), undisturbed)


def test_a_stop_leaves_a_checkpoint_of_its_moment(toy_images, networks, undisturbed, tmp_path):
    config = config_of(toy_images, networks, tmp_path)
    catalog = data.scan(config.images, config.image_size)
    stop = generator_worker.train_generator(config, catalog, str(tmp_path), "cpu", lambda state: state.step == 1)
    assert stop is None
    assert [n.split("-")[1] for n in loop.checkpoint_names(str(tmp_path))] == ["000000001"]
    assert same_bits(train(config, tmp_path), undisturbed)


def test_what_only_watches_or_fetches_changes_no_bit(toy_images, networks, undisturbed, tmp_path):
    how = {"samples_every": 3, "samples_images": 2, "prefetch": 0, "checkpoint_every": 1, "memory_gb": 1e-4}
    assert same_bits(train(config_of(toy_images, networks, tmp_path, how=how), tmp_path / "c"), undisturbed)
    pictures = sorted((tmp_path / "c" / "_synface" / "samples").iterdir())
    assert [p.name for p in pictures] == [f"step-{n:09d}.png" for n in (3, 4)]
    step = 32 + looks.BORDER
    assert Image.open(pictures[0]).size == ((len(looks.GRID) + 1) * step + 2, 2 * step + 2)


def fresh_parameters(config: TrainGeneratorConfig) -> torch.Tensor:
    found = generator_setup.load_networks(config, "cpu")
    state = average_loop.build_state(config, lambda: generator_setup.make_trainee(config, found), Place())
    return torch.cat([p.detach().flatten() for p in state.average.parameters()])


def gradients(state: average_loop.State) -> list[torch.Tensor]:
    """The clipped gradients of a training of one step, from AdamW's first moment (1 - 0.9) g."""
    return [moments["exp_avg"] / 0.1 for moments in state.optimizer.state_dict()["state"].values()]


def test_accumulated_passes_have_the_gradient_of_one_batch(toy_images, networks, tmp_path):
    """Not the weights: AdamW turns a gradient's rounding around zero into a whole step."""
    numerics = {"threads_per_worker": 1, "accumulation": 2}
    accumulated = train(config_of(toy_images, networks, numerics=numerics, steps=1), tmp_path / "two")
    once = train(config_of(toy_images, networks, steps=1), tmp_path / "one")
    assert accumulated.history[0]["loss"] == pytest.approx(once.history[0]["loss"], abs=2e-6)
    for x, y in zip(gradients(accumulated), gradients(once), strict=True):
        torch.testing.assert_close(x, y, atol=2e-6, rtol=1e-3)


@pytest.mark.ray
def test_two_workers_train_as_one_and_leave_a_usable_generator(
    ray_cluster, toy_images, networks, undisturbed, tmp_path, monkeypatch
):
    """Data parallelism has the whole batch's gradient, because the batch's rows do not depend on the workers.

    All inputs stand at relative paths: workers stand in another folder.

    Rounding around a zero gradient is a whole step for AdamW, so a few weights differ: 99 in 100 are held.
    """
    numerics = {"num_workers": 2, "threads_per_worker": 1}
    config = config_of(toy_images, networks, tmp_path / "out", numerics=numerics, how={}, store_dtype="float32")
    monkeypatch.chdir(tmp_path)
    result = generator_run.run(with_input_uris(config, os.path.relpath))
    assert (result["images"], result["identities"], result["steps"], result["cached"]) == (24, 6, 4, False)
    module, stated = generators.from_pretrained(config.output)
    own = torch.cat([p.flatten() for p in module.denoiser.parameters()])
    one = torch.cat([p.flatten() for p in undisturbed.average.parameters()])
    moved = (one - fresh_parameters(config)).abs().mean()
    assert (own - one).abs().quantile(0.99) < 0.01 * moved
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history[0] == pytest.approx(undisturbed.history[0], abs=5e-6)
    embedder = Embedder.from_pretrained(networks["embedder"])
    generators.check_embedder(stated, "fr", embedder.sha256)
    assert stated.details["inquiries"]["impostor_pairs"] == 240  # 24 x 23 / 2 pairs, 6 x 6 of one person
    manifest = artifact.require(config.output, "generator")
    assert sorted(f.path for f in manifest.files) == ["config.json", "history.json", "model.safetensors"]
    assert not list((tmp_path / "out").rglob("*.pt")) and not list((tmp_path / "out").rglob("*.npz"))
    assert generator_run.run(config)["cached"]
    again = config.model_copy(update={"embedder": "heads-fr-tiny", "image_size": 64})
    with pytest.raises(InputError):
        generator_run.run(again)


@pytest.mark.ray
def test_divergence_is_refused_input_and_the_last_good_checkpoint_is_kept(
    ray_cluster, toy_images, networks, tmp_path, monkeypatch
):
    config = config_of(toy_images, networks, tmp_path / "out")
    real = average_loop.train_step

    def poisoned(config, state, *rest):
        if state.step == 2:
            with torch.no_grad():
                next(state.model.parameters()).fill_(float("nan"))
        return real(config, state, *rest)

    monkeypatch.setattr(average_loop, "train_step", poisoned)
    with pytest.raises(DivergedError, match=r"no longer finite at step 3.*Lower optimizer\.lr \(0\.0007\)") as caught:
        generator_run.run(config)
    assert isinstance(caught.value, SynfaceError) and caught.value.exit_code == 2
    assert artifact.load_manifest(config.output) is None
    names = loop.checkpoint_names(f"{config.output}/{distributed.CHECKPOINTS}")
    assert [int(n.split("-")[1]) for n in names] == [2]


@pytest.mark.parametrize("mode", ["paper", "relation"])
def test_every_mode_trains_in_half_precision_too(toy_images, networks, tmp_path, mode):
    numerics = {"threads_per_worker": 1, "dtype": "bfloat16"}
    state = train(config_of(toy_images, networks, mode=mode, numerics=numerics, steps=2), tmp_path)
    expected = {"step", "loss", "squared_error", "lr"} | ({"matching", "realised"} if mode == "paper" else set())
    assert set(state.history[-1]) == expected and np.isfinite(state.history[-1]["loss"])


def test_pixels_without_autoencoder_by_the_papers_network(toy_images, networks, tmp_path):
    wide = {"widths": [32, 32], "attention": [False, True], "norm_groups": 8, "head_channels": 16, "condition_dim": 32}
    config = config_of(
        toy_images,
        networks | {"autoencoder": None},
        denoiser="cemiface",
        architecture=wide,
        steps=2,
        inquiry="centre",
        drop=0.0,
    )
    state = train(config, tmp_path)
    assert state.average.shape == (3, 32, 32) and state.average.config.embedding_dim == 16
    assert state.facts.keys() == {"training_images", "held_out_images", "inquiries"}  # no ridge mean
    last = state.history[-1]  # the learned range pays its bound
    parts = last["squared_error"] + config.weight * last["matching"] + variance.WEIGHT * 1000 * last["bound"]
    assert last["bound"] > 0 and last["loss"] == pytest.approx(parts, rel=1e-5)


def test_what_carries_the_condition_learns_faster(undisturbed, toy_images, networks):
    config = config_of(toy_images, networks)
    rest, carrying = undisturbed.optimizer.param_groups
    names = {id(p): name for name, p in undisturbed.model.network.named_parameters()}
    found = {names[id(p)] for p in carrying["params"]}
    assert {n.split(".")[0] for n in found} == {"conditioner", "unet"} and len(rest["params"]) > len(found)
    assert all("conditioner." in n or "time_emb_proj" in n or "conv_in." in n for n in found)
    assert carrying["lr"] == pytest.approx(3 * rest["lr"])
    # linear decay from the first step: 1 - 3 / 4 at the last of four
    assert rest["lr"] == pytest.approx(config.optimizer.lr / 4)


def toy_embeddings(seed=0, identities=6, each=4, d=8):
    x = rng.generator(seed, "x").standard_normal((identities * each, d)) + np.repeat(
        rng.generator(seed, "c").standard_normal((identities, d)), each, 0
    )
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(identities), each)


def conditions_of(x, label, inquiry):
    """The naive table: image embeddings, then the unit means of their identities."""
    mean = np.stack([x[label == own].astype(np.float64).mean(0) for own in label])
    centre = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return {"image": x, "centre": centre, "mixed": np.concatenate([x, centre])}[inquiry]


def test_rows_of_the_paper(toy_images, networks):
    x, label = toy_embeddings()
    config = config_of(toy_images, networks, global_batch_size=400)
    rows = generator_batches.draw_rows(config, "paper", 1000, 3, x, x, label)
    assert np.array_equal(rows.inquiry_n, rows.target_n)
    assert set(rows.m_n.tolist()) <= set(similarity.m_grid(0.04).tolist())
    assert rows.t_n.min() >= 0 and rows.t_n.max() <= 999
    assert 0.05 < 1 - rows.conditioned_n.mean() < 0.15
    again = generator_batches.draw_rows(config, "paper", 1000, 3, x, x, label)
    other = generator_batches.draw_rows(config, "paper", 1000, 4, x, x, label)
    assert np.array_equal(rows.target_n, again.target_n) and not np.array_equal(rows.target_n, other.target_n)


@pytest.mark.parametrize("inquiry", ["image", "centre", "mixed"])
def test_rows_of_the_relation_measure_m(toy_images, networks, inquiry):
    x, label = toy_embeddings()
    config = config_of(toy_images, networks, global_batch_size=64, inquiry=inquiry)
    condition = generator_batches.condition_rows(config, x, label)
    rows = generator_batches.draw_rows(config, "hybrid", 1000, 0, x, condition, label)
    reference = conditions_of(x, label, inquiry)
    np.testing.assert_allclose(condition, reference, atol=1e-6)
    for i, j, m in zip(rows.inquiry_n, rows.target_n, rows.m_n, strict=True):
        assert m == pytest.approx(float(reference[i] @ x[j]), abs=1e-6)
    if inquiry == "mixed":
        assert 16 < (rows.inquiry_n >= len(x)).sum() < 48  # 64 fair coins


def test_the_paper_restores_the_image_whose_centre_is_asked(toy_images, networks):
    x, label = toy_embeddings()
    config = config_of(toy_images, networks, global_batch_size=64, inquiry="mixed")
    rows = generator_batches.draw_rows(
        config, "paper", 1000, 0, x, generator_batches.condition_rows(config, x, label), label
    )
    assert np.array_equal(rows.inquiry_n % len(x), rows.target_n)


@pytest.mark.parametrize(("world", "passes"), [(1, 1), (2, 3), (3, 2), (6, 1)])
def test_workers_and_passes_divide_the_batch(world, passes):
    parts = [p for rank in range(world) for p in generator_batches.own_parts(12, rank, world, passes)]
    assert [row for p in parts for row in range(p.start, p.stop)] == list(range(12))
    assert len({p.stop - p.start for p in parts}) == 1
    whole = generator_batches.noise_rows(1, 5, slice(0, 12), (1, 2, 2))
    assert np.array_equal(np.concatenate([generator_batches.noise_rows(1, 5, p, (1, 2, 2)) for p in parts]), whole)


def test_held_out_people_are_not_trained_on(toy_images, networks):
    config = config_of(toy_images, networks)
    catalog = data.scan(config.images, 32)
    train_n, held_n = generator_setup.split_identities(config, catalog)
    assert sorted([*train_n, *held_n]) == list(range(24))
    assert len(set(catalog.labels[held_n])) == 2 and not set(catalog.labels[held_n]) & set(catalog.labels[train_n])


def test_threshold_is_the_strict_one_of_all_impostor_pairs(toy_images, networks):
    x, label = toy_embeddings(identities=30)
    config = config_of(toy_images, networks, inquiry_far=0.01)
    held = np.flatnonzero(label < 5)  # 160 impostor pairs: too few for FAR 0.01
    stated = generator_setup.inquiry_threshold(config, x, label, held)
    pairs = [float(x[i] @ x[j]) for i in range(120) for j in range(i) if label[i] != label[j]]
    assert stated["people"] == "all" and stated["impostor_pairs"] == len(pairs)
    assert stated["threshold"] == pytest.approx(scores.threshold_at_far(np.array(pairs), 0.01), abs=1e-5)
    loose = config_of(toy_images, networks, inquiry_far=0.7)
    assert generator_setup.inquiry_threshold(loose, x, label, held)["people"] == "held out"


def test_the_ridge_mean_is_that_of_the_training_images(toy_images, networks, undisturbed, tmp_path):
    config = config_of(toy_images, networks, tmp_path)
    catalog = data.scan(config.images, 32)
    source = data.ImageSource(catalog, 32, 1 << 30)
    found = generator_setup.load_networks(config, "cpu")
    train_n, _ = generator_setup.split_identities(config, catalog)
    assert found.autoencoder is not None
    with torch.no_grad():
        z = found.autoencoder.encode(torch.from_numpy(crops.to_network(source.take(train_n)))).half().float().numpy()
    sums = diffusion.RidgeSums(16, 8 * 8 * 8)
    sums.add(found.embedder.embed(source.take(train_n)), z.reshape(len(z), -1))
    weight, intercept = sums.solve(0.2)
    np.testing.assert_allclose(undisturbed.average.mean.weight_dk, weight, atol=2e-3)
    np.testing.assert_allclose(undisturbed.average.mean.intercept_k, intercept, atol=2e-3)
    assert undisturbed.facts["ridge_r2_training"] == pytest.approx(sums.r2(weight, intercept), abs=1e-3)


def test_features_are_the_embedders(toy_images, networks):
    """E_id inside the loss and E_id that embeds images see the same pixels alike."""
    found = generator_setup.load_networks(
        config_of(toy_images, networks | {"autoencoder": None}, denoiser="cemiface"), "cpu"
    )
    images = rng.generator(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    inside = found.features(torch.from_numpy(crops.to_network(images)))
    np.testing.assert_allclose(inside.numpy(), found.embedder.features(images), atol=1e-4)


def test_a_look_measures_what_it_shows(undisturbed, networks, toy_images):
    found = generator_setup.load_networks(config_of(toy_images, networks), "cpu")
    x = toy_embeddings(d=16)[0][::9]
    seen = looks.look(undisturbed.average, found.autoencoder, found.embedder, x, 0, "cpu")
    assert seen.images.shape == (3, 6, 32, 32, 3)
    one = sampling.sample(undisturbed.average, x[1:2], np.array([0.5]), 0, [("look", 1)], looks.SETTINGS)
    picture = sampling.to_images(one, found.autoencoder)
    assert np.array_equal(picture[0], seen.images[1, 3])
    assert seen.realised_ig[1, 3] == pytest.approx(float(found.embedder.embed(picture)[0] @ x[1]), abs=1e-5)
    slope = np.polyfit([0, 0.25, 0.5, 0.75, 1], seen.realised_ig[:, 1:].mean(0), 1)[0]
    assert seen.numbers()["dial/slope"] == pytest.approx(slope, abs=1e-6)
    assert isinstance(dial.dial_slope(np.array(looks.GRID), seen.realised_ig[:, :, None]), float)
    sheet = np.asarray(Image.open(io.BytesIO(looks.grid_png(seen.images))))
    assert np.array_equal(sheet[36:68, 104:136], seen.images[1, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoiser": "unet"}, "unknown denoiser 'unet'; known: cemiface"),
        ({"autoencoder": None}, "works on latents: give --autoencoder"),
        ({"denoiser": "cemiface"}, "works on pixels: leave --autoencoder out"),
        ({"image_size": 64}, "embedder .* takes crops of 32 pixels, image_size asks 64"),
        ({"architecture": {"sample_size": 9}}, "architecture.sample_size: follows from"),
        ({"architecture": {"depth": 9}}, "not a denoiser configuration"),
        ({"held_out": 5}, "held_out = 5 of 6 identities: at most 4"),
        ({"images": ["/nowhere/at/all"]}, "nothing stands there"),
        ({"embedder": "arcface"}, "unknown pretrained weights 'arcface'"),
        ({"autoencoder": "/nowhere"}, "no config.json there"),
        ({"m_range": [0.5, 0.1]}, "m_range"),
        ({"numerics": {"num_workers": 3}}, "not a multiple of 3 workers"),
        ({"numerics": {"dtype": "float16"}}, "needs device cuda"),
    ],
)
def test_bad_input_is_refused_before_any_work(toy_images, networks, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        generator_run.run(config_of(toy_images, networks, tmp_path / "out", **change))
    assert not (tmp_path / "out" / artifact.MANIFEST).exists()


def test_inquiries_of_another_embedder_are_refused(toy_images, networks, tmp_path):
    from synface.store.schemas import identities_table
    from synface.store.tables import parquet_bytes

    x = toy_embeddings(d=16)[0][:4]
    table = identities_table(list("abcd"), x, ["toy"] * 4, [0] * 4, {"embedder_sha256": "ab" * 32})
    (tmp_path / "ids.parquet").write_bytes(parquet_bytes(table))
    how = {"in_process": True, "inquiries": str(tmp_path / "ids.parquet")}
    with pytest.raises(InputError, match="weights abababababab"):
        generator_run.plan(config_of(toy_images, networks, tmp_path / "out", how=how))


def test_damaged_prepared_parts_are_made_again(toy_images, networks, undisturbed, tmp_path):
    config = config_of(toy_images, networks)
    (tmp_path / "prepared-00000.npz").write_bytes(b"PK half")
    assert same_bits(train(config, tmp_path), undisturbed)


def test_write_toy_of_one_identity_is_refused(networks, tmp_path):
    toy = write_toy(str(tmp_path / "one"), identities=1, per_identity=8)
    with pytest.raises(InputError, match="at least two identities"):
        generator_run.run(config_of(toy, networks, tmp_path / "out", held_out=0))
