"""A small convolutional autoencoder, 64x64x3 images to 16x16x8 latents of zero mean and unit variance.

Deterministic and without a variational term: the latents are standardised per channel by buffers that
`standardize` sets after training, which is what a diffusion model needs of them. 0.35 M parameters.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from synface.core.errors import InputError

#: side of the image over side of the latent
REDUCTION = 4


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder.

    Attributes:
        image_size: side of the images, pixels, a multiple of 4.
        channels: of the latent.
        width: of the convolutions at the latent's resolution.
        narrow: of those at half the image's resolution.
    """

    image_size: int = 64
    channels: int = 8
    width: int = 64
    narrow: int = 32

    def __post_init__(self) -> None:
        if self.image_size % REDUCTION or self.image_size < REDUCTION:
            raise InputError(f"autoencoder image_size = {self.image_size}: a multiple of {REDUCTION}")

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.image_size // REDUCTION

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able form: ``AutoencoderConfig(**as_dict())`` is the same."""
        return dataclasses.asdict(self)


AUTOENCODERS: dict[str, AutoencoderConfig] = {"tiny": AutoencoderConfig()}


class Residual(nn.Module):
    """x + conv(SiLU(conv(SiLU(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        return x_nchw + self.body(x_nchw)


class CodecConfig(Protocol):
    """What a denoiser of latents needs to know of its codec."""

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        ...

    @property
    def channels(self) -> int:
        """Of the latent."""
        ...

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        ...


class Codec(nn.Module):
    """Images [n, 3, s, s] in [-1, 1] to latents [n, channels, latent_size, latent_size] and back."""

    config: CodecConfig

    def encode(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Latents in which a denoiser may work."""
        raise NotImplementedError

    def decode(self, z_nchw: torch.Tensor) -> torch.Tensor:
        """Images of latents, not clipped."""
        raise NotImplementedError


class Autoencoder(Codec):
    """Images [n, 3, s, s] in [-1, 1] to latents [n, channels, s/4, s/4] and back."""

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        z, w, k = config.channels, config.width, config.narrow
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, k, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(k, w, 3, stride=2, padding=1),
            Residual(w),
            Residual(w),
            nn.Conv2d(w, z, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(z, w, 3, padding=1),
            Residual(w),
            Residual(w),
            nn.Conv2d(w, 4 * k, 1),
            nn.PixelShuffle(2),
            Residual(k),
            nn.SiLU(),
            nn.Conv2d(k, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("latent_mean", torch.zeros(1, z, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, z, 1, 1))
        self.latent_mean: torch.Tensor
        self.latent_std: torch.Tensor

    def encode(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Standardised latents."""
        return (self.encoder(x_nchw) - self.latent_mean) / self.latent_std

    def decode(self, z_nchw: torch.Tensor) -> torch.Tensor:
        """Images of standardised latents, not clipped."""
        return self.decoder(z_nchw * self.latent_std + self.latent_mean)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """The reconstruction, not clipped."""
        return self.decode(self.encode(x_nchw))

    @torch.no_grad()
    def standardize(self, x_nchw: torch.Tensor) -> None:
        """Set the buffers so that the latents of these images have mean 0 and variance 1 per channel."""
        raw = self.encoder(x_nchw).double()
        std, mean = torch.std_mean(raw, (0, 2, 3), correction=0, keepdim=True)
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)


def reconstruction_loss(y_nchw: torch.Tensor, x_nchw: torch.Tensor) -> torch.Tensor:
    """Mean |y - x| plus mean absolute difference of the horizontal and vertical gradients; a scalar.

    The gradient term keeps edges (eyes, brows) that the first term alone blurs.
    """
    across = functional.l1_loss(y_nchw.diff(dim=3), x_nchw.diff(dim=3))
    down = functional.l1_loss(y_nchw.diff(dim=2), x_nchw.diff(dim=2))
    return functional.l1_loss(y_nchw, x_nchw) + 0.5 * (across + down)


def psnr(y_nchw: torch.Tensor, x_nchw: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio per image in dB, [n]; range 2, y clipped to [-1, 1]."""
    error = ((y_nchw.clamp(-1, 1) - x_nchw) / 2).square().mean((1, 2, 3))
    return -10 * torch.log10(error)


def build(name_or_config: str | AutoencoderConfig = "tiny") -> Autoencoder:
    """A freshly initialised autoencoder (from torch's global generator: seed it first)."""
    config = AUTOENCODERS[name_or_config] if isinstance(name_or_config, str) else name_or_config
    return Autoencoder(config).eval()
