import math

import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import autoencoder as autoencoders
from synface.models.denoisers import generator as generators
from synface.settings import build
from synface.store import artifact
from synface.train import autoencoder, autoencoder_run, average_loop, data, generator_worker, loop
from synface.train.average_loop import Place
from synface.train.generator_config import TrainAutoencoderConfig


def config_of(toy, output="unused", **changes) -> TrainAutoencoderConfig:
    fields = {
        "images": [toy],
        "output": str(output),
        "image_size": 32,
        "steps": 6,
        "global_batch_size": 8,
        "optimizer": {"lr": 2e-3, "warmup_steps": 0, "ema": 0.5},
        "numerics": {"threads_per_worker": 1},
        "how": {"in_process": True, "checkpoint_every": 2},
    }
    return build(TrainAutoencoderConfig, fields | changes)


def test_loss_by_hand():
    module = autoencoders.build(autoencoders.AutoencoderConfig(image_size=8, width=16, narrow=16))
    x, noise = torch.randn(3, 3, 8, 8), torch.randn(3, 8, 2, 2)
    with torch.no_grad():
        loss, y = autoencoder.autoencoder_loss(module, x, noise, 0.1, 0.5)
        z = module.encoder(x)
        expected = module.decoder(z + 0.1 * z.std() * noise)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(loss, autoencoders.reconstruction_loss(expected, x) + 0.5 * (z**2).mean())


def test_resumed_training_has_the_same_bits(toy_images, tmp_path, monkeypatch):
    config = config_of(toy_images)
    catalog = data.scan(config.images, 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def trained(folder):
        own = config.model_copy(update={"output": str(folder)})
        generator_worker.train_autoencoder(own, catalog, str(folder / "checkpoints"), "cpu")
        state = average_loop.build_state(config, lambda: autoencoder.AutoencoderTrainee(config), Place())
        average_loop.unpack_checkpoint(state, loop.newest_checkpoint(str(folder / "checkpoints")), "cpu")
        return state

    whole = trained(tmp_path / "whole")
    real = average_loop.train_step

    def killed(config, state, *rest):
        if state.step == 3:
            raise KeyboardInterrupt
        return real(config, state, *rest)

    monkeypatch.setattr(average_loop, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken")
    monkeypatch.undo()
    broken = trained(tmp_path / "broken")
    torch.set_num_threads(threads)
    assert broken.history == whole.history
    for x, y in zip(broken.average.state_dict().values(), whole.average.state_dict().values(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.ray
def test_the_verb_leaves_standardised_latents(ray_cluster, toy_images, tmp_path):
    config = config_of(toy_images, tmp_path / "out", steps=60, store_dtype="float32")
    result = autoencoder_run.run(config)
    assert result["psnr"] > 13 and result["steps"] == 60 and not result["cached"]
    assert artifact.require(config.output, "autoencoder").numbers["psnr"] == result["psnr"]
    module, stated = generators.autoencoder_from_pretrained(config.output)
    assert stated.details["psnr"] == result["psnr"]
    catalog = data.scan(config.images, 32)
    x = data.ImageSource(catalog, 32, 1 << 30).take(np.arange(24)).astype(np.float32) / 127.5 - 1
    with torch.no_grad():
        z = module.encode(torch.from_numpy(x).permute(0, 3, 1, 2))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(8), atol=1e-3, rtol=0)
    assert autoencoder_run.run(config)["cached"]


def test_bad_input(toy_images, tmp_path):
    with pytest.raises(InputError, match="unknown autoencoder 'vq'; known: tiny"):
        autoencoder_run.plan(config_of(toy_images, autoencoder="vq"))
    with pytest.raises(InputError, match="images are 32x32 pixels, image_size asks 64"):
        autoencoder_run.run(config_of(toy_images, tmp_path / "o", image_size=64))


def test_checkpoints_are_estimated_by_what_one_holds(toy_images):
    config = config_of(toy_images, how={"in_process": True, "checkpoint_every": 2})
    found = autoencoder_run.plan(config)["estimate"]["store"]
    state = average_loop.build_state(config, lambda: autoencoder.AutoencoderTrainee(config), Place())
    for p in state.model.network.parameters():
        p.grad = torch.zeros_like(p)
    state.optimizer.step()  # the moments stand from the first step on
    each = found["bytes_written"] / math.ceil(config.steps / 2)
    assert each <= len(average_loop.pack_checkpoint(state)) < 1.1 * each + 100_000
