"""One protocol's numbers from its pairs' embeddings, as a whole and by group. Pure; no files, no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synface.core import scores

#: groups with fewer genuine or impostor pairs than this get no AUC and no rates
MIN_GROUP = 10


@dataclass(frozen=True)
class Protocol:
    """Pairs of rows of an embedding matrix, genuine or impostor.

    `groups` maps a dimension (sex, age, ancestry) to each row's group; a pair belongs to a group when both of
    its rows do.
    """

    name: str
    left_n: np.ndarray  # int64 [n]
    right_n: np.ndarray
    same_n: np.ndarray  # bool [n]
    groups: Mapping[str, np.ndarray]  # dimension -> text [rows]


@dataclass(frozen=True)
class Measured:
    """Scores of a protocol's pairs and what follows from them."""

    score_n: np.ndarray  # cosine, float64
    correct_n: np.ndarray  # bool: judged right in the 10-fold verification
    curve: scores.Roc
    numbers: dict[str, Any]


def measure(embedding_rd: np.ndarray, protocol: Protocol, far: tuple[float, ...], rule: scores.FarRule) -> Measured:
    """All numbers of one protocol.

    Args:
        embedding_rd: unit rows (flip-summed), float64 [rows, d].
        protocol: pairs of rows.
        far: targets of TAR@FAR.
        rule: ``strict`` or ``nearest``, see `core.scores.tar_at_far`.

    Returns:
        Scores and numbers: ``accuracy`` (mean of ten folds), ``accuracy_std`` (population, over folds),
        ``accuracy_ci95`` (Wilson, over pairs), ``threshold`` (mean of the folds', squared L2) and its cosine,
        ``auc``, ``eer``, ``fnmr_at_fmr``, ``tar_at_far`` (with the FAR reached and the threshold), means and
        standard deviations of genuine and impostor cosines, ``slices``.

    Raises:
        ValueError: embeddings not finite, one class only, fewer pairs than folds.
    """
    a, b = embedding_rd[protocol.left_n], embedding_rd[protocol.right_n]
    distance = scores.squared_distance(a, b)
    folds = scores.fold_accuracy(distance, protocol.same_n)
    score = np.einsum("nd,nd->n", a, b)
    curve = scores.roc(score, protocol.same_n)
    points = {f"{f:g}": scores.tar_at_far(curve, f, rule) for f in far}
    same = protocol.same_n
    correct = int(folds.correct_n.sum())
    threshold = float(np.mean(folds.threshold_f))
    numbers = {
        "pairs": len(same),
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        "accuracy": folds.accuracy,
        "accuracy_std": folds.std,
        "accuracy_ci95": list(scores.wilson_interval(correct, len(same))),
        "threshold": threshold,
        "threshold_cosine": 1 - threshold / 2,
        "auc": scores.auc(score, same),
        "eer": scores.eer(curve),
        "tar_at_far": {key: point_numbers(p) for key, p in points.items()},
        "fnmr_at_fmr": {f"{f:g}": scores.fnmr_at_fmr(curve, f) for f in far},
        "far_rule": rule,
        "genuine_mean": float(score[same].mean()),
        "genuine_std": float(score[same].std()),
        "impostor_mean": float(score[~same].mean()),
        "impostor_std": float(score[~same].std()),
        "slices": slices(protocol, score, folds.correct_n, points),
    }
    return Measured(score, folds.correct_n, curve, numbers)


def point_numbers(point: scores.OperatingPoint) -> dict[str, float | None]:
    """As plain JSON: an infinite threshold (nothing is accepted) is null."""
    threshold = point.threshold if np.isfinite(point.threshold) else None
    return {"tar": point.tar, "far": point.far, "threshold_cosine": threshold}


def slices(
    protocol: Protocol, score_n: np.ndarray, correct_n: np.ndarray, points: Mapping[str, scores.OperatingPoint]
) -> dict[str, dict[str, Any]]:
    """Numbers by group: dimension -> group -> numbers.

    Thresholds are the whole protocol's, one for everybody, because that is what a deployed system has:
    ``balanced_accuracy`` is the mean of the shares of genuine and of impostor pairs judged right in the
    10-fold verification, ``tar_at_far`` the group's own TAR and FAR at the common thresholds; ``auc`` needs no
    threshold. The numbers of a group with fewer than `MIN_GROUP` pairs of a class are null.
    """
    found: dict[str, dict[str, Any]] = {}
    for dimension, group_r in protocol.groups.items():
        left, right = group_r[protocol.left_n], group_r[protocol.right_n]
        found[dimension] = {
            str(group): _slice((left == group) & (right == group), protocol.same_n, score_n, correct_n, points)
            for group in sorted(set(group_r))
        }
    return found


def _slice(
    member_n: np.ndarray,
    same_n: np.ndarray,
    score_n: np.ndarray,
    correct_n: np.ndarray,
    points: Mapping[str, scores.OperatingPoint],
) -> dict[str, Any]:
    genuine, impostor = member_n & same_n, member_n & ~same_n
    counts = {"genuine": int(genuine.sum()), "impostor": int(impostor.sum())}
    if min(counts.values()) < MIN_GROUP:
        return {**counts, "balanced_accuracy": None, "auc": None, "tar_at_far": dict.fromkeys(points)}
    rates = {
        key: {
            "tar": float(np.mean(score_n[genuine] >= p.threshold)),
            "far": float(np.mean(score_n[impostor] >= p.threshold)),
        }
        for key, p in points.items()
    }
    return {
        **counts,
        "balanced_accuracy": float(correct_n[genuine].mean() + correct_n[impostor].mean()) / 2,
        "auc": scores.auc(score_n[member_n], same_n[member_n]),
        "tar_at_far": rates,
    }


def average(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Any]:
    """Plain means over protocols: of every benchmark, and ``all`` over every protocol of every benchmark."""
    rows = {name: list(protocols.values()) for name, protocols in results.items()}
    rows["all"] = [row for group in rows.values() for row in group]
    return {name: _mean(group) for name, group in rows.items()}


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "auc", "eer")}
    fars = rows[0]["tar_at_far"]
    tar = {far: float(np.mean([row["tar_at_far"][far]["tar"] for row in rows])) for far in fars}
    return {**mean, "tar_at_far": tar, "protocols": len(rows)}


def corners(curve: scores.Roc) -> np.ndarray:
    """Indices of the ROC's corners: the same line with the points inside straight steps left out."""
    far, tar = curve.far_k, curve.tar_k
    inside = ((far[:-2] == far[1:-1]) & (far[1:-1] == far[2:])) | ((tar[:-2] == tar[1:-1]) & (tar[1:-1] == tar[2:]))
    return np.flatnonzero(np.concatenate([[True], ~inside, [True]]))
