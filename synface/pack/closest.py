"""The closest pair of a set of which a few rows move: what may have become the closest is compared again, no more.

HyperFace's Algorithm 1 moves two rows in a step, and those that still have momentum. An exact search of all pairs
costs n^2 d operations in each; this one finds the same pair for little, so that the algorithm can be followed for as
many steps as a comparison needs.
"""

import torch
from torch import Tensor

from synface.pack.energy import TILE, starts

NONE = -2.0  # below every cosine
TOGETHER = 64  # rows looked up at once


class ClosestPair:
    """Exact closest pair of rows that move, by upper bounds.

    Every row holds a bound, at least its largest cosine when it was looked up last, and the bounds of all others
    were raised to their cosine with it then. Moving by a chord c raises a row's bound by 2 c: a cosine of two rows
    that moved by c and e grew by at most c + e, so the larger of the two bounds still covers it. Whoever has the
    largest bound is looked up until that bound is attained. Memory: O(n + 32 n).
    """

    def __init__(self, x_nd: Tensor, tile: int = TILE):
        self.bound_n = torch.full((len(x_nd),), NONE, dtype=x_nd.dtype, device=x_nd.device)
        self.index_n = torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)
        self.known_n = torch.zeros(len(x_nd), dtype=torch.bool, device=x_nd.device)
        for a in starts(len(x_nd), tile):
            self._look_up(x_nd, torch.arange(a, min(a + tile, len(x_nd)), device=x_nd.device))

    def moved(self, rows_r: Tensor, chord_r: Tensor) -> None:
        """Rows `rows_r` (distinct) have moved, each no further than its chord (Euclidean)."""
        self.bound_n[rows_r] += 2 * chord_r
        self.known_n[rows_r] = False

    def find(self, x_nd: Tensor) -> tuple[int, int, float]:
        """The two distinct rows with the largest cosine, i < j, and that cosine."""
        while True:
            i = int(self.bound_n.argmax())
            j = int(self.index_n[i])
            if self.known_n[i] and self.known_n[j]:
                return min(i, j), max(i, j), float(self.bound_n[i])
            self.known_n[i] = False  # its nearest row has moved
            doubt_n = torch.where(self.known_n, NONE, self.bound_n)
            self._look_up(x_nd, doubt_n.topk(min(TOGETHER, len(x_nd))).indices)

    def _look_up(self, x_nd: Tensor, rows_r: Tensor) -> None:
        cos_rn = x_nd[rows_r] @ x_nd.T
        cos_rn[torch.arange(len(rows_r), device=x_nd.device), rows_r] = NONE
        cos_n, at_n = cos_rn.max(0)
        nearer_n = cos_n > self.bound_n
        # where one of these was the nearest, it may have moved away: no longer known, unless it sets the bound anew
        asked_n = torch.zeros_like(self.known_n)
        asked_n[rows_r] = True
        self.known_n &= nearer_n | ~asked_n[self.index_n]
        self.bound_n[nearer_n], self.index_n[nearer_n] = cos_n[nearer_n], rows_r[at_n[nearer_n]]
        self.bound_n[rows_r], self.index_n[rows_r] = cos_rn.max(1)
        self.known_n[rows_r] = True
