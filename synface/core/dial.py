"""A true dial: from asked m to realised similarity and back, by monotone regression.

CemiFace's m is a bias: asked 0 it realises 0.285 on average. Measured once on a grid of m, the realised
similarity is fitted by the nearest rising curve (isotonic regression, `scipy.optimize.isotonic_regression`)
and inverted, so that a *target similarity* picks the m that gives it. Pure numpy; similarities are cosines to
the inquiry's embedding by a stated scorer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from synface.core.errors import InputError

#: variance of similarities that float32 rounding alone can make
ROUNDING = 1e-12


@dataclass(frozen=True)
class Dial:
    """Rising curves of realised similarity over asked m, straight between the knots.

    Attributes:
        m_g: asked m at the knots, ascending.
        curve_g: realised similarity of the population, not falling.
        curve_ig: one curve per calibrated identity, or None for a global dial.
        shrinkage_g: share in [0, 1] of the identity's own measurement in its curve, per knot; None if global.
    """

    m_g: np.ndarray
    curve_g: np.ndarray
    curve_ig: np.ndarray | None = None
    shrinkage_g: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able form; ``from_dict`` inverts it."""
        optional = {"curve_ig": self.curve_ig, "shrinkage_g": self.shrinkage_g}
        return {
            "m": self.m_g.tolist(),
            "realised": self.curve_g.tolist(),
            **{key: value.tolist() for key, value in optional.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Dial":
        """The dial that ``as_dict`` wrote."""
        extra = {k: np.array(data[k], np.float64) for k in ("curve_ig", "shrinkage_g") if k in data}
        return cls(np.array(data["m"], np.float64), np.array(data["realised"], np.float64), **extra)


@dataclass(frozen=True)
class Asked:
    """What to ask of the network for targets; out of reach: the nearest end, `reachable_n` false."""

    m_n: np.ndarray  # float64
    expected_n: np.ndarray  # float64, the realised similarity that the curve promises
    reachable_n: np.ndarray  # bool


@dataclass(frozen=True)
class DialError:
    """How well realised similarities follow their targets.

    Attributes:
        mean_absolute: mean over identities and targets of |identity mean - target|.
        bias: mean of identity mean - target.
        sample_std: root mean square of a sample's deviation from its identity's mean, unbiased.
        monotone_share: share of identities whose means rise (do not fall) with every target.
        slope: least-squares slope of realised over target, all identities together.
    """

    mean_absolute: float
    bias: float
    sample_std: float
    monotone_share: float
    slope: float


def fit(m_g: np.ndarray, realised_igk: np.ndarray, per_identity: bool = False) -> Dial:
    """Fit a dial to a calibration.

    A global dial is the isotonic regression of the means over identities and samples. A per-identity one
    first draws each identity's means towards the population's by the share that is noise (empirical Bayes:
    ``w = between / (between + within / samples)`` per knot) and then makes each curve rise.

    Args:
        m_g: asked m, strictly ascending, at least 2.
        realised_igk: measured similarity [identities, m, samples], finite.
        per_identity: also fit one curve per identity; needs 2 identities and 2 samples.

    Raises:
        InputError: shapes that disagree, values that are not finite, a grid that does not ascend.
    """
    m, realised = _checked(m_g, realised_igk)
    mean_ig = realised.mean(2)
    curve = isotonic_regression(mean_ig.mean(0)).x
    if not per_identity:
        return Dial(m, curve)
    identities, _, samples = realised.shape
    if identities < 2 or samples < 2:
        raise InputError(f"a dial per identity needs 2 identities and 2 samples, got {identities} and {samples}")
    within_g = realised.var(2, ddof=1).mean(0) / samples
    between_g = np.maximum(mean_ig.var(0, ddof=1) - within_g, 0)
    spread_g = between_g + within_g
    share_g = np.divide(between_g, spread_g, out=np.zeros_like(between_g), where=spread_g > ROUNDING)
    drawn_ig = mean_ig.mean(0) + share_g * (mean_ig - mean_ig.mean(0))
    curves = np.stack([isotonic_regression(row).x for row in drawn_ig])
    return Dial(m, curve, curves, share_g)


def identity_pays(m_g: np.ndarray, realised_igk: np.ndarray) -> tuple[float, float]:
    """Mean absolute error of identity means, (global, per identity), cross-validated over samples.

    Each half of the samples (even, odd) is predicted by curves fitted to the other half. A dial per
    identity pays where the second number is the smaller by more than its cost in measuring.

    Raises:
        InputError: fewer than 4 samples.
    """
    m, realised = _checked(m_g, realised_igk)
    if realised.shape[2] < 4:
        raise InputError(f"judging a dial per identity needs 4 samples at each m, got {realised.shape[2]}")
    halves = realised[:, :, 0::2], realised[:, :, 1::2]
    errors = []
    for seen, unseen in (halves, halves[::-1]):
        dial = fit(m, seen, per_identity=True)
        assert dial.curve_ig is not None
        truth_ig = unseen.mean(2)
        errors.append([np.abs(dial.curve_g - truth_ig).mean(), np.abs(dial.curve_ig - truth_ig).mean()])
    both = np.mean(errors, 0)
    return float(both[0]), float(both[1])


def promised(dial: Dial, m_n: np.ndarray, identity_n: np.ndarray | None = None) -> np.ndarray:
    """The similarity that the curve promises for asked m, float64 [n]; flat beyond the knots."""
    m_n = np.asarray(m_n, np.float64)
    curves = _curves(dial, len(m_n), identity_n)
    return np.array([np.interp(m, dial.m_g, curve) for m, curve in zip(m_n, curves, strict=True)])


def ask(dial: Dial, target_n: np.ndarray, identity_n: np.ndarray | None = None) -> Asked:
    """The m that realises each target similarity.

    Where the curve is flat at the target any m of the flat piece would do: its middle is taken.

    Args:
        dial: fitted.
        target_n: wanted realised similarities.
        identity_n: rows of ``dial.curve_ig`` for a per-identity dial, else None: the population's curve.
    """
    target = np.asarray(target_n, np.float64)
    if not (np.abs(target) <= 1).all():
        raise InputError("target similarity: inside [-1, 1]")
    curves = _curves(dial, len(target), identity_n)
    m = np.array([_inverse(dial.m_g, curve, y) for curve, y in zip(curves, target, strict=True)])
    low, high = np.array([c[0] for c in curves]), np.array([c[-1] for c in curves])
    expected = np.clip(target, low, high)
    return Asked(m, expected, (target >= low) & (target <= high))


def correct(
    dial: Dial, m_n: np.ndarray, measured_n: np.ndarray, target_n: np.ndarray, identity_n: np.ndarray | None = None
) -> np.ndarray:
    """One turn of the correction loop: m [n] after an identity's mean was measured at its first m.

    The measured deviation from the curve is taken as the identity's own offset:
    ``m' = ask(target - (measured - curve(m)))``. Exact where identities differ by a shift of the curve.
    """
    offset = np.asarray(measured_n, np.float64) - promised(dial, m_n, identity_n)
    return ask(dial, np.clip(np.asarray(target_n, np.float64) - offset, -1, 1), identity_n).m_n


def evaluate(target_t: np.ndarray, realised_itk: np.ndarray) -> DialError:
    """Errors of realised similarities [identities, targets, samples] against ascending targets."""
    target, measured = _checked(target_t, realised_itk)
    mean_it = measured.mean(2)
    gap = mean_it - target
    samples = measured.shape[2]
    std = float(np.sqrt(measured.var(2, ddof=1).mean())) if samples > 1 else float("nan")
    centred = target - target.mean()
    slope = float((mean_it @ centred).mean() / (centred @ centred))
    rising = float((np.diff(mean_it, axis=1) >= 0).all(1).mean())
    return DialError(float(np.abs(gap).mean()), float(gap.mean()), std, rising, slope)


def dial_slope(m_g: np.ndarray, realised_igk: np.ndarray, low: float = 0.0, high: float = 1.0) -> float:
    """Least-squares slope of realised similarity over asked m within [low, high]."""
    m, measured = _checked(m_g, realised_igk)
    inside = (m >= low - 1e-9) & (m <= high + 1e-9)
    if inside.sum() < 2:
        raise InputError(f"slope over m in [{low}, {high}]: the grid has {int(inside.sum())} values there, needs 2")
    return evaluate(m[inside], measured[:, inside]).slope


def mislabelled(sample_nd: np.ndarray, label_n: np.ndarray, centre_id: np.ndarray, tile: int = 2048) -> np.ndarray:
    """Whether each sample is nearer (by cosine) to another identity than to its own, bool [n].

    Args:
        sample_nd: unit embeddings of samples.
        label_n: row of each sample's own identity in `centre_id`.
        centre_id: unit embeddings of the identities.
        tile: samples at a time; memory tile x identities.
    """
    out = np.empty(len(sample_nd), bool)
    for start in range(0, len(sample_nd), tile):
        rows = np.arange(start, min(start + tile, len(sample_nd)))
        cos = sample_nd[rows] @ centre_id.T
        own = cos[np.arange(len(rows)), label_n[rows]].copy()
        cos[np.arange(len(rows)), label_n[rows]] = -np.inf
        out[rows] = cos.max(1) > own
    return out


def _curves(dial: Dial, n: int, identity_n: np.ndarray | None) -> list[np.ndarray]:
    if identity_n is None:
        return [dial.curve_g] * n
    if dial.curve_ig is None:
        raise InputError("this dial was calibrated for the population: it has no curves of identities")
    return [dial.curve_ig[int(i)] for i in identity_n]


def _inverse(m_g: np.ndarray, curve_g: np.ndarray, target: float) -> float:
    """Middle of the set of m where the straight-line curve equals the clipped target."""
    y = min(max(target, curve_g[0]), curve_g[-1])
    last_below = int(np.searchsorted(curve_g, y, side="left"))  # first knot >= y
    first_above = int(np.searchsorted(curve_g, y, side="right")) - 1  # last knot <= y
    if last_below <= first_above:  # knots equal to y
        return float((m_g[last_below] + m_g[first_above]) / 2)
    share = (y - curve_g[first_above]) / (curve_g[last_below] - curve_g[first_above])
    return float(m_g[first_above] + share * (m_g[last_below] - m_g[first_above]))


def _checked(grid: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(grid, np.float64), np.asarray(values, np.float64)
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all():
        raise InputError("asked values: at least 2, strictly ascending")
    if y.ndim != 3 or y.shape[1] != len(x) or 0 in y.shape:
        raise InputError(f"realised similarities {list(y.shape)}: [identities, {len(x)}, samples] expected")
    if not np.isfinite(y).all():
        raise InputError("realised similarities: not all finite (samples that could not be scored must be left out)")
    return x, y
