"""Verification scores: the field's 10-fold accuracy, ROC, TAR@FAR, EER, AUC, intervals.

A *pair* is two images and whether they show the same person (genuine) or not (impostor). Everything but
the 10-fold accuracy works on a *similarity* score (cosine; higher = more alike) and accepts a pair when
``score >= threshold``. The 10-fold accuracy works on the squared L2 distance ``2 - 2 cos`` and accepts
when ``distance < threshold``, because that is what the published numbers were made with.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

#: the field's grid of squared L2 distances: 0, 0.01, ..., 3.99 (with the rounding of numpy.arange)
THRESHOLDS = np.arange(0, 4, 0.01)
FOLDS = 10

FarRule = Literal["strict", "nearest"]
FAR_RULES: tuple[FarRule, ...] = ("strict", "nearest")


@dataclass(frozen=True)
class FoldAccuracy:
    """Result of `fold_accuracy`; `accuracy` and `std` (population) are over the folds."""

    accuracy: float
    std: float
    accuracy_f: np.ndarray  # [folds]
    threshold_f: np.ndarray  # [folds], squared L2
    correct_n: np.ndarray  # bool [n]: each pair judged with its own fold's threshold


@dataclass(frozen=True)
class Roc:
    """Every operating point, from accept-nothing to accept-all; `threshold_k` falls, the rates rise."""

    threshold_k: np.ndarray  # float64 [k]; the first is +inf
    far_k: np.ndarray  # share of impostor pairs with score >= threshold
    tar_k: np.ndarray  # share of genuine pairs with score >= threshold


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold and what it gives; `far` is the FAR reached, not the one asked for."""

    threshold: float
    far: float
    tar: float


def flip_sum(features_nd: np.ndarray, flipped_nd: np.ndarray) -> np.ndarray:
    """Unit-norm sum of an image's features and its mirror image's, float64 [n, d].

    In float64, rows of zero norm left at zero: the order of operations of the field's scripts.
    """
    return unit_rows(np.asarray(features_nd, np.float64) + np.asarray(flipped_nd, np.float64))


def unit_rows(x_nd: np.ndarray) -> np.ndarray:
    """Rows divided by their L2 norm, float64; zero rows stay zero."""
    x = np.asarray(x_nd, np.float64)
    norm_n = np.sqrt(np.einsum("nd,nd->n", x, x))
    norm_n[norm_n == 0] = 1.0
    return x / norm_n[:, None]


def squared_distance(a_nd: np.ndarray, b_nd: np.ndarray) -> np.ndarray:
    """Squared L2 distance row by row, float64 [n]; equals ``2 - 2 cos`` for unit rows."""
    return np.sum(np.square(np.asarray(a_nd, np.float64) - np.asarray(b_nd, np.float64)), 1)


def fold_bounds(n: int, folds: int = FOLDS) -> np.ndarray:
    """Edges [folds + 1] of consecutive folds of n pairs; the first ``n % folds`` hold one more."""
    if not 2 <= folds <= n:
        raise ValueError(f"{folds} folds need at least {max(folds, 2)} pairs, got {n}")
    size_f = np.full(folds, n // folds)
    size_f[: n % folds] += 1
    return np.concatenate([[0], np.cumsum(size_f)])


def fold_accuracy(
    distance_n: np.ndarray, same_n: np.ndarray, folds: int = FOLDS, thresholds_t: np.ndarray = THRESHOLDS
) -> FoldAccuracy:
    """10-fold verification accuracy exactly as the field computes it.

    For each of `folds` consecutive folds (no shuffle) the threshold is the first of `thresholds_t` that
    decides most pairs of the *other* folds rightly (same when ``distance < threshold``); it then judges
    the fold. Counting every threshold at once from one histogram per fold gives the same integers as a
    loop over thresholds and folds, so that the result equals insightface's `verification.py` bit by bit.

    Args:
        distance_n: squared L2 distance of each pair's embeddings, finite.
        same_n: bool, genuine or impostor.
        folds: number of folds; at most one per pair.
        thresholds_t: ascending distances to choose from.

    Raises:
        ValueError: distances not finite, lengths differ, or fewer pairs than folds.
    """
    distance, same = _checked(distance_n, same_n)
    edges = fold_bounds(len(distance), folds)
    count = len(thresholds_t)
    # the first threshold above the distance: this pair is accepted from there on
    accepted_from = np.searchsorted(thresholds_t, distance, side="right")
    fold_n = np.repeat(np.arange(folds), np.diff(edges))
    # an accepted genuine pair gains one right decision, an accepted impostor loses one
    change_ft = np.zeros((folds, count + 1), np.int64)
    np.add.at(change_ft, (fold_n, accepted_from), np.where(same, 1, -1))
    impostors_f = np.bincount(fold_n, ~same, folds).astype(np.int64)
    right_ft = impostors_f[:, None] + np.cumsum(change_ft, 1)[:, :count]
    best_f = np.argmax(right_ft.sum(0) - right_ft, 1)
    accuracy_f = right_ft[np.arange(folds), best_f] / np.diff(edges)
    correct = (accepted_from <= best_f[fold_n]) == same
    return FoldAccuracy(
        float(np.mean(accuracy_f)), float(np.std(accuracy_f)), accuracy_f, thresholds_t[best_f], correct
    )


def roc(score_n: np.ndarray, same_n: np.ndarray) -> Roc:
    """All operating points of similarity scores: one per distinct score, and accept-nothing.

    Raises:
        ValueError: scores not finite, or one of the two classes is missing.
    """
    score, same = _checked(score_n, same_n)
    _both_classes(same)
    order = np.argsort(-score, kind="stable")
    score, same = score[order], same[order]
    last_k = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # last pair of each tie
    genuine_k, impostor_k = np.cumsum(same)[last_k], np.cumsum(~same)[last_k]
    return Roc(
        np.concatenate([[np.inf], score[last_k]]),
        np.concatenate([[0.0], impostor_k / impostor_k[-1]]),
        np.concatenate([[0.0], genuine_k / genuine_k[-1]]),
    )


def tar_at_far(curve: Roc, far: float, rule: FarRule = "strict") -> OperatingPoint:
    """The operating point for a target FAR.

    ``strict``: the loosest threshold whose FAR does not exceed the target (the FAR promised is kept).
    ``nearest``: the threshold whose FAR is nearest the target, which may exceed it; of two equally near
    the looser, as common IJB scripts do. Both take the highest TAR at equal FAR.

    Raises:
        ValueError: a target outside [0, 1] or an unknown rule.
    """
    if not 0 <= far <= 1:
        raise ValueError(f"FAR must be in [0, 1], got {far}")
    if rule == "strict":
        index = int(np.searchsorted(curve.far_k, far, side="right")) - 1
    elif rule == "nearest":
        gap_k = np.abs(curve.far_k - far)
        index = len(gap_k) - 1 - int(np.argmin(gap_k[::-1]))
    else:
        raise ValueError(f"unknown FAR rule {rule!r}; known: {', '.join(FAR_RULES)}")
    return OperatingPoint(float(curve.threshold_k[index]), float(curve.far_k[index]), float(curve.tar_k[index]))


def sorted_point(
    genuine_n: np.ndarray, impostor_n: np.ndarray, far: float, rule: FarRule = "strict"
) -> OperatingPoint:
    """`tar_at_far` without the whole ROC, for millions of pairs.

    Args:
        genuine_n: scores of genuine pairs, ascending.
        impostor_n: scores of impostor pairs, ascending.
        far: target, in [0, 1].
        rule: as there.
    """
    count = len(impostor_n)
    allowed = min(int(far * count) + 1, count)
    while allowed / count > far:
        allowed -= 1
    accepted = count
    if allowed < count:
        rejected = impostor_n[count - 1 - allowed]
        accepted = count - int(np.searchsorted(impostor_n, rejected, side="right"))
        looser = count - int(np.searchsorted(impostor_n, rejected, side="left"))
        if rule == "nearest" and abs(looser / count - far) <= abs(accepted / count - far):
            accepted = looser
    # the loosest threshold that accepts so many impostors
    bound = impostor_n[count - 1 - accepted] if accepted < count else -np.inf
    first = int(np.searchsorted(genuine_n, bound, side="right"))
    above = [*genuine_n[first : first + 1], *impostor_n[count - accepted : count - accepted + 1]]
    threshold = float(min(above)) if above else float("inf")
    return OperatingPoint(threshold, accepted / count, (len(genuine_n) - first) / len(genuine_n))


def corner_roc(genuine_n: np.ndarray, impostor_n: np.ndarray) -> Roc:
    """The corners of `roc`, from ascending scores: two points for every distinct genuine score, and the two ends."""
    value = np.unique(genuine_n)[::-1]
    tar, far = np.empty(2 * len(value)), np.empty(2 * len(value))
    for offset, side in ((0, "right"), (1, "left")):  # just above the score, and at it
        for rate, scores_n in ((tar, genuine_n), (far, impostor_n)):
            rate[offset::2] = 1 - np.searchsorted(scores_n, value, side=side) / len(scores_n)  # type: ignore[call-overload]
    threshold = np.empty(2 * len(value))
    threshold[0::2], threshold[1::2] = np.nextafter(value, value.dtype.type(np.inf)), value
    return Roc(
        np.concatenate([[np.inf], threshold, [-np.inf]]),
        np.concatenate([[0.0], far, [1.0]]),
        np.concatenate([[0.0], tar, [1.0]]),
    )


def threshold_at_far(impostor_n: np.ndarray, far: float) -> float:
    """The lowest score at which at most a share `far` of the impostor scores is accepted (``score >= threshold``).

    As `tar_at_far` by the strict rule, from impostors alone and one sort: with k = floor(far n) allowed accepts it
    is the next float above the (k + 1)-th largest score.

    Raises:
        ValueError: scores not finite, none at all, or a target outside [0, 1).
    """
    score = np.sort(np.asarray(impostor_n, np.float64))
    if not 0 <= far < 1 or len(score) == 0 or not np.isfinite(score).all():
        raise ValueError(f"FAR {far} of {len(score)} impostor scores: FAR in [0, 1), scores finite, at least one")
    return float(np.nextafter(score[len(score) - 1 - int(far * len(score))], np.inf))


def fnmr_at_fmr(curve: Roc, fmr: float) -> float:
    """False non-match rate where the false match rate does not exceed `fmr` (FMR100: 0.01)."""
    return 1.0 - tar_at_far(curve, fmr, "strict").tar


def eer(curve: Roc) -> float:
    """Equal error rate: where the ROC, joined by straight lines, meets ``FAR = 1 - TAR``."""
    gap_k = curve.far_k - (1.0 - curve.tar_k)  # -1 at accept-nothing, +1 at accept-all, never falls
    after = int(np.searchsorted(gap_k, 0.0, side="left"))
    before = after - 1
    share = -gap_k[before] / (gap_k[after] - gap_k[before])
    return float(curve.far_k[before] + share * (curve.far_k[after] - curve.far_k[before]))


def auc(score_n: np.ndarray, same_n: np.ndarray) -> float:
    """Area under the ROC: the chance that a genuine pair scores above an impostor, ties counted half.

    Exact: counted in integers (Mann-Whitney), one division at the end.

    Raises:
        ValueError: scores not finite, or one of the two classes is missing.
    """
    score, same = _checked(score_n, same_n)
    _both_classes(same)
    return sorted_auc(score[same], np.sort(score[~same]))


def sorted_auc(genuine_n: np.ndarray, impostor_n: np.ndarray) -> float:
    """`auc` of two classes' scores, the impostors' ascending."""
    below = np.searchsorted(impostor_n, genuine_n, side="left")
    not_above = np.searchsorted(impostor_n, genuine_n, side="right")
    twice = int(below.sum()) + int(not_above.sum())
    return twice / (2 * len(genuine_n) * len(impostor_n))


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share; z is the normal quantile (default: 95 % two-sided).

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials: need 0 <= successes <= trials, trials > 0")
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == trials else float(centre + half)
    return low, high


def histograms(score_n: np.ndarray, same_n: np.ndarray, edges_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of genuine and impostor scores in bins, int64 [bins] each; no score is lost.

    Scores outside the edges count in the first and last bin.
    """
    score, same = _checked(score_n, same_n)
    inside = np.clip(score, edges_b[0], edges_b[-1])
    return np.histogram(inside[same], edges_b)[0], np.histogram(inside[~same], edges_b)[0]


def _checked(value_n: np.ndarray, same_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value, same = np.asarray(value_n, np.float64), np.asarray(same_n)
    if value.ndim != 1 or value.shape != same.shape:
        raise ValueError(f"scores {value.shape} and labels {same.shape} must be two equally long vectors")
    if same.dtype != bool:
        raise ValueError(f"labels must be bool, got {same.dtype}")
    bad = np.flatnonzero(~np.isfinite(value))
    if len(bad):
        raise ValueError(f"{len(bad)} of {len(value)} scores are not finite; the first is pair {int(bad[0])}")
    return value, same


def _both_classes(same_n: np.ndarray) -> None:
    genuine = int(same_n.sum())
    if genuine in (0, len(same_n)):
        raise ValueError(f"need genuine and impostor pairs, got {genuine} genuine of {len(same_n)} pairs")
