import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import autoencoder, weights
from synface.models.denoisers import generator


def images(n, size=64, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 3, size, size)).astype(np.float32))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return autoencoder.build("tiny")


def test_shapes_and_size(tiny):
    z = tiny.encode(images(2))
    assert z.shape == (2, 8, 16, 16) and tiny.decode(z).shape == (2, 3, 64, 64)
    # encoder 3,488 + 18,496 + 2 x 73,856 + 520; decoder 4,672 + 2 x 73,856 + 8,320 + 18,496 + 3,468
    assert sum(p.numel() for p in tiny.parameters()) == 352_884


def test_standardize_makes_unit_latents_and_keeps_reconstructions(tiny):
    x = images(6)
    with torch.no_grad():
        before = tiny(x)
        tiny.standardize(x)
        z = tiny.encode(x).double()
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(8, dtype=torch.float64), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            z.var((0, 2, 3), correction=0), torch.ones(8, dtype=torch.float64), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(tiny(x), before, atol=1e-4, rtol=1e-4)


def test_loss_by_hand():
    x, y = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    # |y - x| mean 1; across |1 - 0|, |3 - 0| mean 2; down |0|, |2| mean 1
    assert autoencoder.reconstruction_loss(y, x).item() == pytest.approx(1 + 0.5 * (2 + 1))
    assert autoencoder.reconstruction_loss(x, x).item() == 0


def test_psnr_by_hand():
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack([x[0] + 0.2, x[1] + 5.0])  # error 0.1 of the range: 20 dB; clipped at 1: 0.5, 6.02 dB
    torch.testing.assert_close(autoencoder.psnr(y, x), torch.tensor([20.0, 6.0206]), atol=1e-3, rtol=0)


def test_a_few_steps_learn():
    """The decoder's gradient is right enough to fit two flat images."""
    torch.manual_seed(0)
    module = autoencoder.build(autoencoder.AutoencoderConfig(image_size=16, width=16, narrow=16))
    x = torch.linspace(-0.8, 0.8, 2)[:, None, None, None].expand(2, 3, 16, 16).contiguous()
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    first = None
    for _ in range(30):
        loss = autoencoder.reconstruction_loss(module(x), x)
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first


def test_round_trip_alone(tmp_path, tiny):
    stated = generator.autoencoder_weights_config(tiny, "Apache-2.0", "noise", "float32", psnr=31.0)
    weights.save_pretrained(str(tmp_path), tiny, stated)
    loaded, read = generator.autoencoder_from_pretrained(str(tmp_path))
    assert read.details["psnr"] == 31.0 and loaded.config == tiny.config
    with torch.no_grad():
        assert torch.equal(loaded(images(1)), tiny(images(1)))


def test_bad_size_is_refused():
    with pytest.raises(InputError, match="multiple of 4"):
        autoencoder.AutoencoderConfig(image_size=62)
