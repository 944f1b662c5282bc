"""Statistics of a dataset in an embedding space: uniqueness, consistency, similarity, separability, leakage.

All functions take unit embeddings ``x_nd`` (float32 or float64 [n, d]) and integer labels ``label_n`` in
[0, classes), work in tiles, and never hold an n x n matrix. Similarities are cosines throughout: the equations of
DCFace (CVPR 2023, eq. 11-15) mix a cosine distance with a threshold of similarity; here *unique* means below r
and *consistent* above r.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synface.core import scores, sphere
from synface.core.scores import FarRule

#: CemiFace's bins of the mean similarity per identity, and one for what it does not show
BIN_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
BIN_NAMES = ("<0", "0-0.1", "0.1-0.2", "0.2-0.3", "0.3-0.4", "0.4-0.5", ">0.5")
#: bins of pair histograms on [-1, 1]; thresholds and EER from them are exact to 2 / PAIR_BINS
PAIR_BINS = 20_000
TILE = 2048


def class_centres(x_nd: np.ndarray, label_n: np.ndarray) -> np.ndarray:
    """Unit mean of each class's embeddings, float64 [classes, d].

    Raises:
        ValueError: a class without samples, or whose mean is zero.
    """
    count = int(label_n.max()) + 1
    total = np.zeros((count, x_nd.shape[1]))
    np.add.at(total, label_n, x_nd)
    return sphere.normalize(total)


def unique_share(x_nd: np.ndarray, r: float, tile: int = TILE) -> float:
    """Share of rows whose cosine to *every earlier* row is below r (DCFace eq. 11; on class centres, U_class).

    Row 0 is always unique, so the value lies in [1/n, 1].
    """
    unique = np.ones(len(x_nd), bool)
    for a in range(0, len(x_nd), tile):
        rows = x_nd[a : a + tile]
        for b in range(0, a + 1, tile):
            cos = rows @ x_nd[b : b + tile].T
            if a == b:
                cos = np.where(np.tri(len(rows), k=-1, dtype=bool), cos, -np.inf)
            unique[a : a + tile] &= cos.max(1) < r
    return float(unique.mean())


def intra_consistency(x_nd: np.ndarray, label_n: np.ndarray, centre_cd: np.ndarray, r: float) -> float:
    """Mean over classes of the share of samples whose cosine to their class centre is above r (DCFace eq. 13)."""
    near = np.einsum("nd,nd->n", x_nd, centre_cd[label_n]) > r
    return float(np.mean(np.bincount(label_n, near) / np.bincount(label_n)))


def similarity_statistics(similarity_n: np.ndarray, label_n: np.ndarray) -> dict[str, Any]:
    """Mean and population standard deviation over samples, and identities by their mean similarity (CemiFace)."""
    mean_c = np.bincount(label_n, similarity_n) / np.bincount(label_n)
    counts = np.bincount(np.digitize(mean_c, BIN_EDGES), minlength=len(BIN_NAMES))
    bins = {name: int(count) for name, count in zip(BIN_NAMES, counts, strict=True)}
    return {"mean": float(np.mean(similarity_n)), "std": float(np.std(similarity_n)), "identities_by_mean": bins}


def mislabel_rate(x_nd: np.ndarray, label_n: np.ndarray, centre_cd: np.ndarray, tile: int = TILE) -> float:
    """Share of samples that are nearer to another identity's centre than to their own."""
    own = np.einsum("nd,nd->n", x_nd, centre_cd[label_n])
    wrong = 0
    for a in range(0, len(x_nd), tile):
        label = label_n[a : a + tile]
        best = np.full(len(label), -np.inf)
        for b in range(0, len(centre_cd), tile):
            cos = x_nd[a : a + tile] @ centre_cd[b : b + tile].T
            inside = (label >= b) & (label < b + tile)
            cos[np.flatnonzero(inside), label[inside] - b] = -np.inf
            best = np.maximum(best, cos.max(1))
        wrong += int((best > own[a : a + tile]).sum())
    return wrong / len(x_nd)


@dataclass
class PairHistogram:
    """Counts of genuine and impostor cosines, with exact running moments."""

    genuine_b: np.ndarray
    impostor_b: np.ndarray
    genuine: list[float]  # count, sum, sum of squares
    impostor: list[float]

    def numbers(self) -> dict[str, Any]:
        """Means, standard deviations, Fisher ratio ``(mu_g - mu_i)^2 / (var_g + var_i)``, EER and AUC.

        EER and AUC treat cosines within one bin as equal.
        """
        (mean_g, var_g), (mean_i, var_i) = _moments(self.genuine), _moments(self.impostor)
        curve = self.roc()
        spread = var_g + var_i
        area = float(np.sum(np.diff(curve.far_k) * (curve.tar_k[1:] + curve.tar_k[:-1]) / 2))
        return {
            "genuine_pairs": int(self.genuine[0]),
            "impostor_pairs": int(self.impostor[0]),
            "genuine_mean": mean_g,
            "genuine_std": var_g**0.5,
            "impostor_mean": mean_i,
            "impostor_std": var_i**0.5,
            "fisher_ratio": (mean_g - mean_i) ** 2 / spread if spread > 0 else None,
            "eer": scores.eer(curve),
            "auc": area,
        }

    def roc(self) -> scores.Roc:
        """Operating points at the lower edges of the bins that hold a pair."""
        edges = np.linspace(-1, 1, PAIR_BINS + 1)[:-1][::-1]
        genuine, impostor = self.genuine_b[::-1], self.impostor_b[::-1]
        kept = (genuine + impostor) > 0
        tar, far = np.cumsum(genuine)[kept] / genuine.sum(), np.cumsum(impostor)[kept] / impostor.sum()
        start = np.zeros(1)
        return scores.Roc(
            np.concatenate([[np.inf], edges[kept]]), np.concatenate([start, far]), np.concatenate([start, tar])
        )


def _moments(sums: Sequence[float]) -> tuple[float, float]:
    count, total, squares = sums
    mean = total / count
    return mean, max(0.0, squares / count - mean * mean)


def pair_histogram(x_nd: np.ndarray, label_n: np.ndarray, tile: int = TILE) -> PairHistogram:
    """Every pair of different rows once, by tiles: memory O(tile^2 + PAIR_BINS).

    Raises:
        ValueError: no genuine or no impostor pair.
    """
    found = PairHistogram(np.zeros(PAIR_BINS, np.int64), np.zeros(PAIR_BINS, np.int64), [0, 0, 0], [0, 0, 0])
    for cos, same in _tiles(x_nd, label_n, tile):
        for values, bins, sums in (
            (cos[same], found.genuine_b, found.genuine),
            (cos[~same], found.impostor_b, found.impostor),
        ):
            place = np.clip(((values + 1) * (PAIR_BINS / 2)).astype(np.int64), 0, PAIR_BINS - 1)
            bins += np.bincount(place, minlength=PAIR_BINS)
            sums[0] += len(values)
            sums[1] += float(values.sum(dtype=np.float64))
            sums[2] += float(np.square(values, dtype=np.float64).sum())
    if not found.genuine[0] or not found.impostor[0]:
        kind = "genuine" if not found.genuine[0] else "impostor"
        raise ValueError(f"no {kind} pair: need at least two identities and two images of one of them")
    return found


def _tiles(x_nd: np.ndarray, label_n: np.ndarray, tile: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(cosines, same label) of all pairs i < j, tile by tile, flat."""
    for a in range(0, len(x_nd), tile):
        for b in range(a, len(x_nd), tile):
            cos = x_nd[a : a + tile] @ x_nd[b : b + tile].T
            same = label_n[a : a + tile, None] == label_n[None, b : b + tile]
            keep = np.triu(np.ones(cos.shape, bool), 1) if a == b else np.ones(cos.shape, bool)
            yield cos[keep], same[keep]


@dataclass(frozen=True)
class Leak:
    """A synthetic sample and the reference that it is most like."""

    sample: int
    reference: int
    cosine: float


def impostor_threshold(x_nd: np.ndarray, label_n: np.ndarray, far: float, rule: FarRule = "strict") -> float:
    """The cosine at which pairs of *different* reference people are accepted at rate `far`.

    This is the threshold rule of the leakage audit: a synthetic sample leaks a reference person when it is as like
    as only one in 1/far pairs of different real people. Exact to the bin width 2 / `PAIR_BINS`.
    """
    point = scores.tar_at_far(pair_histogram(x_nd, label_n).roc(), far, rule)
    return float(min(point.threshold, 1.0))


def leakage(
    cosine_n: np.ndarray, index_n: np.ndarray, label_n: np.ndarray, threshold: float, worst: int
) -> tuple[dict[str, Any], list[Leak]]:
    """Numbers of a nearest-reference search, and the worst pairs.

    Args:
        cosine_n: each sample's largest cosine to any reference.
        index_n: that reference's row.
        label_n: the samples' identities.
        threshold: from `impostor_threshold`, or given.
        worst: how many pairs to return, the most alike first (ties by sample number).
    """
    leaks = cosine_n >= threshold
    identities = len(np.unique(label_n[leaks]))
    order = np.lexsort((np.arange(len(cosine_n)), -cosine_n))[:worst]
    numbers = {
        "threshold_cosine": threshold,
        "samples": len(cosine_n),
        "leaking_samples": int(leaks.sum()),
        "leaking_share": float(leaks.mean()),
        "leaking_identities": identities,
        "max_cosine": float(cosine_n.max()),
        "mean_cosine": float(np.mean(cosine_n, dtype=np.float64)),
    }
    return numbers, [Leak(int(i), int(index_n[i]), float(cosine_n[i])) for i in order]
