"""Choosing k of N embeddings so that the chosen lie far apart: packing when only pool members can be rendered.

Two steps, both deterministic and both without the N x N matrix (one column of it at a time):

* `farthest_first`: greedy max-min. Each choice is the pool member farthest from all chosen so far. Its smallest
  angle is at least half the best possible (Gonzalez 1985: the metric k-centre argument).
* `improve`: swaps that lower the log-sum-exp energy (1/b) log sum_{i<j} exp(b c_ij) of the chosen, worst member
  first, at rising sharpness b; the set with the smallest max cosine seen is returned, so it never gets worse.

`under_ceiling` answers the other question, "as many as possible with no pair above this cosine": greedy by
fewest conflicts (the minimum-degree rule for independent sets).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from synface.pack import energy

SHARPNESSES = (10.0, 30.0, 100.0, 300.0)
LARGEST_EXPONENT = 600.0
CANCELLED = 1e-6


class Subset(NamedTuple):
    """Rows of the pool, in the order of choice, and the max cosine of their pairs (-1 for a single row)."""

    index_k: Tensor
    max_cosine: float


def dispersed(
    pool_nd: Tensor,
    k: int,
    *,
    ceiling: float | None = None,
    passes: int = 3,
    on_step: Callable[[int], None] | None = None,
) -> Subset:
    """The k far-apart rows of the pool: greedy, then swaps; with a ceiling, then the conflict rule if that fails.

    With a ceiling that k rows cannot be shown to satisfy, the result holds fewer than k rows.

    Args:
        pool_nd: unit norm.
        k: how many, 1 <= k <= n.
        ceiling: no pair of the result has a larger cosine.
        passes: how often, per sharpness, every member may be tried for a swap.
        on_step: called with 1 per greedy choice.
    """
    chosen = farthest_first(pool_nd, k, on_step=on_step)
    best = improve(pool_nd, chosen, passes=passes) if k > 1 else Subset(chosen, -1.0)
    if ceiling is None or best.max_cosine <= ceiling:
        return best
    many = under_ceiling(pool_nd, ceiling, limit=k)
    if len(many) < k:
        return Subset(many, _max_cosine(pool_nd, many))
    better = improve(pool_nd, many, passes=passes)
    return better if better.max_cosine <= ceiling else Subset(many, _max_cosine(pool_nd, many))


def farthest_first(pool_nd: Tensor, k: int, on_step: Callable[[int], None] | None = None) -> Tensor:
    """Greedy max-min choice of k rows, int64 [k]; 2 k n d operations, O(n) memory.

    The first is the row farthest from the pool's mean; ties go to the smaller index. A row is never chosen
    twice, even where the pool repeats it.
    """
    chosen = [int((pool_nd @ pool_nd.mean(0)).argmin())]
    nearest_n = pool_nd @ pool_nd[chosen[0]]
    nearest_n[chosen[0]] = torch.inf
    for _ in range(k - 1):
        pick = int(nearest_n.argmin())
        torch.maximum(nearest_n, pool_nd @ pool_nd[pick], out=nearest_n)
        nearest_n[pick] = torch.inf
        chosen.append(pick)
        if on_step is not None:
            on_step(1)
    return torch.tensor(chosen, dtype=torch.int64)


def improve(pool_nd: Tensor, index_k: Tensor, passes: int = 3) -> Subset:
    """Swap chosen for unchosen rows while that lowers the log-sum-exp energy; the best max cosine seen wins.

    A swap costs two products of the pool with a vector. With e_p = sum_{s chosen, s != p} exp(b (c_ps - shift))
    kept for every pool row p, taking r out leaves e_p - w_pr, and the best row to put in is the smallest of these.
    """
    best = Subset(index_k.clone(), _max_cosine(pool_nd, index_k))
    if len(index_k) == len(pool_nd):
        return best
    current = index_k.clone()
    for sharpness in SHARPNESSES:
        current = _descend(pool_nd, current, sharpness, passes)
        largest = _max_cosine(pool_nd, current)
        if largest < best.max_cosine:
            best = Subset(current.clone(), largest)
    return best


def _descend(pool_nd: Tensor, index_k: Tensor, sharpness: float, passes: int) -> Tensor:
    """First-improvement swaps at one sharpness: members in the order of their energy, worst first."""
    current = index_k.clone()
    taken_n = torch.zeros(len(pool_nd), dtype=torch.bool)
    taken_n[current] = True
    for _ in range(passes):
        energy_n = _column_energies(pool_nd, current, sharpness)
        swapped = False
        for slot in energy_n[current].argsort(descending=True, stable=True).tolist():
            out = int(current[slot])
            left_n = _without(pool_nd, energy_n, current, slot, sharpness)
            candidate_n = left_n.masked_fill(taken_n, torch.inf)
            into = int(candidate_n.argmin())
            if not float(candidate_n[into]) < float(energy_n[out]) * (1.0 - 1e-6):
                continue
            energy_n = left_n + _weights(pool_nd, into, sharpness)
            taken_n[out], taken_n[into] = False, True
            current[slot] = into
            swapped = True
        if not swapped:
            break
    return current


def _without(pool_nd: Tensor, energy_n: Tensor, index_k: Tensor, slot: int, sharpness: float) -> Tensor:
    """Energies [n] with the member in `slot` taken out. Where it held nearly all of a row's energy, the
    difference has no digits left and is summed anew (the pool rows beside that member: about n / k of them).
    """
    left_n = energy_n - _weights(pool_nd, int(index_k[slot]), sharpness)
    lost = torch.nonzero(left_n < CANCELLED * energy_n).ravel()
    if len(lost):
        others = torch.cat([index_k[:slot], index_k[slot + 1 :]])
        left_n[lost] = _column_energies(pool_nd, others, sharpness, rows=lost)
    return left_n


def _weights(pool_nd: Tensor, row: int, sharpness: float) -> Tensor:
    """exp(b (c_p - 1)) of every pool row p to one row, float64 [n]; 0 for the row itself."""
    w_n = (pool_nd @ pool_nd[row]).double().sub_(1.0).mul_(sharpness).clamp_(min=-LARGEST_EXPONENT).exp_()
    w_n[row] = 0.0
    return w_n


def _column_energies(
    pool_nd: Tensor, index_k: Tensor, sharpness: float, rows: Tensor | None = None, tile: int = energy.TILE
) -> Tensor:
    """The sum over chosen s != p of exp(b (c_ps - 1)) for the pool rows p (None: all), float64, tile by tile."""
    rows = torch.arange(len(pool_nd)) if rows is None else rows
    total_n = torch.zeros(len(rows), dtype=torch.float64)
    for b in range(0, len(index_k), tile):
        part = index_k[b : b + tile]
        for a in range(0, len(rows), tile):
            at = rows[a : a + tile]
            cos_ab = pool_nd[at] @ pool_nd[part].T
            w_ab = cos_ab.double().sub_(1.0).mul_(sharpness).clamp_(min=-LARGEST_EXPONENT).exp_()
            w_ab[at[:, None] == part[None, :]] = 0.0
            total_n[a : a + tile] += w_ab.sum(1)
    return total_n


def under_ceiling(pool_nd: Tensor, ceiling: float, limit: int | None = None, tile: int = energy.TILE) -> Tensor:
    """Rows of which no two have a cosine above the ceiling, as many as the minimum-degree rule finds.

    Repeatedly takes the open row with the fewest open conflicts, then closes its conflicts. n^2 d operations for
    the degrees, as many again while closing; O(n) memory and a tile.
    """
    n = len(pool_nd)
    degree_n = torch.zeros(n, dtype=torch.int64)
    for a in range(0, n, tile):
        for b in range(0, n, tile):
            degree_n[a : a + tile] += (pool_nd[a : a + tile] @ pool_nd[b : b + tile].T > ceiling).sum(1)
    degree_n -= 1
    open_n = torch.ones(n, dtype=torch.bool)
    chosen: list[int] = []
    while (limit is None or len(chosen) < limit) and bool(open_n.any()):
        pick = int(degree_n.masked_fill(~open_n, n).argmin())
        chosen.append(pick)
        open_n[pick] = False
        closed = torch.nonzero(open_n & (pool_nd @ pool_nd[pick] > ceiling)).ravel()
        open_n[closed] = False
        for a in range(0, len(closed), tile):
            degree_n -= (pool_nd @ pool_nd[closed[a : a + tile]].T > ceiling).sum(1)
    return torch.tensor(chosen, dtype=torch.int64)


def _max_cosine(pool_nd: Tensor, index_k: Tensor) -> float:
    return energy.max_cosine(pool_nd[index_k]) if len(index_k) > 1 else -1.0
