"""Training of IDiff-Face: partial dropout by key, bits, and a loss of the squared error alone."""

import numpy as np
import pytest
import torch

from synface.models import denoisers
from synface.models.denoisers import config as descriptions
from synface.models.denoisers import generator as generators
from synface.models.denoisers.conditioning import Condition
from synface.train import diffusion, generator_batches, generator_run
from tests.train.generator_helpers import SMALL, config_of, resumed_equals_undisturbed, train

SHAPE = {**SMALL, "attention": [False, True], "context_tokens": 2, "condition_dim": 24}
#: of the released network
RELEASED = {**SHAPE, "widths": [32, 64], "condition_dim": 32, "norm_groups": 32, "layers_per_block": 1}


pytestmark = pytest.mark.usefixtures("one_thread")


def idiff(toy, networks, **changes):
    fields = {"denoiser": "idiffface-tiny", "architecture": SHAPE, "steps": 2, "drop": 0.25}
    return config_of(toy, networks, **(fields | changes))


def test_dropped_components_are_a_keyed_share(toy_images, networks):
    config = idiff(toy_images, networks, global_batch_size=400)
    kept = generator_batches.kept_components(config, descriptions.IDIFFFACE_TINY, 3)
    assert kept is not None and kept.shape == (400, 256)
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / kept.size)
    assert np.array_equal(kept, generator_batches.kept_components(config, descriptions.IDIFFFACE_TINY, 3))
    assert not np.array_equal(kept, generator_batches.kept_components(config, descriptions.IDIFFFACE_TINY, 4))
    assert generator_batches.kept_components(config, descriptions.TINY, 3) is None


def test_the_loss_is_the_squared_error_of_the_dropped_context(toy_images, networks):
    """By hand: the prediction under the masked context, weighted by min-SNR; E_id is never asked."""
    torch.manual_seed(0)
    description = descriptions.from_dict(
        {**descriptions.IDIFFFACE_TINY.as_dict(), **SHAPE, "sample_size": 8, "embedding_dim": 6}
    )
    model = denoisers.build(description)
    unit = torch.nn.functional.normalize(torch.randn(3, 6))
    kept = torch.rand(3, 24) > 0.25
    batch = diffusion.Batch(
        torch.randn(3, 8, 8, 8), torch.randn(3, 8, 8, 8), torch.tensor([5, 500, 990]), unit, unit, torch.ones(3),
        torch.tensor([True, True, False]), kept,
    )  # fmt: skip
    with torch.no_grad():
        losses = diffusion.generator_losses(model, batch, embed=None)  # type: ignore[arg-type]
        abar = model.alphas_cumprod[batch.t_n]
        x_t = diffusion.noised(batch.x0_nchw, batch.noise_nchw, abar)
        context = model.conditioner.linear(unit * 6**0.5) * kept / 0.75
        context[2] = model.conditioner.null
        tokens = model.conditioner.expand(context)
        prediction = model(x_t, batch.t_n, Condition(tokens, None))
        target = diffusion.velocity(batch.x0_nchw, batch.noise_nchw, abar)
        snr = abar / (1 - abar)
        expected = (prediction - target).square().mean((1, 2, 3)) * snr.clamp(max=5) / (snr + 1)
    torch.testing.assert_close(losses.squared_error_n, expected)
    torch.testing.assert_close(losses.total, expected.mean())
    assert losses.matching_n is None and losses.realised_n is None


def test_rows_restore_their_own_inquiry(toy_images, networks):
    config = idiff(toy_images, networks, global_batch_size=64)
    x = np.eye(8, dtype=np.float32)
    rows = generator_batches.draw_rows(config, "identity", 1000, 0, x, x, np.arange(8))
    assert np.array_equal(rows.inquiry_n, rows.target_n) and (rows.m_n == 1).all()


@pytest.mark.parametrize("change", [{}, {"denoiser": "idiffface", "architecture": RELEASED}], ids=["tiny", "released"])
def test_a_resumed_training_has_the_bits_of_an_undisturbed_one(toy_images, networks, tmp_path, change):
    whole = resumed_equals_undisturbed(idiff(toy_images, networks, **change), tmp_path)
    assert set(whole.history[-1]) == {"step", "loss", "squared_error", "lr"}


@pytest.mark.slow
def test_accumulated_passes_drop_the_same_components(toy_images, networks, tmp_path):
    two = idiff(toy_images, networks, steps=1, numerics={"threads_per_worker": 1, "accumulation": 2})
    accumulated, once = train(two, tmp_path / "two"), train(idiff(toy_images, networks, steps=1), tmp_path / "one")
    assert accumulated.history[0]["loss"] == pytest.approx(once.history[0]["loss"], abs=2e-6)
    for x, y in zip(*(s.optimizer.state_dict()["state"].values() for s in (accumulated, once)), strict=True):
        torch.testing.assert_close(x["exp_avg"], y["exp_avg"], atol=2e-7, rtol=1e-3)


@pytest.mark.ray
@pytest.mark.slow
def test_train_generator_leaves_usable_weights(ray_cluster, toy_images, networks, tmp_path):
    config = idiff(toy_images, networks, output=str(tmp_path / "out"), how={})
    result = generator_run.run(config)
    module, stated = generators.from_pretrained(config.output)
    assert result["steps"] == 2 and module.denoiser.config.mode == "identity" and stated.details["drop"] == 0.25
