"""Training of DCFace: pairs of one identity, the time-mixed identity loss, bits."""

import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import config as descriptions
from synface.train import diffusion, generator_batches, generator_run, generator_setup, similarity
from tests.models.denoisers.adm_state import published_like
from tests.train.generator_helpers import SMALL, config_of, looked_at, resumed_equals_undisturbed

SHAPE = {**SMALL, "attention": [False, True], "context_tokens": 2, "condition_dim": 24, "style_grid": 2}


pytestmark = pytest.mark.usefixtures("one_thread")


def dcface(toy, networks, **changes):
    fields = {"denoiser": "dcface-tiny", "architecture": SHAPE, "steps": 2}
    return config_of(toy, networks, **(fields | changes))


def test_the_identity_loss_at_both_ends_and_between():
    restored, inquiry = torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.2, 0.2, 0.2])
    loss = similarity.identity_matching(restored, inquiry, torch.tensor([0, 250, 1000]), 1000)
    torch.testing.assert_close(loss, torch.tensor([0.1, 0.75 * 0.1 + 0.25 * 0.8, 0.8]))


def test_pairs_are_of_one_identity(toy_images, networks):
    config = dcface(toy_images, networks, global_batch_size=200)
    x = np.random.default_rng(0).standard_normal((24, 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    label = np.repeat(np.arange(6), 4)
    rows = generator_batches.draw_rows(config, "style", 1000, 0, x, x, label)
    assert np.array_equal(label[rows.inquiry_n], label[rows.target_n])
    share = (rows.inquiry_n == rows.target_n).mean()  # one in four is the inquiry itself
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 200)


def test_the_loss_takes_the_style_of_the_restored_image(toy_images, networks):
    torch.manual_seed(0)
    description = descriptions.from_dict(
        {**descriptions.DCFACE_TINY.as_dict(), **SHAPE, "sample_size": 8, "embedding_dim": 6}
    )
    model = denoisers.build(description)
    a, b = (torch.nn.functional.normalize(torch.randn(3, 6)) for _ in range(2))
    keep = torch.tensor([True, True, False])
    batch = diffusion.Batch(
        torch.randn(3, 8, 8, 8), torch.randn(3, 8, 8, 8), torch.tensor([5, 500, 990]), a, b, torch.ones(3), keep
    )

    def embed(x0_hat):
        return x0_hat[:, :6, 0, 0]

    with torch.no_grad():
        losses = diffusion.generator_losses(model, batch, embed, weight=0.3)
        abar = model.alphas_cumprod[batch.t_n]
        x_t = diffusion.noised(batch.x0_nchw, batch.noise_nchw, abar)
        own = model.condition(a, torch.ones(3), style_nchw=batch.x0_nchw)
        null = model.null_condition(3)
        prediction = torch.where(keep[:, None, None, None], model(x_t, batch.t_n, own), model(x_t, batch.t_n, null))
        seen = embed(similarity.clean_estimate(x_t, prediction, abar, "v_prediction"))
        to_target, to_inquiry = (torch.cosine_similarity(seen, other) for other in (b, a))
        gamma = batch.t_n / 1000
        identity = (1 - gamma) * (1 - to_target) + gamma * (1 - to_inquiry)
    torch.testing.assert_close(losses.matching_n, identity, rtol=1e-4, atol=1e-5)
    expected = losses.squared_error_n.mean() + 0.3 * (identity * keep).mean()
    torch.testing.assert_close(losses.total, expected, rtol=1e-4, atol=1e-5)


def test_it_trains_and_is_looked_at_in_the_inquiries_styles(toy_images, networks, tmp_path):
    state = looked_at(dcface(toy_images, networks), tmp_path)
    assert set(state.history[-1]) == {"step", "loss", "squared_error", "matching", "realised", "lr"}


@pytest.mark.slow
def test_a_resumed_training_has_the_bits_of_an_undisturbed_one(toy_images, networks, tmp_path):
    resumed_equals_undisturbed(dcface(toy_images, networks), tmp_path)


def test_looks_need_pictures(toy_images, networks, tmp_path):
    how = {"in_process": True, "inquiries": "table"}
    with pytest.raises(InputError, match=r"how\.inquiries: denoiser 'dcface-tiny' takes the style"):
        generator_run.plan(dcface(toy_images, networks, output=str(tmp_path), how=how))


WIDE = {"widths": [16, 16], "attention": [False, True], "norm_groups": 8, "head_channels": 16, "condition_dim": 32}


def test_a_released_network_is_where_training_starts(toy_images, networks, tmp_path):
    """DCFace and CemiFace start from an FFHQ DDPM; a checkpoint of Lightning's is read as tensors alone."""
    fresh = {"denoiser": "cemiface", "architecture": WIDE, **networks, "autoencoder": None}
    description = generator_setup.load_networks(config_of(toy_images, fresh), "cpu").description
    state = published_like(denoisers.build(description).unet, description)
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "released.ckpt")
    config = config_of(toy_images, fresh, output=str(tmp_path / "o"), start=str(tmp_path / "released.ckpt"))
    generator_run.plan(config)
    found = generator_setup.load_networks(config, "cpu")
    unet = generator_setup.make_trainee(config, found).network.unet
    assert torch.equal(unet.conv_in.weight, state["input_blocks.0.0.weight"])
    assert torch.equal(unet.mid_block.resnets[1].conv2.weight, state["middle_block.2.out_layers.3.weight"])
    with pytest.raises(InputError, match="starts the denoiser 'cemiface' and its like"):
        generator_run.plan(dcface(toy_images, networks, start=str(tmp_path / "released.ckpt")))
