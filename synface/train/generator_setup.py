"""The networks of a generator's training, and what is fixed before its first step. No Ray."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from synface.core import rng, scores, sphere
from synface.core.errors import InputError, unknown_name
from synface.models import denoisers, weights
from synface.models.autoencoder import Codec
from synface.models.denoisers import adm
from synface.models.denoisers import generator as generators
from synface.models.denoisers.conditioning import pose_features
from synface.models.denoisers.config import DENOISERS, DenoiserConfig, from_dict
from synface.models.denoisers.unet import Denoiser
from synface.models.embedding import Embedder
from synface.train import diffusion, generator_start
from synface.train.average_loop import Trainee
from synface.train.data import Catalog
from synface.train.diffusion import Batch, RidgeSums
from synface.train.generator_config import TrainGeneratorConfig
from synface.train.generator_start import Begun

#: x0_hat is clipped here before E_id: a fifth beyond the range, so that nearly saturated pixels keep a gradient
CLIP = 1.2
#: images at most whose impostor pairs give the threshold of inquiries
THRESHOLD_IMAGES = 3000
#: of the regression on poses, whose features are few
POSE_PENALTY = 1.0
#: images of a block of the ridge sums
RIDGE_BLOCK = 1024


class GeneratorTrainee(Trainee):
    """A denoiser and the loss of its mode."""

    def __init__(self, network: Denoiser, embed: Callable[[torch.Tensor], torch.Tensor], weight: float, measure: str):
        super().__init__(network)
        matching = ("matching", "realised") if network.config.matches else ()
        self.names = ("squared_error", *matching, *(("bound",) if network.config.learned_range else ()))
        self._embed, self._weight, self._measure = embed, weight, measure

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The total loss, and means of its parts (`names`)."""
        assert isinstance(self.network, Denoiser)
        losses = diffusion.generator_losses(self.network, batch, self._embed, self._weight, self._measure)
        parts = [losses.squared_error_n, losses.matching_n, losses.realised_n, losses.bound_n]
        return losses.total, torch.stack([p.detach().float().mean() for p in parts if p is not None])


def describe(config: TrainGeneratorConfig, embedding_dim: int, autoencoder: Codec | None) -> DenoiserConfig:
    """The denoiser that is asked for, fitted to the embedder's and the autoencoder's sizes.

    Raises:
        InputError: unknown names or fields, a denoiser of latents without autoencoder or the other way round, an
            autoencoder for images of another size.
    """
    fields = {**_asked(config), "embedding_dim": embedding_dim}
    if autoencoder is None:
        if not from_dict(fields).of_pixels:
            raise InputError(
                f"denoiser {config.denoiser!r} works on latents: give --autoencoder, made by `train autoencoder`"
            )
        fields["sample_size"] = config.image_size
    else:
        if from_dict(fields).of_pixels:
            raise InputError(f"denoiser {config.denoiser!r} works on pixels: leave --autoencoder out")
        latent = autoencoder.config
        if latent.image_size != config.image_size:
            raise InputError(
                f"autoencoder {config.autoencoder}: for images of {latent.image_size} pixels, image_size asks "
                f"{config.image_size}"
            )
        fields |= {"channels": latent.channels, "sample_size": latent.latent_size}
    return from_dict(fields)


def named(config: TrainGeneratorConfig) -> DenoiserConfig:
    """The denoiser that is asked for, at its name's own sizes: what is known before embedder and autoencoder stand."""
    return from_dict(_asked(config))


def _asked(config: TrainGeneratorConfig) -> dict[str, Any]:
    if config.denoiser not in DENOISERS:
        raise unknown_name("denoiser", config.denoiser, DENOISERS)
    taken = {"sample_size", "channels", "embedding_dim"} & set(config.architecture)
    if taken:
        raise InputError(f"architecture.{min(taken)}: follows from images, autoencoder and embedder; leave it out")
    mode = {} if config.mode is None else {"mode": config.mode}
    return {**DENOISERS[config.denoiser].as_dict(), **config.architecture, **mode}


def check_embedder(config: TrainGeneratorConfig, stated: weights.WeightsConfig) -> None:
    """InputError unless E_id takes images of the training's size."""
    if stated.input_size != config.image_size:
        raise InputError(
            f"embedder {config.embedder!r} takes crops of {stated.input_size} pixels, image_size asks "
            f"{config.image_size}: choose a recognizer for that size"
        )


@dataclass(frozen=True)
class Networks:
    """Everything that is loaded, on one device; only the denoiser is trained."""

    description: DenoiserConfig
    embedder: Embedder
    recognizer: nn.Module
    autoencoder: Codec | None
    begun: Begun | None = None

    def features(self, x0_nchw: torch.Tensor) -> torch.Tensor:
        """E_id's raw features float32 [n, d] of estimated clean samples, differentiable: decode, clip, embed."""
        pixels = x0_nchw if self.autoencoder is None else self.autoencoder.decode(x0_nchw)
        return self.recognizer(pixels.clamp(-CLIP, CLIP)).float()


def load_networks(config: TrainGeneratorConfig, device: str) -> Networks:
    """Load E_id and the autoencoder, frozen, and fit the denoiser's description to them.

    Raises:
        InputError: as `describe`, `check_embedder`, `generator_start` and the loading of weights.
    """
    recognizer, stated = weights.from_pretrained(config.embedder)
    check_embedder(config, stated)
    recognizer = recognizer.requires_grad_(False)
    begun = generator_start.load(config, stated)
    autoencoder = None if begun is None else begun.module.autoencoder
    if config.autoencoder is not None:
        autoencoder = generators.autoencoder_from_pretrained(config.autoencoder)[0]
    if autoencoder is not None:
        autoencoder = autoencoder.requires_grad_(False).to(device)
        autoencoder = autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    description = describe(config, stated.embedding_dim, autoencoder)
    if begun is not None:
        generator_start.check_fits(config, description, begun.denoiser.config)
    embedder = Embedder(recognizer, stated, config.embedder, device)
    return Networks(description, embedder, recognizer, autoencoder, begun)


def make_trainee(config: TrainGeneratorConfig, networks: Networks) -> GeneratorTrainee:
    """A fresh denoiser (from torch's global generator), or one that starts from other weights, with its loss."""
    denoiser = denoisers.build(networks.description)
    if networks.begun is not None:
        generator_start.begin(denoiser, networks.begun.denoiser)
    elif config.start is not None:
        saved = generator_start.read_file(config.start)
        adm.start(denoiser.unet, saved, networks.description, f"start {config.start}")
    return GeneratorTrainee(denoiser, networks.features, config.weight, config.measure)


def split_identities(config: TrainGeneratorConfig, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Image numbers of the identities that are trained on, and of those held out; a choice by key.

    Raises:
        InputError: fewer than two identities are left to train on.
    """
    classes = len(catalog.classes)
    if config.held_out > classes - 2:
        raise InputError(
            f"held_out = {config.held_out} of {classes} identities: at most {max(classes - 2, 0)}, so that two "
            "are left to train on"
        )
    out = np.zeros(classes, bool)
    out[rng.permutation(classes, config.seed, "held-out")[: config.held_out]] = True
    held_n = out[catalog.labels]
    return np.flatnonzero(~held_n), np.flatnonzero(held_n)


def inquiry_threshold(
    config: TrainGeneratorConfig, embedding_nd: np.ndarray, label_n: np.ndarray, held_n: np.ndarray
) -> dict[str, Any]:
    """The cosine that two different people reach at FAR ``config.inquiry_far``, and what it was measured on.

    Among the held-out images where they give 100 impostor pairs beyond the rate, else among all; at most
    `THRESHOLD_IMAGES` of them.
    """
    for people, rows in (("held out", held_n), ("all", np.arange(len(label_n)))):
        rows = rows[rng.permutation(len(rows), config.seed, "threshold")[:THRESHOLD_IMAGES]]
        upper = np.triu(label_n[rows][:, None] != label_n[rows][None], 1)
        pairs = int(upper.sum())
        if pairs * config.inquiry_far >= 100 or (people == "all" and pairs):
            cosine = (embedding_nd[rows] @ embedding_nd[rows].T)[upper]
            value = scores.threshold_at_far(cosine, config.inquiry_far)
            return {"threshold": round(value, 6), "far": config.inquiry_far, "impostor_pairs": pairs, "people": people}
    raise ValueError("no impostor pairs")  # two identities at least: split_identities


def ridge(
    shape: tuple[int, int, int],
    embedding_nd: np.ndarray,
    blocks: Callable[[np.ndarray], np.ndarray],
    rows_n: np.ndarray,
) -> RidgeSums:
    """Ridge sums of some images, block by block.

    Args:
        shape: of x_0.
        embedding_nd: of all images.
        blocks: image numbers to x_0 [k, c, h, w].
        rows_n: the images.
    """
    sums = RidgeSums(embedding_nd.shape[1], int(np.prod(shape)))
    for start in range(0, len(rows_n), RIDGE_BLOCK):
        rows = rows_n[start : start + RIDGE_BLOCK]
        sums.add(embedding_nd[rows], blocks(rows).reshape(len(rows), -1))
    return sums


def set_mean(
    denoiser: Denoiser,
    config: TrainGeneratorConfig,
    embedding_nd: np.ndarray,
    blocks: Callable[[np.ndarray], np.ndarray],
    train_n: np.ndarray,
    held_n: np.ndarray,
) -> dict[str, float]:
    """Fit and set the denoiser's ridge mean; R2 on the training and the held-out images ({} without a mean)."""
    if denoiser.mean is None:
        return {}
    sums = ridge(denoiser.shape, embedding_nd, blocks, train_n)
    weight, intercept = sums.solve(config.ridge_penalty)
    with torch.no_grad():
        denoiser.mean.weight_dk.copy_(torch.from_numpy(weight))
        denoiser.mean.intercept_k.copy_(torch.from_numpy(intercept))
    facts = {"ridge_r2_training": round(sums.r2(weight, intercept), 4)}
    if len(held_n) > 1:
        facts["ridge_r2_held_out"] = round(
            ridge(denoiser.shape, embedding_nd, blocks, held_n).r2(weight, intercept), 4
        )
    return facts


def set_pose_mean(
    denoiser: Denoiser, pose_na: np.ndarray, blocks: Callable[[np.ndarray], np.ndarray], train_n: np.ndarray
) -> dict[str, float]:
    """Fit and set what a pose adds to the mean of x_0; R2 on the training images ({} where it adds nothing).

    Args:
        denoiser: of a posed network.
        pose_na: degrees, of all images.
        blocks: image numbers to x_0 [k, c, h, w].
        train_n: the training images.
    """
    if denoiser.pose_mean is None:
        return {}
    sums = ridge(denoiser.shape, pose_features(torch.from_numpy(pose_na)).numpy(), blocks, train_n)
    weight, intercept = sums.solve(POSE_PENALTY)
    with torch.no_grad():
        denoiser.pose_mean.weight_fk.copy_(torch.from_numpy(weight))
        denoiser.pose_mean.offset_k.copy_(torch.from_numpy(intercept - sums.y_k / sums.count))
    return {"pose_r2_training": round(sums.r2(weight, intercept), 4)}


@dataclass(frozen=True)
class Inquiries:
    """Whom the looks during training show: unit embeddings [k, d], and their pictures where there are any."""

    embedding_nd: np.ndarray
    images_nhwc: np.ndarray | None


def choose_inquiries(embedding_nd: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """Rows of the first inquiries whose pairwise cosines stay below the threshold, at most `count`, int64."""
    return sphere.unique_rows(embedding_nd, threshold)[:count]


def first_images(label_n: np.ndarray, rows_n: np.ndarray) -> Iterator[int]:
    """The first image of each identity among some images, in their order."""
    seen: set[int] = set()
    for row in rows_n:
        label = int(label_n[row])
        if label not in seen:
            seen.add(label)
            yield int(row)
