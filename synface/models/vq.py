"""The VQ autoencoder of latent diffusion (Rombach et al., CVPR 2022), in whose latents IDiff-Face's release works.

diffusers' `VQModel` does the work; its tensors come from the published layout by `from_published`: ``first_stage``
checkpoints of CompVis/latent-diffusion, or the two files (encoder, decoder) of IDiff-Face's repository. Latents are
what the encoder gives; decoding rounds them to the codebook first, as the release does.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel

from synface.core.errors import InputError
from synface.models.autoencoder import Codec

KIND = "vq"
#: parts of a published residual block whose names differ, and of the attention in the middle
RESIDUAL = {"nin_shortcut": "conv_shortcut"}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@dataclass(frozen=True)
class VQConfig:
    """Shape of a VQ autoencoder; the defaults are vq-f4's at 128 pixels.

    Attributes:
        image_size: side of the images, pixels.
        widths: channels of the levels, finest first; each but the last halves the side.
        layers: residual blocks a level (one more on the way up).
        channels: of the latent.
        codes: entries of the codebook.
        groups: of the group normalisations.
    """

    image_size: int = 128
    widths: tuple[int, ...] = (128, 256, 512)
    layers: int = 2
    channels: int = 3
    codes: int = 8192
    groups: int = 32
    kind: str = KIND

    def __post_init__(self) -> None:
        step = 2 ** (len(self.widths) - 1)
        if self.kind != KIND or self.image_size % step or self.image_size < step:
            raise InputError(f"autoencoder {self.kind} image_size = {self.image_size}: a multiple of {step}")

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.image_size // 2 ** (len(self.widths) - 1)

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` inverts it."""
        return dataclasses.asdict(self)


def from_dict(data: Mapping[str, Any]) -> VQConfig:
    """The configuration that ``as_dict`` wrote. TypeError for unknown fields."""
    return VQConfig(**{**data, "widths": tuple(data["widths"])})


class VQAutoencoder(Codec):
    """Images [n, 3, s, s] in [-1, 1] to latents [n, channels, s / f, s / f] and back."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        levels = len(config.widths)
        self.model = VQModel(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            latent_channels=config.channels,
            num_vq_embeddings=config.codes,
            vq_embed_dim=config.channels,
            norm_num_groups=config.groups,
            sample_size=config.image_size,
        )

    def encode(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Latents before they are rounded to the codebook."""
        return self.model.encode(x_nchw).latents

    def decode(self, z_nchw: torch.Tensor) -> torch.Tensor:
        """Images of latents, rounded to the codebook first; not clipped."""
        return self.model.decode(z_nchw, return_dict=False)[0]


def from_published(state: Mapping[str, torch.Tensor], config: VQConfig, where: str) -> dict[str, torch.Tensor]:
    """Tensors by the names of ``VQAutoencoder(config).model``, float32.

    Args:
        state: by the published names, of encoder and decoder.
        config: of the autoencoder.
        where: for messages.

    Raises:
        InputError: a tensor is missing.
    """

    def take(name: str) -> torch.Tensor:
        if name not in state:
            raise InputError(f"{where}: no tensor {name!r}; is it a VQ autoencoder of widths {list(config.widths)}?")
        return state[name].float()

    return {ours: take(theirs).reshape(shape) for theirs, ours, shape in names(config)}


def names(config: VQConfig) -> list[tuple[str, str, tuple[int, ...]]]:
    """(published name, our name, our shape) of every tensor; a published 1x1 convolution may be a linear map here."""
    with torch.device("meta"):
        own = VQAutoencoder(config).model.state_dict()
    return [(published(name, len(config.widths)), name, tuple(value.shape)) for name, value in own.items()]


def published(name: str, levels: int) -> str:
    """The published name of one of our tensors."""
    side, *rest = name.split(".")
    if side not in ("encoder", "decoder"):
        return name  # quant_conv, quantize.embedding, post_quant_conv
    if rest[0] in ("down_blocks", "up_blocks"):
        level = int(rest[1]) if rest[0] == "down_blocks" else levels - 1 - int(rest[1])
        way = rest[0].removesuffix("_blocks")
        if rest[2] == "resnets":
            return ".".join([side, way, str(level), "block", rest[3], *_residual(rest[4:])])
        return ".".join([side, way, str(level), f"{way}sample", *rest[4:]])
    if rest[0] == "mid_block" and rest[1] == "resnets":
        return ".".join([side, "mid", f"block_{int(rest[2]) + 1}", *_residual(rest[3:])])
    if rest[0] == "mid_block":
        theirs = {ours: theirs for theirs, ours in ATTENTION.items()}
        return ".".join([side, "mid", "attn_1", theirs[".".join(rest[3:-1])], rest[-1]])
    return ".".join([side, rest[0].replace("conv_norm_out", "norm_out"), *rest[1:]])


def _residual(parts: list[str]) -> list[str]:
    theirs = {ours: theirs for theirs, ours in RESIDUAL.items()}
    return [theirs.get(part, part) for part in parts]
