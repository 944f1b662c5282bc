"""Margin losses on the hypersphere: cosines to scaled logits.

All are ``logit_j = s * cos theta_j`` for the other classes; only the target's cosine is changed:

=========  ==================================================  ==========================================
softmax    cos t                                               Wang et al., "NormFace", ACM MM 2017
cosface    cos t - m                                           Wang et al., CVPR 2018, eq. 4
arcface    cos(t + m)                                          Deng et al., CVPR 2019, eq. 3
combined   cos(m1 t + m2) - m3                                 Deng et al., CVPR 2019, eq. 4
adaface    cos(t - m z) - (m + m z), z from the feature norm   Kim et al., CVPR 2022, eq. 10-12
=========  ==================================================  ==========================================

Gradients are textbook (autograd of the formula) by default. ``straight_through`` is what insightface's code
does: the forward value is the formula, the gradient that of ``s * cos t``.

A label of -1 marks a row whose class is not among the columns (sharded heads): it gets no margin.
"""

import math
from collections.abc import Callable

import torch

#: cosines are kept this far from +-1, where arccos has no derivative
COSINE_EPS = 1e-6
#: AdaFace: angles stay in [eps, pi - eps], norms in [NORM_MIN, NORM_MAX]
ANGLE_EPS = 1e-3
NORM_MIN, NORM_MAX = 1e-3, 100.0


def softmax_target(cos_n: torch.Tensor) -> torch.Tensor:
    """No margin."""
    return cos_n


def cosface_target(cos_n: torch.Tensor, m: float) -> torch.Tensor:
    """``cos t - m``."""
    return cos_n - m


def angle(cos_n: torch.Tensor) -> torch.Tensor:
    """arccos, finite in value and gradient at +-1."""
    return torch.arccos(cos_n.clamp(-1 + COSINE_EPS, 1 - COSINE_EPS))


def combined_target(cos_n: torch.Tensor, m1: float, m2: float, m3: float) -> torch.Tensor:
    """``cos(m1 t + m2) - m3``. Past ``m1 t + m2 > pi`` the value rises again, as in the paper's formula."""
    return torch.cos(m1 * angle(cos_n) + m2) - m3


def arcface_target(cos_n: torch.Tensor, m: float) -> torch.Tensor:
    """``cos(t + m)``."""
    return combined_target(cos_n, 1.0, m, 0.0)


def adaface_quality(
    norm_n: torch.Tensor, mean: torch.Tensor | float, std: torch.Tensor | float, h: float
) -> torch.Tensor:
    """The quality z = clip((norm - mean) / (std + 1e-3) * h, -1, 1), without gradient."""
    norm_n = norm_n.detach().clamp(NORM_MIN, NORM_MAX)
    return ((norm_n - mean) / (std + 1e-3) * h).clamp(-1, 1)


def adaface_target(cos_n: torch.Tensor, z_n: torch.Tensor, m: float) -> torch.Tensor:
    """``cos(t - m z) - (m + m z)``, the angle kept in [1e-3, pi - 1e-3]."""
    shifted = (angle(cos_n) - m * z_n).clamp(ANGLE_EPS, math.pi - ANGLE_EPS)
    return torch.cos(shifted) - (m + m * z_n)


def adaface_statistics(
    norm_n: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, t_alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The moving mean and standard deviation of the feature norms after one batch.

    ``t_alpha`` is the weight of the new batch (0.01 in the published training; 1: no average). A batch of
    one has no deviation and leaves it.
    """
    norm_n = norm_n.detach().clamp(NORM_MIN, NORM_MAX)
    new_mean = t_alpha * norm_n.mean() + (1 - t_alpha) * mean
    new_std = t_alpha * norm_n.std() + (1 - t_alpha) * std if len(norm_n) > 1 else std
    return new_mean, new_std


def place_target(
    cos_nc: torch.Tensor,
    labels_n: torch.Tensor,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    s: float,
    straight_through: bool = False,
) -> torch.Tensor:
    """``s * cos`` with each row's target cosine replaced by ``change(target, rows)``.

    Args:
        cos_nc: cosines [n, classes], float32.
        labels_n: class of each row, int64; -1: none of these.
        change: (target cosines [k], their row numbers [k]) -> new target cosines [k].
        s: scale.
        straight_through: gradient of the unchanged cosine (see the module's text).
    """
    rows = torch.nonzero(labels_n >= 0).squeeze(1)
    columns = labels_n[rows]
    target = cos_nc[rows, columns]
    changed = change(target, rows)
    if straight_through:
        changed = target + (changed - target).detach()
    return s * cos_nc.index_put((rows, columns), changed)


def softmax(cos_nc, labels_n, norms_n=None, *, s=64.0, straight_through=False):
    """Scaled logits [n, classes] of normalised softmax."""
    return s * cos_nc


def cosface(cos_nc, labels_n, norms_n=None, *, s=64.0, m=0.35, straight_through=False):
    """Scaled logits [n, classes] of CosFace."""
    return place_target(cos_nc, labels_n, lambda t, _: cosface_target(t, m), s, straight_through)


def arcface(cos_nc, labels_n, norms_n=None, *, s=64.0, m=0.5, straight_through=False):
    """Scaled logits [n, classes] of ArcFace."""
    return place_target(cos_nc, labels_n, lambda t, _: arcface_target(t, m), s, straight_through)


def combined(cos_nc, labels_n, norms_n=None, *, s=64.0, m1=1.0, m2=0.3, m3=0.2, straight_through=False):
    """Scaled logits [n, classes] of the combined margin."""
    return place_target(cos_nc, labels_n, lambda t, _: combined_target(t, m1, m2, m3), s, straight_through)


def adaface(cos_nc, labels_n, norms_n, *, mean, std, s=64.0, m=0.4, h=0.333, straight_through=False):
    """Scaled logits [n, classes] of AdaFace, given the moving statistics of the norms."""
    z_n = adaface_quality(norms_n, mean, std, h)
    return place_target(cos_nc, labels_n, lambda t, rows: adaface_target(t, z_n[rows], m), s, straight_through)


#: name -> logits(cos_nc, labels_n, norms_n, **settings)
MARGINS: dict[str, Callable[..., torch.Tensor]] = {
    "softmax": softmax,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "adaface": adaface,
}
