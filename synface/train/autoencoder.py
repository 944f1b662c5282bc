"""Training the autoencoder: reconstruction with noisy latents, so that neighbours in the latent space decode alike."""

import torch

from synface.core.errors import unknown_name
from synface.models import autoencoder as autoencoders
from synface.models.autoencoder import Autoencoder, reconstruction_loss
from synface.train.average_loop import Trainee
from synface.train.generator_config import TrainAutoencoderConfig


def autoencoder_loss(
    module: Autoencoder, x_nchw: torch.Tensor, noise_nchw: torch.Tensor, spread: float, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``reconstruction(D(z + spread std(z) eps), x) + penalty mean(z^2)`` with z = E(x), a scalar; and D(...).

    Args:
        module: encoder E and decoder D; the standardisation is left out, it is set after training.
        x_nchw: images in [-1, 1].
        noise_nchw: standard normal eps, shaped as the latents.
        spread: share of the latents' own standard deviation (of the whole batch, no gradient).
        penalty: keeps the latents from growing away from the noise.
    """
    z = module.encoder(x_nchw)
    y = module.decoder(z + spread * z.detach().std() * noise_nchw)
    return reconstruction_loss(y, x_nchw) + penalty * z.square().mean(), y


def describe(config: TrainAutoencoderConfig) -> autoencoders.AutoencoderConfig:
    """The autoencoder that is asked for, at the training's image size.

    Raises:
        InputError: an unknown name.
    """
    if config.autoencoder not in autoencoders.AUTOENCODERS:
        raise unknown_name("autoencoder", config.autoencoder, autoencoders.AUTOENCODERS)
    named = autoencoders.AUTOENCODERS[config.autoencoder].as_dict()
    return autoencoders.AutoencoderConfig(**{**named, "image_size": config.image_size})


class AutoencoderTrainee(Trainee):
    """A fresh autoencoder with its loss (from torch's global generator)."""

    names = ("psnr",)

    def __init__(self, config: TrainAutoencoderConfig):
        super().__init__(autoencoders.build(describe(config)))
        self._spread, self._penalty = config.latent_noise, config.latent_penalty

    @staticmethod
    def latent_shape(config: TrainAutoencoderConfig) -> tuple[int, int, int]:
        """Of one image's latent."""
        described = describe(config)
        return (described.channels, described.latent_size, described.latent_size)

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the PSNR (dB) of the reconstruction from noisy latents."""
        assert isinstance(self.network, Autoencoder)
        x, noise = batch
        loss, y = autoencoder_loss(self.network, x, noise, self._spread, self._penalty)
        return loss, autoencoders.psnr(y.detach().float(), x).mean().reshape(1)
