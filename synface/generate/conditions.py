"""What each sample of an identity is conditioned on: similarity factors, perturbed embeddings, mixtures.

Every draw is keyed by ``(seed, identity_id, sample, stream)``: sample 7 is the same whether 8 or 64 are
asked for, on any worker. Pure: no files, no configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synface.core import rng, sphere
from synface.core.errors import InputError

Key = tuple[rng.KeyPart, ...]
FACTOR_STREAM = "similarity-factor"
DIRECTION_STREAM = "direction"
COSINE_STREAM = "cone-cosine"
PARENTS_STREAM = "parents"
SHARE_STREAM = "share"
NEGATIVE_STREAM = "negative"


@dataclass(frozen=True)
class Fixed:
    """Every sample gets `value` (the paper's generation: 0)."""

    value: float

    def __post_init__(self) -> None:
        check_factor(self.value)


@dataclass(frozen=True)
class Range:
    """Uniform in [low, high], drawn per sample (the paper tried [0, 0.1] and [-0.1, 0.1])."""

    low: float
    high: float

    def __post_init__(self) -> None:
        check_factor(self.low)
        check_factor(self.high)
        if self.low > self.high:
            raise InputError(f"range of m [{self.low}, {self.high}]: low before high")


@dataclass(frozen=True)
class Schedule:
    """Sample k gets ``values[k % len(values)]``: a fixed mix in every identity, whatever the seed."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("schedule of m: at least one value")
        for value in self.values:
            check_factor(value)


@dataclass(frozen=True)
class Mixture:
    """One of `parts` drawn per sample, with probabilities proportional to `weights`."""

    parts: "tuple[Fixed | Range | Schedule, ...]"
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.weights):
            raise InputError(f"mixture of m: {len(self.parts)} parts need as many weights, got {len(self.weights)}")
        if not all(np.isfinite(w) and w >= 0 for w in self.weights) or not sum(self.weights) > 0:
            raise InputError(f"mixture of m: weights {self.weights} must not be negative nor all 0")


Factors = Fixed | Range | Schedule | Mixture


@dataclass(frozen=True)
class SubjectRows:
    """The samples of one identity in order; the arrays are equally long."""

    sample_n: np.ndarray  # int64, the sample's number in the dataset
    inquiry_n: np.ndarray  # bool, a copy of the inquiry image instead of a generated one
    draw_n: np.ndarray  # int64, the sample number in the keys of noise and condition; -1 for copies


def check_factor(m: float) -> None:
    """InputError unless m is in [-1, 1]."""
    if not -1 <= m <= 1:
        raise InputError(f"m = {m}: a similarity factor lies in [-1, 1]")


def factors(
    spec: Factors,
    seed: int,
    identity_id: str,
    sample_n: Sequence[int] | np.ndarray,
    stream: str = FACTOR_STREAM,
) -> np.ndarray:
    """Similarity factors of some samples of one identity, float32 [n]; each depends on its own number alone.

    Another `stream` draws other numbers in [-1, 1] in the same way, e.g. angles in units of 90 degrees.
    """
    return np.array([_factor(spec, seed, identity_id, int(k), stream) for k in sample_n], np.float32)


def _factor(spec: Factors, seed: int, identity_id: str, sample: int, stream: str) -> float:
    generator = rng.generator(seed, identity_id, sample, stream)
    if isinstance(spec, Mixture):
        edges = np.cumsum(spec.weights) / sum(spec.weights)
        part = int(np.searchsorted(edges, generator.random(), side="right"))
        spec = spec.parts[min(part, len(spec.parts) - 1)]
    if isinstance(spec, Fixed):
        return spec.value
    if isinstance(spec, Schedule):
        return spec.values[sample % len(spec.values)]
    return generator.uniform(spec.low, spec.high)


def subject_rows(num_generated: int, inquiry_repeats: int = 0) -> SubjectRows:
    """The samples of an identity: `inquiry_repeats` copies of its inquiry, then the generated ones.

    DCFace and CemiFace train with the inquiry repeated 5 times. The copies come first and have no part in
    the keys of the others, so that neither more samples nor more copies change a generated image.
    """
    if num_generated < 0 or inquiry_repeats < 0:
        raise InputError(f"{num_generated} generated samples, {inquiry_repeats} repeats: both at least 0")
    sample = np.arange(inquiry_repeats + num_generated)
    inquiry = sample < inquiry_repeats
    return SubjectRows(sample, inquiry, np.where(inquiry, -1, sample - inquiry_repeats))


def directions(seed: int, keys: Sequence[Key], dim: int) -> np.ndarray:
    """Standard normal vectors, float64 [n, dim], one per key."""
    return rng.normal_rows(seed, [(*key, DIRECTION_STREAM) for key in keys], (dim,)).astype(np.float64)


def gaussian_perturbed(x_nd: np.ndarray, beta: float | np.ndarray, seed: int, keys: Sequence[Key]) -> np.ndarray:
    """HyperFace's ``normalize(x_ref + beta v)``, v ~ N(0, I), float32 [n, d]; one key per row.

    The cosine to x_ref is ``(1 + beta v1) / ||x_ref + beta v||``, about ``1 / sqrt(1 + beta^2 (d - 1))``: it
    depends on d, so that one beta means another spread in 512 dimensions than in 256.
    """
    beta_n1 = np.broadcast_to(np.asarray(beta, np.float64), (len(x_nd),))[:, None]
    if not (np.isfinite(beta_n1).all() and (beta_n1 >= 0).all()):
        raise InputError(f"beta = {beta}: a finite number from 0 on")
    x = np.asarray(x_nd, np.float64)
    return sphere.normalize(x + beta_n1 * directions(seed, keys, x.shape[1])).astype(np.float32)


def cone_perturbed(x_nd: np.ndarray, cosine_n: np.ndarray, seed: int, keys: Sequence[Key]) -> np.ndarray:
    """IDperturb's ``cos(theta) x + sin(theta) u``, u a random unit vector orthogonal to x; float32 [n, d].

    Its cosine to x is `cosine_n`, exactly (to float32's rounding). arXiv 2602.18831, section 3.
    """
    cosine = np.asarray(cosine_n, np.float64)[:, None]
    if not (np.abs(cosine) <= 1).all():
        raise InputError("cosine of a cone: inside [-1, 1]")
    x = sphere.normalize(np.asarray(x_nd, np.float64))
    v = directions(seed, keys, x.shape[1])
    u = sphere.normalize(v - (v * x).sum(1, keepdims=True) * x)
    u = sphere.normalize(u - (u * x).sum(1, keepdims=True) * x)  # once more: the first pass leaves rounding
    return (cosine * x + np.sqrt(1 - cosine**2) * u).astype(np.float32)


def non_overlap_bound(nearest_cosine_n: np.ndarray) -> np.ndarray:
    """The least cosine whose cone cannot reach a neighbour's, ``cos(angle / 2) = sqrt((1 + c) / 2)``, [n].

    With half-angles up to half the angle to the nearest other identity, any two cones have at most their
    boundary in common: a sample is nearest its own identity. No identity set allows less than
    ``sqrt(1 / 2) = 0.707`` unless its nearest cosines are negative (more points than d + 1 cannot all be).
    """
    return np.sqrt((1 + np.clip(np.asarray(nearest_cosine_n, np.float64), -1, 1)) / 2)


def cone_cosines(
    seed: int, keys: Sequence[Key], lower: float | np.ndarray, bound_n: np.ndarray | None = None
) -> np.ndarray:
    """IDperturb's ``s ~ U[max(lower, bound), 1]``, float64 [n], one key per row."""
    low_n = np.broadcast_to(np.asarray(lower, np.float64), (len(keys),))
    if not ((low_n >= -1) & (low_n <= 1)).all():
        raise InputError(f"lower bound of the cosine {lower}: inside [-1, 1]")
    if bound_n is not None:
        low_n = np.maximum(low_n, bound_n)
    share_n = np.array([rng.generator(seed, *key, COSINE_STREAM).random() for key in keys])
    return low_n + (1 - low_n) * share_n


def parents(seed: int, keys: Sequence[Key], size: int) -> np.ndarray:
    """Two different identities of `size` for each mixed one, uniform, int64 [n, 2]."""
    if size < 2:
        raise InputError(f"mixing needs at least 2 identities, got {size}")
    out = np.empty((len(keys), 2), np.int64)
    for row, key in enumerate(keys):
        generator = rng.generator(seed, *key, PARENTS_STREAM)
        first, other = generator.integers(0, size), generator.integers(0, size - 1)
        out[row] = first, other + (other >= first)
    return out


def others(seed: int, identity_ids: Sequence[str]) -> np.ndarray:
    """For each identity the row of another one, uniform, int64 [n]: NegFaceDiff's random negatives.

    Keyed by (seed, identity): a function of whom the run has and in which order, not of the samples asked.
    """
    size = len(identity_ids)
    if size < 2:
        raise InputError(f"another identity for each: at least 2 are needed, got {size}")
    step = [int(rng.generator(seed, name, NEGATIVE_STREAM).integers(1, size)) for name in identity_ids]
    return (np.arange(size) + step) % size


def shares(seed: int, keys: Sequence[Key], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Share of the first parent, uniform in [low, high], float64 [n]."""
    if not 0 <= low <= high <= 1:
        raise InputError(f"share of the first parent [{low}, {high}]: inside [0, 1], low before high")
    return np.array([rng.generator(seed, *key, SHARE_STREAM).uniform(low, high) for key in keys])


def mixed(a_nd: np.ndarray, b_nd: np.ndarray, share_n: np.ndarray | float) -> np.ndarray:
    """SynFace's mixup of two identities, ``normalize(share a + (1 - share) b)``, float32 [n, d].

    Raises:
        InputError: opposite identities mixed half and half: no direction is left.
    """
    share = np.broadcast_to(np.asarray(share_n, np.float64), (len(a_nd),))[:, None]
    mix = share * np.asarray(a_nd, np.float64) + (1 - share) * np.asarray(b_nd, np.float64)
    if (np.linalg.norm(mix, axis=1) < 1e-6).any():
        raise InputError("mixup of opposite identities in equal shares has no direction; change the share")
    return sphere.normalize(mix).astype(np.float32)
