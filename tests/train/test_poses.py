"""Training on the poses that an images table states."""

import numpy as np
import pytest
import torch

from synface.core import rng
from synface.core.errors import InputError
from synface.train import data, diffusion, generator_batches, generator_run, generator_setup, generator_worker, poses
from synface.train.average_loop import Place
from synface.train.prepared import Prepared
from tests.train.generator_helpers import SMALL, config_of, resumed_equals_undisturbed

POSED = {**SMALL, "pose": ["yaw", "pitch"]}

pytestmark = pytest.mark.usefixtures("one_thread")


def posed(toy, networks, **changes):
    return config_of(toy, networks, **({"architecture": POSED, "steps": 2} | changes))


def test_poses_stand_in_the_catalogues_order(toy_images):
    found = poses.read([toy_images], ["pitch", "yaw"])
    catalog = data.scan([toy_images], 32)
    person, sample = catalog.labels, np.tile(np.arange(4), 6)
    np.testing.assert_array_equal(found, np.stack([2.0 * person, 10.0 * sample - person], 1))
    assert found.dtype == np.float32


def test_a_batch_has_the_poses_of_what_it_restores_or_none(toy_images, networks):
    config = posed(toy_images, networks, global_batch_size=512, drop=0.25, steps=1)
    found = generator_setup.load_networks(config, "cpu")
    x = rng.generator(0).standard_normal((24, 16)).astype(np.float32)
    made = Prepared(x / np.linalg.norm(x, axis=1, keepdims=True), None)
    labels, train_n = np.arange(24) // 4, np.arange(4, 24)
    pose = poses.read([toy_images], ["yaw", "pitch"])
    number = np.zeros((24, 8, 8, 8), np.float32) + np.arange(24)[:, None, None, None]  # each image says who it is
    batches = generator_worker.generator_batches_of(
        config, found, made, lambda rows: number[rows], labels, train_n, Place(), 0, pose
    )
    (batch,) = next(batches)
    assert batch.pose_na is not None
    known = torch.isfinite(batch.pose_na).all(1)
    assert abs(float((~known).float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 512) ** 0.5
    restored = batch.x0_nchw[:, 0, 0, 0].long().numpy()
    np.testing.assert_array_equal(batch.pose_na[known].numpy(), pose[restored[known.numpy()]])
    again = generator_batches.kept_poses(config, 0, pose[restored])
    np.testing.assert_array_equal(batch.pose_na.numpy(), again)  # keyed by seed and step


def test_the_loss_is_that_of_the_posed_condition(toy_images, networks):
    config = posed(toy_images, networks)
    found = generator_setup.load_networks(config, "cpu")
    torch.manual_seed(0)
    model = generator_setup.make_trainee(config, found).network
    torch.nn.init.normal_(model.pose.mlp[2].weight)
    a = torch.nn.functional.normalize(torch.randn(3, 16))
    pose = torch.tensor([[10.0, 5.0], [float("nan")] * 2, [-40.0, 0.0]])
    batch = diffusion.Batch(
        torch.randn(3, 8, 8, 8), torch.randn(3, 8, 8, 8), torch.tensor([5, 400, 900]), a, a, torch.ones(3),
        torch.ones(3, dtype=torch.bool), pose_na=pose,
    )  # fmt: skip
    losses = diffusion.generator_losses(model, batch, found.features)
    abar = model.alphas_cumprod[batch.t_n]
    x_t = diffusion.noised(batch.x0_nchw, batch.noise_nchw, abar)
    kind = model.config.prediction
    target = diffusion.prediction_target(batch.x0_nchw, batch.noise_nchw, abar, kind)
    own = model(x_t, batch.t_n, model.condition(a, torch.ones(3), pose_na=pose))
    expected = diffusion.squared_error(own, target, diffusion.min_snr_weight(abar, kind))
    torch.testing.assert_close(losses.squared_error_n, expected)
    without = model(x_t, batch.t_n, model.condition(a, torch.ones(3)))
    moved = (own - without).abs().amax((1, 2, 3))
    assert moved[1] < 1e-6 and moved[0] > 1e-4 and moved[2] > 1e-4


def test_the_mean_of_a_posed_row_is_the_identitys_and_the_poses(toy_images, networks):
    """Against a ridge regression by another solver, of pictures that are made of their pose."""
    config = posed(toy_images, networks)
    model = generator_setup.make_trainee(config, generator_setup.load_networks(config, "cpu")).network
    gen = np.random.default_rng(0)
    pose = gen.uniform(-60, 60, (300, 2)).astype(np.float32)
    angle = np.radians(pose.astype(float))
    features = np.concatenate([np.sin(angle), 1 - np.cos(angle)], 1)
    size = int(np.prod(model.shape))
    picture = (features @ gen.normal(size=(4, size)) + 2 + gen.normal(size=(300, size))).astype(np.float32)
    train_n = np.arange(20, 300)
    facts = generator_setup.set_pose_mean(model, pose, lambda rows: picture[rows].reshape(-1, *model.shape), train_n)
    x, y = features[train_n] - features[train_n].mean(0), picture[train_n] - picture[train_n].mean(0)
    drawn_in = np.sqrt(generator_setup.POSE_PENALTY) * np.eye(4)  # a penalty is rows that ask for 0
    fit = np.linalg.lstsq(np.vstack([x, drawn_in]), np.vstack([y, np.zeros((4, size))]), rcond=None)[0]
    posed_na = np.array([[30.0, -20.0], [0.0, 0.0], [np.nan, 5.0]], np.float32)
    a = torch.nn.functional.normalize(torch.randn(3, 16))
    plain = model.condition(a, torch.ones(3)).mean_nchw
    added = (model.condition(a, torch.ones(3), pose_na=torch.from_numpy(posed_na)).mean_nchw - plain).reshape(3, -1)
    turn = np.radians([30.0, -20.0])
    asked = np.array([[*np.sin(turn), *(1 - np.cos(turn))], [0, 0, 0, 0]]) - features[train_n].mean(0)
    np.testing.assert_allclose(added[:2].numpy(), asked @ fit, atol=1e-4)
    assert not added[2].any()
    assert facts["pose_r2_training"] == pytest.approx(1 - ((y - x @ fit) ** 2).sum() / (y**2).sum(), abs=1e-4)


def test_it_trains_resumes_with_equal_bits_and_is_looked_at(toy_images, networks, tmp_path):
    state = resumed_equals_undisturbed(posed(toy_images, networks), tmp_path)
    network, average = state.model.network, state.average
    assert network.pose.mlp[2].weight.abs().max() > 0 and network.pose_mean.weight_fk.abs().max() > 0  # were 0
    assert torch.equal(network.pose_mean.weight_fk, average.pose_mean.weight_fk)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {**SMALL, "pose": ["roll"]}}, r"has no number attributes\.roll"),
        ({"architecture": {**SMALL, "pose": ["domain"]}}, "each at most once of yaw, pitch, roll"),
        ({"drop": 0}, "drop = 0 with poses"),
    ],
)
def test_refused_before_any_work(toy_images, networks, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        generator_run.plan(posed(toy_images, networks, output=str(tmp_path / "o"), **changes))
    assert not (tmp_path / "o").exists()
