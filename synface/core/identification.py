"""Open- and closed-set identification: ranks and TPIR@FPIR of probes searched in a gallery.

A probe is *mated* when the gallery holds its identity. ``rank`` counts gallery rows: 1 + the rows of other identities
whose similarity is not below that of the probe's best mate (a tie counts against the system). An identification is a
hit at rank 1 whose score reaches the threshold; a false positive is a non-mated probe whose best score reaches it.
"""

from dataclasses import dataclass

import numpy as np

from synface.core.scores import FarRule, OperatingPoint, sorted_point


@dataclass(frozen=True)
class Search:
    """Result of `search`; one entry per probe."""

    mate_p: np.ndarray  # best similarity to a gallery row of the same identity; -inf: not mated
    other_p: np.ndarray  # best similarity to a row of another identity; -inf: none
    rank_p: np.ndarray  # int64; 0: not mated

    @property
    def mated_p(self) -> np.ndarray:
        """Whether the gallery holds the probe's identity."""
        return self.rank_p > 0


def search(
    probe_pd: np.ndarray, probe_label_p: np.ndarray, gallery_gd: np.ndarray, gallery_label_g: np.ndarray,
    tile: int = 1024,
) -> Search:  # fmt: skip
    """Every probe against the whole gallery, a tile of probes at a time: memory O(tile * gallery).

    Args:
        probe_pd: unit rows.
        probe_label_p: identities, integers.
        gallery_gd: unit rows.
        gallery_label_g: identities; distractors have labels that no probe has.
        tile: probes at a time.
    """
    count = len(probe_pd)
    mate, other, rank = np.empty(count), np.empty(count), np.empty(count, np.int64)
    for start in range(0, count, tile):
        part = slice(start, start + tile)
        cos = (probe_pd[part] @ gallery_gd.T).astype(np.float64)
        same = probe_label_p[part, None] == gallery_label_g[None]
        mate[part] = np.where(same, cos, -np.inf).max(1)
        cos[same] = -np.inf
        other[part] = cos.max(1)
        rank[part] = np.where(same.any(1), 1 + (cos >= mate[part, None]).sum(1), 0)
    return Search(mate, other, rank)


def rank_rates(found: Search, ranks: tuple[int, ...]) -> dict[int, float]:
    """Closed set: the share of mated probes whose mate stands among the first `rank` rows (the CMC).

    Raises:
        ValueError: no mated probe.
    """
    rank = found.rank_p[found.mated_p]
    if not len(rank):
        raise ValueError("no probe's identity is in the gallery")
    return {r: float(np.mean(rank <= r)) for r in ranks}


def tpir_at_fpir(found: Search, fpir: float, rule: FarRule = "strict") -> OperatingPoint:
    """Open set: true positive identification rate at rank 1 where so many non-mated probes raise a false alarm.

    `far` of the result is the FPIR reached, `tar` the TPIR. The threshold rules are those of `scores.tar_at_far`, over
    the best scores of non-mated probes and of mated probes that are hit at rank 1 (others count as -inf).

    Raises:
        ValueError: no mated or no non-mated probe.
    """
    mated = found.mated_p
    if mated.all() or not mated.any():
        raise ValueError("open-set identification needs mated and non-mated probes")
    hit = np.where(found.rank_p[mated] == 1, found.mate_p[mated], -np.inf)
    alarms = np.sort(found.other_p[~mated])
    kept = np.sort(hit[hit > -np.inf])
    if not len(kept):
        return OperatingPoint(float("inf"), 0.0, 0.0)
    point = sorted_point(kept, alarms, fpir, rule)
    return OperatingPoint(point.threshold, point.far, point.tar * len(kept) / len(hit))
