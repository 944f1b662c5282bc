"""What a generator's training starts from, if it does not start afresh: a generator, or a released network. No Ray.

Three kinds. The same network goes on as it is. A network with the same trunk and other conditions (DCFace from
CemiFace, as the paper's starts from a network that knows nobody) takes the U-Net's tensors that both have, and learns
its conditions anew. A released file is translated by `models.denoisers.adm`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from synface.core.errors import InputError
from synface.models import checkpoints, weights
from synface.models.denoisers import adm
from synface.models.denoisers import generator as generators
from synface.models.denoisers.config import DenoiserConfig
from synface.models.denoisers.unet import Denoiser, build_backbone
from synface.store import artifact
from synface.store import uri as uris
from synface.train.generator_config import TrainGeneratorConfig

#: fields of a description that say what its training is for, and change no tensor
LEARNED = ("mode", "context_dropout")
#: those that say what conditions the network, and how; all others are its trunk
CONDITIONS = (*LEARNED, "conditioning", "condition_dim", "context_tokens", "style_grid", "pose")
TRUNK = "unet."


@dataclass(frozen=True)
class Begun:
    """A generator that training starts from."""

    module: generators.Generator
    stated: weights.WeightsConfig

    @property
    def denoiser(self) -> Denoiser:
        """Its network."""
        return self.module.denoiser


def load(config: TrainGeneratorConfig, embedder: weights.WeightsConfig) -> Begun | None:
    """The generator that training starts from, where there is one; None for a fresh start and for a released file.

    Raises:
        InputError: nothing stands there, it was trained with another recognizer, or an autoencoder is given besides.
    """
    if config.start is None:
        return None
    if not weights.stand_at(config.start):
        if not uris.exists(config.start):
            raise InputError(
                f"start {config.start}: nothing stands there; give a built-in generator, a weights folder or a "
                "released file"
            )
        return None
    found, stated = generators.from_pretrained(config.start)
    if stated.details.get("embedder_sha256") != embedder.sha256:
        raise InputError(
            f"start {config.start}: was trained for embeddings of {stated.details.get('embedder')}, embedder "
            f"{config.embedder!r} has other weights: give the one that it was trained with"
        )
    if config.autoencoder is not None and found.autoencoder is not None:
        raise InputError(f"autoencoder: start {config.start} brings its own; leave one of them out")
    return Begun(found, stated)


def goes_on(asked: DenoiserConfig, found: DenoiserConfig) -> bool:
    """Whether it is the same network: they differ at most in what is learned (`LEARNED`), and in poses."""
    return not _differences(asked, found, {*LEARNED, "pose"})


def check_fits(config: TrainGeneratorConfig, asked: DenoiserConfig, found: DenoiserConfig) -> None:
    """InputError where the two are not one trunk; of the same network, where a pose that it knows would be lost."""
    same = {*LEARNED} if found.pose else {*LEARNED, "pose"}
    if other := _differences(asked, found, same if goes_on(asked, found) else {*CONDITIONS}):
        raise InputError(
            f"start {config.start}: is another network than denoiser {config.denoiser!r} with its architecture.*: "
            f"{'; '.join(other)}"
        )


def _differences(asked: DenoiserConfig, found: DenoiserConfig, free: set[str]) -> list[str]:
    ours, theirs = asked.as_dict(), found.as_dict()
    return [f"{k} = {theirs[k]!r}, asked {ours[k]!r}" for k in ours if k not in free and ours[k] != theirs[k]]


def begin(denoiser: Denoiser, begun: Denoiser) -> None:
    """Put the tensors in place that both have.

    Of the same network all, but for what knows a new pose (it adds nothing at first). Of one with other conditions
    those of the U-Net alone that have its names and shapes: residual blocks, and attention of the same kind.
    """
    own = denoiser.state_dict()
    denoiser.load_state_dict({**own, **taken(own, begun, goes_on(denoiser.config, begun.config))})


def taken(own: Mapping[str, torch.Tensor], begun: Denoiser, whole: bool) -> dict[str, torch.Tensor]:
    """The tensors that `begin` takes for a network whose tensors are `own`."""
    theirs = begun.state_dict()
    if whole:
        return theirs
    return {
        name: value
        for name, value in theirs.items()
        if name.startswith(TRUNK) and name in own and own[name].shape == value.shape
    }


def described(config: TrainGeneratorConfig, asked: DenoiserConfig, begun: Begun) -> str:
    """What is taken, for people."""
    if goes_on(asked, begun.denoiser.config):
        return f"goes on from {config.start}"
    with torch.device("meta"):
        own = {k: v for k, v in Denoiser(asked).state_dict().items() if k.startswith(TRUNK)}
    count = len(taken(own, begun.denoiser, whole=False))
    return f"starts with {count} of the U-Net's {len(own)} tensors from {config.start}; what conditions it is new"


def provenance(begun: Begun) -> str:
    """For the statement of what the new weights were trained on: the old ones' is theirs too."""
    return f"before that, weights {begun.stated.sha256[:12]} ({begun.stated.licence}): {begun.stated.training_data}"


def read_file(uri: str) -> Any:
    """What a released file holds, as tensors and plain data alone."""
    return checkpoints.read_tensors(uris.read_bytes(uri), uri)


def check_file(config: TrainGeneratorConfig, description: DenoiserConfig) -> None:
    """InputError where ``config.start`` is a released file that does not fit the denoiser."""
    assert config.start is not None
    with torch.device("meta"):
        own = build_backbone(description).state_dict()
    adm.fitted(own, read_file(config.start), description, f"start {config.start}")


def sha256(start: str) -> str:
    """Of the weights, or of the file."""
    if weights.stand_at(start):
        return weights.read_config(start, generators.GENERATOR_KIND).sha256
    return artifact.sha256_hex(uris.read_bytes(start))
