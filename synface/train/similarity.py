"""CemiFace's similarity-controlled loss (Sun et al., NeurIPS 2024, arXiv 2409.18876, section 3).

``L = L_MSE + lambda L_SimMat`` with
``L_SimMat = (1 - gamma_t) (1 - s)^2 + gamma_t (m - s)^2``, ``gamma_t = t / T``, ``s = sim(E(x), E(x0_hat))``:
near t = 0 restore the identity, near t = T push the sample to similarity m. The gradient flows through
x0_hat, the one-step estimate of the clean image. Everything is per row; no global state.
"""

import warnings
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from synface.core.errors import InputError, unknown_name

Measure = Literal["cosine", "euclidean"]
MEASURES: tuple[str, ...] = ("cosine", "euclidean")

#: the paper's default; it saw 0.01 and 0.1 equal within noise and 0.5 worse
LAMBDA = 0.05
#: intervals of m that the paper tried; 0.04 was best
INTERVALS = (0.02, 0.04, 0.06)
#: added under the root of the Euclidean distance, whose slope at 0 is infinite
DISTANCE_FLOOR = 1e-8


def m_grid(interval: float, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """The values ``low, low + interval, ...`` up to high that m may take in training, float32, ascending.

    Raises:
        InputError: an interval that is not positive, or a range outside [-1, 1].
    """
    if not interval > 0:
        raise InputError(f"interval of m = {interval}: above 0, e.g. {', '.join(map(str, INTERVALS))}")
    _check_range(low, high)
    count = int(np.floor((high - low) / interval + 1e-9)) + 1
    return np.clip(low + interval * np.arange(count), -1, 1).astype(np.float32)


def draw_m(
    generator: np.random.Generator, n: int, interval: float | None = 0.04, low: float = -1.0, high: float = 1.0
) -> np.ndarray:
    """Similarity factors of n training rows, float32: uniform on `m_grid`, or on [low, high] if `interval` is None.

    Continuous m warns: the paper reports that training then collapses (the same image for every m).
    """
    if interval is None:
        _check_range(low, high)
        warnings.warn(
            "m is drawn continuously: CemiFace reports that the dial collapses then; use interval 0.02, 0.04 or 0.06",
            stacklevel=2,
        )
        return generator.uniform(low, high, n).astype(np.float32)
    grid = m_grid(interval, low, high)
    return grid[generator.integers(0, len(grid), n)]


def clean_estimate(x_t: torch.Tensor, prediction: torch.Tensor, abar_n: torch.Tensor, kind: str) -> torch.Tensor:
    """x0_hat, the one-step estimate of x_0 [n, ...]; differentiable in the prediction.

    eps-prediction: ``(x_t - sqrt(1 - abar) eps) / sqrt(abar)``;
    v-prediction: ``sqrt(abar) x_t - sqrt(1 - abar) v``.

    Args:
        x_t: noised samples [n, ...].
        prediction: the network's output, as x_t.
        abar_n: cumulative product of the alphas at each row's step.
        kind: ``epsilon`` or ``v_prediction``.
    """
    abar = abar_n.reshape(-1, *[1] * (x_t.ndim - 1))
    if kind == "epsilon":
        return (x_t - (1 - abar).sqrt() * prediction) / abar.sqrt()
    if kind == "v_prediction":
        return abar.sqrt() * x_t - (1 - abar).sqrt() * prediction
    raise unknown_name("prediction", kind, ("epsilon", "v_prediction"))


def similarity(a_nd: torch.Tensor, b_nd: torch.Tensor, measure: str = "cosine") -> torch.Tensor:
    """Similarity of rows in [-1, 1], [n]; the rows need not be unit.

    ``cosine``, or ``euclidean``: 1 - ||a - b|| of the unit rows. The paper compares the two and does not give
    the second's formula; this one keeps the meaning of m = 1 (same) and m = -1 (opposite).
    """
    a, b = functional.normalize(a_nd), functional.normalize(b_nd)
    if measure == "cosine":
        return (a * b).sum(1)
    if measure == "euclidean":
        return 1 - ((a - b).square().sum(1) + DISTANCE_FLOOR).sqrt()
    raise unknown_name("similarity measure", measure, MEASURES)


def similarity_matching(
    restored_n: torch.Tensor, inquiry_n: torch.Tensor, m_n: torch.Tensor, t_n: torch.Tensor, num_steps: int
) -> torch.Tensor:
    """L_SimMat per row, [n]: ``(1 - t/T) (1 - restored)^2 + (t/T) (m - inquiry)^2``.

    Args:
        restored_n: similarity of x0_hat to the image that is being restored.
        inquiry_n: similarity of x0_hat to the inquiry. In the paper the two images are one and both
            arguments the same numbers; with pairs (modes relation and hybrid) the restored image is the
            other one of the pair.
        m_n: similarity factors.
        t_n: time steps, 0 ... T - 1.
        num_steps: T.
    """
    gamma = t_n / num_steps
    return (1 - gamma) * (1 - restored_n).square() + gamma * (m_n - inquiry_n).square()


def identity_matching(
    restored_n: torch.Tensor, inquiry_n: torch.Tensor, t_n: torch.Tensor, num_steps: int
) -> torch.Tensor:
    """DCFace's L_ID per row (arXiv 2304.07060), [n]: ``(1 - t/T) (1 - restored) + (t/T) (1 - inquiry)``.

    Near t = 0 the sample shall have the embedding of the image that is restored (the style image), near t = T that of
    the identity's. Arguments as of `similarity_matching`.
    """
    gamma = t_n / num_steps
    return (1 - gamma) * (1 - restored_n) + gamma * (1 - inquiry_n)


def total_loss(
    squared_error_n: torch.Tensor,
    matching_n: torch.Tensor | None,
    weight: float = LAMBDA,
    conditioned_n: torch.Tensor | None = None,
) -> torch.Tensor:
    """``mean(L_MSE) + lambda mean(L_SimMat)`` (or L_ID), a scalar.

    Args:
        squared_error_n: weighted squared error per row.
        matching_n: L_SimMat per row; None (mode relation) leaves it out.
        weight: lambda.
        conditioned_n: bool; rows whose condition was dropped for guidance take no part in L_SimMat (they
            count in its mean as 0).
    """
    loss = squared_error_n.mean()
    if matching_n is None:
        return loss
    if conditioned_n is not None:
        matching_n = torch.where(conditioned_n, matching_n, torch.zeros_like(matching_n))
    return loss + weight * matching_n.mean()


def _check_range(low: float, high: float) -> None:
    if not -1 <= low <= high <= 1:
        raise InputError(f"range of m [{low}, {high}]: inside [-1, 1], low before high")
