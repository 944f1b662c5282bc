"""A generator with its weights: denoiser, autoencoder where there is one, and the embedder that they belong to.

One weights folder (``models.weights``) holds both networks, so that one sha256 names what made an image. Its
``details`` state the architecture and the recognizer whose embeddings it understands; identities of another
embedder are refused, because a network fed with them still draws faces, only not of these people.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from synface.core.errors import InputError
from synface.models import autoencoder as autoencoders
from synface.models import vq, weights
from synface.models.autoencoder import Autoencoder, AutoencoderConfig, Codec
from synface.models.denoisers.config import DenoiserConfig, from_dict
from synface.models.denoisers.unet import Denoiser
from synface.store import schemas

GENERATOR_KIND = "generator"
AUTOENCODER_KIND = "autoencoder"


@dataclass(frozen=True)
class Provenance:
    """What a generator was trained with, and may be used under.

    Attributes:
        embedder: name of the recognizer E_id.
        embedder_sha256: of its weights.
        licence: SPDX name or a text.
        training_data: one sentence.
    """

    embedder: str
    embedder_sha256: str
    licence: str
    training_data: str


class Generator(nn.Module):
    """The networks that turn an embedding and m into an image: one state_dict, one weights file."""

    def __init__(self, denoiser: Denoiser, autoencoder: Codec | None):
        super().__init__()
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        if autoencoder is not None:
            latent = autoencoder.config
            if denoiser.shape != (latent.channels, latent.latent_size, latent.latent_size):
                raise InputError(
                    f"denoiser of {list(denoiser.shape)} with an autoencoder whose latents are "
                    f"[{latent.channels}, {latent.latent_size}, {latent.latent_size}]"
                )
        elif not denoiser.config.of_pixels:
            raise InputError(f"denoiser of {denoiser.config.channels} channels needs an autoencoder")

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.denoiser.config.sample_size if self.autoencoder is None else self.autoencoder.config.image_size


def build(denoiser: DenoiserConfig, autoencoder: AutoencoderConfig | vq.VQConfig | None) -> Generator:
    """Freshly initialised networks in evaluation mode (from torch's global generator: seed it first)."""
    inner: Codec | None = None
    if autoencoder is not None:
        inner = (
            vq.VQAutoencoder(autoencoder) if isinstance(autoencoder, vq.VQConfig) else autoencoders.build(autoencoder)
        )
    return Generator(Denoiser(denoiser), inner).eval()


def described(autoencoder: dict[str, Any]) -> AutoencoderConfig | vq.VQConfig:
    """The configuration of either kind that ``as_dict`` wrote. KeyError, TypeError: it is none."""
    return vq.from_dict(autoencoder) if autoencoder.get("kind") == vq.KIND else AutoencoderConfig(**autoencoder)


def weights_config(
    generator: Generator, architecture: str, provenance: Provenance, dtype: str = "float16", **details: Any
) -> weights.WeightsConfig:
    """The ``config.json`` of a generator; `details` are free facts (sampler settings, dial, figures)."""
    inner = generator.autoencoder
    return weights.WeightsConfig(
        architecture=architecture,
        embedding_dim=generator.denoiser.config.embedding_dim,
        input_size=generator.image_size,
        licence=provenance.licence,
        training_data=provenance.training_data,
        dtype=dtype,
        kind=GENERATOR_KIND,
        details={
            **details,
            "denoiser": generator.denoiser.config.as_dict(),
            "autoencoder": None if inner is None else inner.config.as_dict(),
            "embedder": provenance.embedder,
            "embedder_sha256": provenance.embedder_sha256,
        },
    )


def autoencoder_weights_config(
    autoencoder: Autoencoder, licence: str, training_data: str, dtype: str = "float16", **details: Any
) -> weights.WeightsConfig:
    """The ``config.json`` of an autoencoder that is stored alone."""
    return weights.WeightsConfig(
        architecture="autoencoder",
        embedding_dim=0,
        input_size=autoencoder.config.image_size,
        licence=licence,
        training_data=training_data,
        dtype=dtype,
        kind=AUTOENCODER_KIND,
        details={**details, "autoencoder": autoencoder.config.as_dict()},
    )


def from_pretrained(name_or_uri: str) -> tuple[Generator, weights.WeightsConfig]:
    """A generator in evaluation mode, float32 on the CPU, and what is stated about it.

    Raises:
        InputError: not found, damaged, of another kind or convention, or tensors that do not fit.
    """
    config, state = weights.read_state(name_or_uri, GENERATOR_KIND)
    try:
        denoiser = from_dict(config.details["denoiser"])
        inner = config.details["autoencoder"]
        autoencoder = None if inner is None else described(inner)
    except (KeyError, TypeError) as error:
        raise InputError(f"{name_or_uri}: details of {weights.CONFIG_FILE} describe no generator ({error})") from error
    with torch.random.fork_rng(devices=[]):
        module = build(denoiser, autoencoder)
    weights.load_state(module, state, f"{name_or_uri} ({config.architecture})")
    return module, config


def autoencoder_from_pretrained(name_or_uri: str) -> tuple[Codec, weights.WeightsConfig]:
    """An autoencoder that was stored alone, or a generator's own; otherwise as `from_pretrained`.

    Raises:
        InputError: also a generator that works on pixels.
    """
    if weights.read_stated(name_or_uri).kind == GENERATOR_KIND:
        generator, config = from_pretrained(name_or_uri)
        if generator.autoencoder is None:
            raise InputError(f"autoencoder {name_or_uri}: that generator works on pixels and has none; give another")
        return generator.autoencoder, config
    config, state = weights.read_state(name_or_uri, AUTOENCODER_KIND)
    try:
        description = AutoencoderConfig(**config.details["autoencoder"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{name_or_uri}: details of {weights.CONFIG_FILE} describe no autoencoder") from error
    with torch.random.fork_rng(devices=[]):
        module = autoencoders.build(description)
    weights.load_state(module, state, name_or_uri)
    return module, config


def check_embedder(config: weights.WeightsConfig, embedder: str, embedder_sha256: str) -> None:
    """Refuse identities whose embeddings are not of the recognizer that the generator was trained with.

    Raises:
        InputError: the sha256 of the two recognizers' weights differ.
    """
    stated = {"embedder": embedder, "embedder_sha256": embedder_sha256}
    own = config.details
    schemas.check_embedder(
        stated, str(own.get("embedder")), str(own.get("embedder_sha256")), "identities", "the generator understands"
    )
