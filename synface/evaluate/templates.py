"""Templates: one feature of several faces, and the cosines of template pairs. Pure; no files, no Ray.

The field's rule for IJB-B/C (insightface, AdaFace): the raw flip-summed features, times the detector's score, are
averaged over the faces of a medium (the frames of a video) and summed over the media of a template; the sum is
normalised. So every face has a weight that is known beforehand, and templates are summed as faces stream by.
"""

import numpy as np
from scipy import sparse

from synface.core import scores

TILE = 1024


class TemplateSums:
    """Sums of weighted features per template; memory is templates x dimensions.

    Attributes:
        ids: template numbers, ascending, int [t]; row i of `unit` belongs to ``ids[i]``.

    Args:
        template_n: template of every face, int.
        media_n: medium of every face, int, not negative.
        dim: size of a feature.
    """

    def __init__(self, template_n: np.ndarray, media_n: np.ndarray, dim: int):
        self.ids, self._row_n = np.unique(template_n, return_inverse=True)
        medium = self._row_n.astype(np.int64) * (int(media_n.max()) + 1) + media_n
        _, inverse, count = np.unique(medium, return_inverse=True, return_counts=True)
        self._weight_n = 1 / count[inverse]
        self._sum_td = np.zeros((len(self.ids), dim))

    def add(self, first: int, feature_nd: np.ndarray, score_n: np.ndarray | None = None) -> None:
        """Add the features of faces `first`, `first` + 1, ..., weighted by the detector's scores where given."""
        rows = slice(first, first + len(feature_nd))
        weight_n = self._weight_n[rows] if score_n is None else self._weight_n[rows] * score_n
        templates, place_n = np.unique(self._row_n[rows], return_inverse=True)
        # a sparse product; numpy's unbuffered sums (add.at) are several times slower
        shape = (len(templates), len(place_n))
        weights = sparse.csr_array((weight_n, (place_n, np.arange(len(place_n)))), shape)
        self._sum_td[templates] += weights @ feature_nd

    def unit(self) -> np.ndarray:
        """Unit templates, float32 [t, d]."""
        return scores.unit_rows(self._sum_td).astype(np.float32)

    def rows_of(self, template_n: np.ndarray) -> np.ndarray:
        """Rows of templates by their numbers; ValueError for one without a face."""
        row = np.minimum(np.searchsorted(self.ids, template_n), len(self.ids) - 1)
        missing = np.flatnonzero(self.ids[row] != template_n)
        if len(missing):
            raise ValueError(f"template {template_n[missing[0]]} has no face ({len(missing)} such entries)")
        return row


def pair_scores(unit_td: np.ndarray, left_n: np.ndarray, right_n: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Cosine of every pair of rows, float32 [n].

    Pairs are taken by tiles of their left rows, each against the right rows that it needs, as one matrix product:
    real protocols pair each template with many others.
    """
    order = np.argsort(left_n, kind="stable") if (np.diff(left_n) < 0).any() else None
    left, right = (left_n, right_n) if order is None else (left_n[order], right_n[order])
    starts = np.arange(0, len(unit_td), tile)
    edges = np.append(np.searchsorted(left, starts), len(left))
    out = np.empty(len(left), np.float32)
    column = np.zeros(len(unit_td), np.intp)
    for start, a, b in zip(starts, edges[:-1], edges[1:], strict=True):
        if a == b:
            continue
        column[:] = 0
        column[right[a:b]] = 1
        needed = np.flatnonzero(column)
        column[needed] = np.arange(len(needed))
        cos = unit_td[start : start + tile] @ unit_td[needed].T
        value = cos[left[a:b] - start, column[right[a:b]]]
        if order is None:
            out[a:b] = value
        else:
            out[order[a:b]] = value
    return out
