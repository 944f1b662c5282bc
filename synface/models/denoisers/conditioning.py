"""Conditions of a denoiser: CemiFace's C_att, IDiff-Face's context, DCFace's two; the mean of x_0 given E_id(x)."""

import math
from typing import NamedTuple

import torch
from torch import nn

#: octaves of the Fourier features of m in the AdaGN form: 2**-1 ... 2**4 quarter turns per unit of m
OCTAVES = (-1.0, 4.0)
FREQUENCIES = 16
FACTOR_DIM = 64
#: degrees that count as one unit of an angle
POSE_UNIT = 90.0


class Condition(NamedTuple):
    """What one forward pass is conditioned on.

    Attributes:
        attention_nk: C_att, [n, condition_dim]; of a context its tokens, [n, tokens, condition_dim].
        mean_nchw: ridge mean of x_0, or None where the denoiser has none.
        time_nk: added to the time embedding, or None.
    """

    attention_nk: torch.Tensor
    mean_nchw: torch.Tensor | None
    time_nk: torch.Tensor | None = None


def choose(keep_n: torch.Tensor, condition: Condition, other: Condition) -> Condition:
    """Row by row `condition` where `keep_n` is true, else `other`: dropping conditions in training."""

    def chosen(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
        return None if a is None or b is None else torch.where(keep_n.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return Condition(*map(chosen, condition, other))  # type: ignore[arg-type]


def concatenate(first: Condition, second: Condition) -> Condition:
    """Both batches one after the other."""

    def joined(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return Condition(*map(joined, first, second))  # type: ignore[arg-type]


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


class PoseCondition(nn.Module):
    """Angles of the head as a vector that is added to what the network is conditioned on (ours).

    An MLP on the Fourier features of the angles in units of 90 degrees, 0 at first. A row without a pose adds 0: with
    poses dropped in training that is "any pose", and the weights draw without one as well.
    """

    def __init__(self, angles: int, condition_dim: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(angles * (1 + 2 * FREQUENCIES), FACTOR_DIM), nn.SiLU(), nn.Linear(FACTOR_DIM, condition_dim)
        )
        nn.init.zeros_(self.mlp[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp[2].bias)  # type: ignore[arg-type]

    def forward(self, pose_na: torch.Tensor) -> torch.Tensor:
        """[n, condition_dim] of angles in degrees [n, a]; NaN: not given."""
        known_n1 = torch.isfinite(pose_na).all(1, keepdim=True)
        units = torch.where(known_n1, pose_na, torch.zeros_like(pose_na)) / POSE_UNIT
        features = torch.cat([fourier_features(angle_n) for angle_n in units.unbind(1)], 1)
        return torch.where(known_n1, self.mlp(features), 0)


def pose_features(pose_na: torch.Tensor) -> torch.Tensor:
    """Sine and 1 - cosine of each angle in degrees, [n, 2 a]."""
    angle_na = torch.deg2rad(pose_na)
    return torch.cat([angle_na.sin(), 1 - angle_na.cos()], 1)


class PoseMean(nn.Module):
    """What a pose adds to the mean of x_0: a fixed affine map of `pose_features`, fitted by ``RidgeSums`` (ours).

    The vector of `PoseCondition` tells every place the same; from it alone 1,500 steps learned no yaw
    (docs/generators.md, Pose). A buffer, as in `RidgeMean`; zero until it is filled. Its mean over the training
    pictures is 0, and so is what a row without a pose adds.
    """

    def __init__(self, angles: int, shape: tuple[int, int, int]):
        super().__init__()
        self.shape = shape
        size = math.prod(shape)
        self.register_buffer("weight_fk", torch.zeros(2 * angles, size))
        self.register_buffer("offset_k", torch.zeros(size))
        self.weight_fk: torch.Tensor
        self.offset_k: torch.Tensor

    def forward(self, pose_na: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] of angles in degrees [n, a]; NaN: not given."""
        known_n1 = torch.isfinite(pose_na).all(1, keepdim=True)
        features = pose_features(torch.where(known_n1, pose_na, torch.zeros_like(pose_na)))
        added = torch.addmm(self.offset_k, features, self.weight_fk)
        return torch.where(known_n1, added, 0).reshape(-1, *self.shape)


def partial_dropout(context_nk: torch.Tensor, kept_nk: torch.Tensor, share: float) -> torch.Tensor:
    """Contextual partial dropout (IDiff-Face, arXiv 2308.04995), [n, k]: ``kept * context / (1 - share)``.

    Args:
        context_nk: contexts.
        kept_nk: bool; each component is false with probability `share`, independently.
        share: 0.25 (CPD25) or 0.5 (CPD50) in the paper. In expectation the context stays what it is.
    """
    return context_nk * kept_nk / (1 - share)


class Context(nn.Module):
    """IDiff-Face's context: a linear map of E(x) whose components are dropped in training, as tokens to attend to.

    The published blocks each expand the context to tokens of their own; here one map serves all (ours), and the unit
    embedding is scaled by sqrt(d) as in `Conditioner` (ours). Without an identity the context is a learned null,
    0 at first as the released code's fixed one.
    """

    def __init__(self, embedding_dim: int, condition_dim: int, tokens: int, dropout: float):
        super().__init__()
        self.shape, self.dropout, self.scale = (tokens, condition_dim), dropout, math.sqrt(embedding_dim)
        self.linear = nn.Linear(embedding_dim, condition_dim)
        self.tokens = nn.Linear(condition_dim, tokens * condition_dim)
        self.norm = nn.LayerNorm(condition_dim)
        self.null = nn.Parameter(torch.zeros(condition_dim))

    def forward(self, embedding_nd: torch.Tensor, kept_nk: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens [n, tokens, condition_dim] of unit embeddings [n, d]; `kept_nk` is given in training alone."""
        context = self.linear(embedding_nd * self.scale)
        return self.expand(context if kept_nk is None else partial_dropout(context, kept_nk, self.dropout))

    def expand(self, context_nk: torch.Tensor) -> torch.Tensor:
        """The tokens of contexts."""
        return self.norm(self.tokens(context_nk).reshape(-1, *self.shape))


class SharedContext(nn.Module):
    """The context of IDiff-Face's release, which each block expands by itself; nobody is 0, as there."""

    def __init__(self, embedding_dim: int, condition_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.linear = nn.Linear(embedding_dim, condition_dim)
        self.register_buffer("null", torch.zeros(condition_dim), persistent=False)
        self.null: torch.Tensor

    def forward(self, embedding_nd: torch.Tensor, kept_nk: torch.Tensor | None = None) -> torch.Tensor:
        """[n, condition_dim] of unit embeddings [n, d]; `kept_nk` is given in training alone."""
        context = self.linear(embedding_nd)
        return context if kept_nk is None else partial_dropout(context, kept_nk, self.dropout)


def patch_statistics(x_nchw: torch.Tensor, grid: int) -> torch.Tensor:
    """DCFace's style (arXiv 2304.07060): mean and standard deviation of every channel, whole and patch by patch.

    Args:
        x_nchw: a fixed feature map of the style image.
        grid: patches a side, a divisor of h and w; the finer, the more of the image its style holds.

    Returns:
        [n, 1 + grid^2, 2 c]: the whole map, then the patches row by row; means, then standard deviations.
    """
    n, c, h, w = x_nchw.shape
    cells = x_nchw.reshape(n, c, grid, h // grid, grid, w // grid).transpose(3, 4).reshape(n, c, grid * grid, -1)
    parts = [torch.std_mean(part, -1, correction=0) for part in (x_nchw.reshape(n, c, 1, -1), cells)]
    return torch.cat([torch.cat([mean, std], 1) for std, mean in parts], 2).transpose(1, 2)


class DualCondition(nn.Module):
    """DCFace's two conditions: tokens of the identity and of a style image, and the identity for the time embedding.

    The paper takes the identity's tokens from a feature map of its image; here they come from the embedding, so that a
    packed point is an identity too. Its style is that of an early layer of a recognizer; here of the denoiser's own
    space, which travels with the weights. Both are ours, and so is a learned null condition. What is added to the time
    embedding is 0 at first (in the released code next to it).
    """

    def __init__(self, embedding_dim: int, condition_dim: int, tokens: int, channels: int, grid: int, time_dim: int):
        super().__init__()
        self.shape, self.grid, self.scale = (tokens, condition_dim), grid, math.sqrt(embedding_dim)
        self.identity = nn.Linear(embedding_dim, tokens * condition_dim)
        self.identity_norm = nn.LayerNorm(condition_dim)
        self.style = nn.Linear(2 * channels, condition_dim)
        self.position = nn.Parameter(0.02 * torch.randn(1 + grid * grid, condition_dim))
        self.style_norm = nn.LayerNorm(condition_dim)
        self.time = nn.Linear(embedding_dim, time_dim)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)
        self.null = nn.Parameter(torch.zeros(condition_dim))

    def forward(self, embedding_nd: torch.Tensor, style_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n, tokens + 1 + grid^2, condition_dim] and [n, time_dim] of embeddings and style samples."""
        x = embedding_nd * self.scale
        identity = self.identity_norm(self.identity(x).reshape(-1, *self.shape))
        style = self.style_norm(self.style(patch_statistics(style_nchw, self.grid)) + self.position)
        return torch.cat([identity, style], 1), self.time(x)

    def nobody(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of nobody in no style."""
        count = self.shape[0] + len(self.position)
        return self.null.expand(n, count, -1), self.null.new_zeros(n, self.time.out_features)


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
