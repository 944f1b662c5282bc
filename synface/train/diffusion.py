"""Pure parts of training a conditional diffusion model: noising, weights, EMA, pairs, the ridge mean.

``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`` (Ho et al. 2020); v-prediction after Salimans & Ho 2022.
Nothing here knows of ranks, files or configurations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from synface.core.errors import InputError, unknown_name
from synface.models.denoisers import Denoiser, conditioning
from synface.train import similarity, variance

#: Hang et al., "Efficient diffusion training via min-SNR weighting strategy", ICCV 2023
MIN_SNR_GAMMA = 5.0


def draw_steps(generator: np.random.Generator, n: int, num_steps: int) -> np.ndarray:
    """Uniform time steps 0 ... T - 1, int64 [n]."""
    return generator.integers(0, num_steps, n)


def noised(x0: torch.Tensor, noise: torch.Tensor, abar_n: torch.Tensor) -> torch.Tensor:
    """x_t [n, ...] of clean samples and standard normal noise [n, ...] at abar [n]."""
    abar = _like(abar_n, x0)
    return abar.sqrt() * x0 + (1 - abar).sqrt() * noise


def velocity(x0: torch.Tensor, noise: torch.Tensor, abar_n: torch.Tensor) -> torch.Tensor:
    """``v = sqrt(abar) eps - sqrt(1 - abar) x_0``, [n, ...]."""
    abar = _like(abar_n, x0)
    return abar.sqrt() * noise - (1 - abar).sqrt() * x0


def prediction_target(x0: torch.Tensor, noise: torch.Tensor, abar_n: torch.Tensor, kind: str) -> torch.Tensor:
    """What the network should predict: eps or v, [n, ...]."""
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return velocity(x0, noise, abar_n)
    raise unknown_name("prediction", kind, ("epsilon", "v_prediction"))


def min_snr_weight(abar_n: torch.Tensor, kind: str, gamma: float = MIN_SNR_GAMMA) -> torch.Tensor:
    """Weight of a row's squared error, [n]: that of x_0's error, capped at gamma, in units of the prediction.

    With SNR = abar / (1 - abar): ``min(SNR, gamma) / SNR`` for eps, ``min(SNR, gamma) / (SNR + 1)`` for v.
    """
    snr = abar_n / (1 - abar_n)
    if kind == "epsilon":
        return snr.clamp(max=gamma) / snr
    if kind == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    raise unknown_name("prediction", kind, ("epsilon", "v_prediction"))


def squared_error(
    prediction: torch.Tensor, target: torch.Tensor, weight_n: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error per row, times the row's weight, [n]."""
    error = (prediction - target).square().flatten(1).mean(1)
    return error if weight_n is None else error * weight_n


@dataclass(frozen=True)
class Batch:
    """What one training step looks at; row i of everything belongs together.

    In modes ``paper`` and ``identity`` the target is the inquiry itself: the two embeddings are the same rows.
    """

    x0_nchw: torch.Tensor  # the images or latents to restore
    noise_nchw: torch.Tensor  # standard normal
    t_n: torch.Tensor  # int64
    inquiry_nd: torch.Tensor  # unit embeddings of the inquiries
    target_nd: torch.Tensor  # unit embeddings of the images to restore
    m_n: torch.Tensor  # drawn from the grid (paper), or the two embeddings' cosine
    conditioned_n: torch.Tensor  # bool; false: the condition is dropped, for guidance
    kept_nk: torch.Tensor | None = None  # bool; components of the context that partial dropout keeps; None: all
    pose_na: torch.Tensor | None = None  # degrees, of the images to restore; NaN: dropped; None: the model knows none


@dataclass(frozen=True)
class Losses:
    """The scalar to minimise and its parts per row."""

    total: torch.Tensor
    squared_error_n: torch.Tensor  # weighted by min-SNR
    matching_n: torch.Tensor | None  # L_SimMat, in mode style L_ID; None in modes relation and identity
    realised_n: torch.Tensor | None  # similarity of x0_hat to the inquiry
    bound_n: torch.Tensor | None = None  # term of L_vlb; None without a learned range


def generator_losses(
    model: Denoiser,
    batch: Batch,
    embed: Callable[[torch.Tensor], torch.Tensor],
    weight: float = similarity.LAMBDA,
    measure: str = "cosine",
) -> Losses:
    """The loss of a batch in the model's mode; for a learned range also L_vlb.

    CemiFace's ``L_MSE + lambda L_SimMat``, DCFace's ``L_MSE + lambda L_ID``; in modes ``relation`` and ``identity``
    L_MSE alone. The style of mode ``style`` is that of the image to restore.

    Args:
        model: the denoiser; its mode says which losses take part.
        batch: see `Batch`.
        embed: x0_hat [n, c, h, w] to features [n, d]: decodes latents, clips, and applies the frozen E_id;
            differentiable. Called only where the mode compares (`DenoiserConfig.matches`).
        weight: lambda.
        measure: of the similarity.
    """
    kind = model.config.prediction
    abar_n = model.alphas_cumprod[batch.t_n]
    x_t = noised(batch.x0_nchw, batch.noise_nchw, abar_n)
    style = batch.x0_nchw if model.config.mode == "style" else None
    condition = model.condition(batch.inquiry_nd, batch.m_n, batch.kept_nk, style, batch.pose_na)
    condition = conditioning.choose(batch.conditioned_n, condition, model.null_condition(len(x_t)))
    prediction, raw_variance = model.with_range(x_t, batch.t_n, condition)
    x0_hat = similarity.clean_estimate(x_t, prediction, abar_n, kind)
    bound_n, bound = None, 0.0
    if raw_variance is not None:
        bound_n = variance.bound_terms(batch.x0_nchw, x_t, x0_hat, raw_variance, batch.t_n, model.alphas_cumprod)
        bound = variance.WEIGHT * model.config.num_train_steps * bound_n.mean()
    target = prediction_target(batch.x0_nchw, batch.noise_nchw, abar_n, kind)
    error_n = squared_error(prediction, target, min_snr_weight(abar_n, kind))
    if not model.config.matches:
        return Losses(similarity.total_loss(error_n, None) + bound, error_n, None, None, bound_n)
    features = embed(x0_hat)
    restored_n = similarity.similarity(features, batch.target_nd, measure)
    realised_n = similarity.similarity(features, batch.inquiry_nd, measure)
    num_steps = model.config.num_train_steps
    if model.config.mode == "style":
        matching_n = similarity.identity_matching(restored_n, realised_n, batch.t_n, num_steps)
    else:
        matching_n = similarity.similarity_matching(restored_n, realised_n, batch.m_n, batch.t_n, num_steps)
    total = similarity.total_loss(error_n, matching_n, weight, batch.conditioned_n)
    return Losses(total + bound, error_n, matching_n, realised_n, bound_n)


@dataclass(frozen=True)
class Pairs:
    """Training pairs of the relation: condition on the inquiry's embedding and m, restore the target."""

    inquiry_n: np.ndarray  # int64, row of the inquiry image
    target_n: np.ndarray  # int64, row of the image to restore
    m_n: np.ndarray  # float32, their measured cosine


def relation_pairs(
    generator: np.random.Generator,
    embedding_nd: np.ndarray,
    identity_n: np.ndarray,
    size: int,
    same_share: float = 0.5,
    low: float = -0.25,
    high: float = 1.0,
    candidates: int = 1500,
) -> Pairs:
    """Pairs whose measured cosine covers [low, high], not only the two heaps that chance would give.

    A share of the inquiries is paired with a random image of its own identity (itself included). Each of
    the others draws a level uniformly from [low, high] and takes, of `candidates` random images and its
    own identity's, the one whose cosine to it is nearest the level.

    Args:
        generator: keyed.
        embedding_nd: unit embeddings of the training images.
        identity_n: identity of each image, integers.
        size: number of pairs.
        same_share: share of pairs of one identity, in [0, 1].
        low: of the levels.
        high: of the levels.
        candidates: images looked at for each batch; cost size x candidates x d.

    Raises:
        InputError: a share or range out of bounds.
    """
    if not (0 <= same_share <= 1 and -1 <= low <= high <= 1):
        raise InputError(f"same_share = {same_share}, levels [{low}, {high}]: share in [0, 1], levels in [-1, 1]")
    order = np.argsort(identity_n, kind="stable")
    ordered = np.asarray(identity_n)[order]
    inquiry = generator.integers(0, len(embedding_nd), size)
    pool = generator.integers(0, len(embedding_nd), candidates)
    same = generator.random(size) < same_share
    level = generator.uniform(low, high, size)
    cos_pool = embedding_nd[inquiry] @ embedding_nd[pool].T
    target = np.empty(size, np.int64)
    first = np.searchsorted(ordered, np.asarray(identity_n)[inquiry], side="left")
    last = np.searchsorted(ordered, np.asarray(identity_n)[inquiry], side="right")
    choice = generator.random(size)
    for row in range(size):
        own = order[first[row] : last[row]]
        if same[row]:
            target[row] = own[int(choice[row] * len(own))]
            continue
        cos = np.concatenate([cos_pool[row], embedding_nd[own] @ embedding_nd[inquiry[row]]])
        target[row] = np.concatenate([pool, own])[np.argmin(np.abs(cos - level[row]))]
    m = np.einsum("nd,nd->n", embedding_nd[inquiry], embedding_nd[target])
    return Pairs(inquiry, target, np.clip(m, -1, 1).astype(np.float32))


class RidgeSums:
    """Ridge regression from embeddings to flattened samples, from sums over blocks of any size.

    Minimises ``sum ||y - x W - b||^2 + penalty ||W||^2`` (the intercept is free) in float64; memory
    O(d^2 + d k), whatever the number of images. Sums of several workers add up by `merge`.
    """

    def __init__(self, embedding_dim: int, size: int):
        self.count = 0
        self.x_d, self.y_k = np.zeros(embedding_dim), np.zeros(size)
        self.xx_dd, self.xy_dk = np.zeros((embedding_dim, embedding_dim)), np.zeros((embedding_dim, size))
        self.yy = 0.0

    def add(self, embedding_nd: np.ndarray, sample_nk: np.ndarray) -> None:
        """Take in a block: embeddings [n, d] and samples [n, k] (flattened x_0)."""
        x, y = np.asarray(embedding_nd, np.float64), np.asarray(sample_nk, np.float64).reshape(len(sample_nk), -1)
        self.count += len(x)
        self.x_d += x.sum(0)
        self.y_k += y.sum(0)
        self.xx_dd += x.T @ x
        self.xy_dk += x.T @ y
        self.yy += float((y * y).sum())

    def merge(self, other: "RidgeSums") -> None:
        """Take in another worker's sums."""
        self.count += other.count
        self.x_d += other.x_d
        self.y_k += other.y_k
        self.xx_dd += other.xx_dd
        self.xy_dk += other.xy_dk
        self.yy += other.yy

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """W float32 [d, k] and b float32 [k]."""
        if self.count == 0:
            raise ValueError("no images were added")
        mean_x, mean_y = self.x_d / self.count, self.y_k / self.count
        xx = self.xx_dd - self.count * np.outer(mean_x, mean_x)
        xy = self.xy_dk - self.count * np.outer(mean_x, mean_y)
        weight = np.linalg.solve(xx + penalty * np.eye(len(xx)), xy)
        return weight.astype(np.float32), (mean_y - mean_x @ weight).astype(np.float32)

    def r2(self, weight_dk: np.ndarray, intercept_k: np.ndarray) -> float:
        """Share of the variance of these sums' samples that a map explains (give it held-out sums)."""
        w, b = weight_dk.astype(np.float64), intercept_k.astype(np.float64)
        fit_square = np.sum(w * (self.xx_dd @ w)) + 2 * float(self.x_d @ w @ b) + self.count * float(b @ b)
        residual = self.yy - 2 * (np.sum(w * self.xy_dk) + float(b @ self.y_k)) + fit_square
        total = self.yy - float(self.y_k @ self.y_k) / self.count
        return 1 - float(residual) / total


def _like(abar_n: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return abar_n.reshape(-1, *[1] * (x.ndim - 1))
