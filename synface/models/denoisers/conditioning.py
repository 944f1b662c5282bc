"""Conditions of a CemiFace denoiser: C_att = F2(cat(E_id(x), F1(m))), and the mean of x_0 given E_id(x)."""

import math
from typing import NamedTuple

import torch
from torch import nn

#: octaves of the Fourier features of m in the AdaGN form: 2**-1 ... 2**4 quarter turns per unit of m
OCTAVES = (-1.0, 4.0)
FREQUENCIES = 16
FACTOR_DIM = 64


class Condition(NamedTuple):
    """What one forward pass is conditioned on.

    Attributes:
        attention_nk: C_att, [n, condition_dim].
        mean_nchw: ridge mean of x_0, or None where the denoiser has none.
    """

    attention_nk: torch.Tensor
    mean_nchw: torch.Tensor | None


def choose(keep_n: torch.Tensor, condition: Condition, other: Condition) -> Condition:
    """Row by row `condition` where `keep_n` is true, else `other`: dropping conditions in training."""
    attention = torch.where(keep_n[:, None], condition.attention_nk, other.attention_nk)
    if condition.mean_nchw is None or other.mean_nchw is None:
        return Condition(attention, None)
    return Condition(attention, torch.where(keep_n[:, None, None, None], condition.mean_nchw, other.mean_nchw))


def concatenate(first: Condition, second: Condition) -> Condition:
    """Both batches one after the other."""
    attention = torch.cat([first.attention_nk, second.attention_nk])
    if first.mean_nchw is None or second.mean_nchw is None:
        return Condition(attention, None)
    return Condition(attention, torch.cat([first.mean_nchw, second.mean_nchw]))


def fourier_features(m_n: torch.Tensor) -> torch.Tensor:
    """m, sin and cos of m at geometric frequencies, [n, 1 + 2 FREQUENCIES]."""
    octave = torch.linspace(*OCTAVES, FREQUENCIES, dtype=m_n.dtype, device=m_n.device)
    angle = m_n[:, None] * torch.exp2(octave) * (math.pi / 2)
    return torch.cat([m_n[:, None], angle.sin(), angle.cos()], 1)


class Conditioner(nn.Module):
    """C_att = F2(cat(E_id(x), F1(m))), and a learned null condition for guidance (ours).

    For ``cross_attention`` F1 and F2 are linear (the paper, section 3); for ``adagn`` F1 is a small MLP on
    Fourier features and F2 an MLP, because a linear map of the scalar reaches the blocks too smoothly.
    The unit embedding is scaled by sqrt(d), so that its components have the size of F1's (ours).
    """

    def __init__(self, embedding_dim: int, condition_dim: int, linear: bool):
        super().__init__()
        self.linear, self.scale = linear, math.sqrt(embedding_dim)
        if linear:
            self.f1: nn.Module = nn.Linear(1, condition_dim)
            self.f2: nn.Module = nn.Linear(embedding_dim + condition_dim, condition_dim)
        else:
            inside = 1 + 2 * FREQUENCIES
            self.f1 = nn.Sequential(nn.Linear(inside, FACTOR_DIM), nn.SiLU(), nn.Linear(FACTOR_DIM, FACTOR_DIM))
            self.f2 = nn.Sequential(
                nn.Linear(embedding_dim + FACTOR_DIM, condition_dim),
                nn.SiLU(),
                nn.Linear(condition_dim, condition_dim),
            )
        self.null = nn.Parameter(torch.zeros(condition_dim))

    def forward(self, embedding_nd: torch.Tensor, m_n: torch.Tensor) -> torch.Tensor:
        """C_att [n, condition_dim] of unit embeddings [n, d] and similarity factors [n]."""
        factor = self.f1(m_n[:, None] if self.linear else fourier_features(m_n))
        return self.f2(torch.cat([embedding_nd * self.scale, factor], 1))


class RidgeMean(nn.Module):
    """A fixed affine map from the embedding to the mean of x_0, fitted by ``train.diffusion.RidgeSums``.

    A buffer, not a parameter: it is closed-form and no gradient changes it. Zero until it is filled.
    """

    def __init__(self, embedding_dim: int, shape: tuple[int, int, int]):
        super().__init__()
        self.shape = shape
        size = math.prod(shape)
        self.register_buffer("weight_dk", torch.zeros(embedding_dim, size))
        self.register_buffer("intercept_k", torch.zeros(size))
        self.weight_dk: torch.Tensor
        self.intercept_k: torch.Tensor

    def forward(self, embedding_nd: torch.Tensor) -> torch.Tensor:
        """Mean of x_0 [n, c, h, w] given embeddings [n, d] (unit, or scaled by m)."""
        return torch.addmm(self.intercept_k, embedding_nd, self.weight_dk).reshape(-1, *self.shape)

    def null(self, n: int) -> torch.Tensor:
        """Mean of x_0 when nothing is known, [n, c, h, w]."""
        return self.intercept_k.reshape(1, *self.shape).expand(n, *self.shape)
