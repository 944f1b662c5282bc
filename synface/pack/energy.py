"""Log-sum-exp repulsion of points on the unit sphere, in tiles.

HyperFace (arXiv 2411.08470) maximises the smallest pairwise distance d = 1 - <x_i, x_j>, that is, it
minimises the largest cosine. Here that maximum is the limit of a smooth energy over all unordered pairs,

    E_b(X) = (1/b) log sum_{i<j} exp(b <x_i, x_j>),     max cos <= E_b <= max cos + log(n(n-1)/2) / b,

with sharpness (inverse temperature) b rising during a solve. Its gradient moves every point in every pass:

    dE_b/dx_i = sum_{j != i} w_ij x_j / sum_{i<j} w_ij,     w_ij = exp(b (<x_i, x_j> - shift)).

Everything is computed tile by tile: one Gram tile, its weights in place, two products back. A tile above the
diagonal serves both of its sides, so a pass is 3 n^2 d floating-point operations and no n x n matrix exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 512
# Below exp(-30) a weight is held at 9e-14: harmless to the sum, and never a denormal number, on which matrix
# products run three to five times slower. The upper limit serves a pass whose maximum rose above `shift`.
MIN_EXPONENT, MAX_EXPONENT = -30.0, 10.0


class Repulsion(NamedTuple):
    """Unnormalised sums over the pairs of one block: add those of all blocks, then divide once.

    mass: float64 scalar, sum of the weights w_ij over the pairs of the block (unordered within a block).
    pull_nd: sum_j w_ij x_j for each row i of the block.
    max_cosine: scalar, the largest cosine of a pair.
    """

    mass: Tensor
    pull_nd: Tensor
    max_cosine: Tensor


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Denormal numbers count as zero within the block; the previous state comes back afterwards."""
    before = bool((torch.full((1,), 1e-40) * torch.ones(1) == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def starts(n: int, tile: int) -> range:
    """First rows of the tiles of n rows."""
    return range(0, n, tile)


def block_energy(
    rows_nd: Tensor,
    others_md: Tensor | None = None,
    *,
    sharpness: float,
    shift: float,
    tile: int = TILE,
    pull_nd: Tensor | None = None,
    back_md: Tensor | None = None,
) -> Repulsion:
    """Repulsion of the rows among themselves (others None), or between the rows and all the others.

    The unit of work of every solve, on one device or many: each pair of the block is computed once, and one Gram
    tile serves both its sides. O(n d) for the pulls, O(tile^2) besides.

    Args:
        rows_nd: unit rows, or coordinates of such.
        others_md: rows of another shard, or rows that stay in place.
        sharpness: b.
        shift: near the largest cosine, so that no weight overflows.
        tile: edge of a Gram tile; 512 fits into a core's second cache.
        pull_nd: the rows' pull is added to this, where given.
        back_md: the others' pull is added to this; None where the others do not move.
    """
    pull_nd = torch.zeros_like(rows_nd) if pull_nd is None else pull_nd
    lowest = sharpness * (-2.0 - shift)  # the exponent of a cosine below every cosine
    # added by the product itself, which spares two walks over the tile: exponent = b <x, y> - b shift
    offset = torch.full((1,), -sharpness * shift, dtype=rows_nd.dtype, device=rows_nd.device)
    buffer = rows_nd.new_empty(tile * tile)
    same = others_md is None
    y_md = rows_nd if others_md is None else others_md
    mass = torch.zeros((), dtype=torch.float64, device=rows_nd.device)
    largest = torch.full((), lowest, dtype=rows_nd.dtype, device=rows_nd.device)
    for a in starts(len(rows_nd), tile):
        x_ad, pull_ad = rows_nd[a : a + tile], pull_nd[a : a + tile]
        peaks, sums = [largest], []
        for b in range(a if same else 0, len(y_md), tile):
            y_bd = y_md[b : b + tile]
            w_ab = buffer[: len(x_ad) * len(y_bd)].view(len(x_ad), len(y_bd))
            torch.addmm(offset, x_ad, y_bd.T, alpha=sharpness, out=w_ab)
            diagonal = same and a == b
            if diagonal:
                w_ab.fill_diagonal_(lowest)
            peaks.append(w_ab.amax())
            w_ab.clamp_(MIN_EXPONENT, MAX_EXPONENT).exp_()
            if diagonal:
                w_ab.fill_diagonal_(0.0)
            sums.append(w_ab.sum() / 2 if diagonal else w_ab.sum())
            pull_ad.addmm_(w_ab, y_bd)
            if same and not diagonal:
                pull_nd[b : b + tile].addmm_(w_ab.T, x_ad)
            elif back_md is not None:
                back_md[b : b + tile].addmm_(w_ab.T, x_ad)
        largest = torch.stack(peaks).amax()
        mass += torch.stack(sums).double().sum() if sums else 0.0
    return Repulsion(mass, pull_nd, largest / sharpness + shift)


def energy_and_gradient(x_nd: Tensor, sharpness: float, tile: int = TILE) -> tuple[float, Tensor]:
    """E_b(X) and its Euclidean gradient [n, d], exactly as at the head of this file (up to the weight floor)."""
    shift = max_cosine(x_nd, tile)
    mass, pull_nd, _ = block_energy(x_nd, sharpness=sharpness, shift=shift, tile=tile)
    return shift + float(mass.log()) / sharpness, pull_nd / mass.to(x_nd.dtype)


def project_tangent_(g_nd: Tensor, x_nd: Tensor, tile: int = TILE) -> Tensor:
    """In place g <- g - <g, x> x: each row's component along the sphere at x."""
    for a in starts(len(x_nd), tile):
        g_ad, x_ad = g_nd[a : a + tile], x_nd[a : a + tile]
        g_ad.sub_((g_ad * x_ad).sum(1, keepdim=True) * x_ad)
    return g_nd


def nearest_cosines(x_nd: Tensor, y_md: Tensor | None = None, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """Per row of x the largest cosine to a row of y (without y: to another row of x), and its index [n] int64.

    Exact in the dtype of x. Ties go to the smaller index. Without y each pair is computed once, for both its rows.
    """
    best_n, index_n = no_neighbours(x_nd)
    same = y_md is None
    y = x_nd if y_md is None else y_md
    for a in starts(len(x_nd), tile):
        x_ad = x_nd[a : a + tile]
        for b in range(a if same else 0, len(y), tile):
            cos_ab = x_ad @ y[b : b + tile].T
            if same and a == b:
                cos_ab.fill_diagonal_(-2.0)
            _nearer_(best_n, index_n, a, b, *cos_ab.max(1))
            if same and a != b:
                _nearer_(best_n, index_n, b, a, *cos_ab.max(0))
    return best_n, index_n


def no_neighbours(x_nd: Tensor) -> tuple[Tensor, Tensor]:
    """Where a search for nearest rows begins: cosines [n] below all cosines, and indices [n]."""
    best_n = torch.full((len(x_nd),), -2.0, dtype=x_nd.dtype, device=x_nd.device)
    return best_n, torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)


def _nearer_(best_n: Tensor, index_n: Tensor, first: int, offset: int, value_a: Tensor, arg_a: Tensor) -> None:
    """In place: rows first, first + 1, ... take over what is strictly larger."""
    part = slice(first, first + len(value_a))
    better_a = value_a > best_n[part]
    best_n[part] = torch.where(better_a, value_a, best_n[part])
    index_n[part] = torch.where(better_a, arg_a + offset, index_n[part])


def block_nearest_(best_n: Tensor, best_m: Tensor, x_nd: Tensor, y_md: Tensor, tile: int = TILE) -> None:
    """In place: largest cosine of each row of x to the rows of y, and of each row of y to those of x."""
    for a in starts(len(x_nd), tile):
        for b in starts(len(y_md), tile):
            cos_ab = x_nd[a : a + tile] @ y_md[b : b + tile].T
            best_a, best_b = best_n[a : a + tile], best_m[b : b + tile]
            torch.maximum(best_a, cos_ab.amax(1), out=best_a)
            torch.maximum(best_b, cos_ab.amax(0), out=best_b)


def max_cosine(x_nd: Tensor, tile: int = TILE) -> float:
    """The largest cosine of two distinct rows, exact in the dtype of x."""
    largest = torch.full((), -2.0, dtype=x_nd.dtype, device=x_nd.device)
    for a in starts(len(x_nd), tile):
        for b in range(a, len(x_nd), tile):
            cos_ab = x_nd[a : a + tile] @ x_nd[b : b + tile].T
            if a == b:
                cos_ab.fill_diagonal_(-2.0)
            largest = torch.maximum(largest, cos_ab.amax())
    return float(largest)


def mean_square_cosine(x_nd: Tensor) -> float:
    """Mean of cos^2 over distinct pairs, from the d x d second moment: 1/d for points without a preferred
    direction, near 1/e for points that live in e dimensions (the frame potential).
    """
    n = len(x_nd)
    moment_dd = x_nd.T.double() @ x_nd.double() if n < 4096 else sum_of_outer(x_nd)
    return (float(moment_dd.square().sum()) - n) / (n * (n - 1))


def sum_of_outer(x_nd: Tensor, tile: int = 4096) -> Tensor:
    """sum_i x_i x_i^T in float64, [d, d], without a float64 copy of all rows."""
    moment_dd = torch.zeros(x_nd.shape[1], x_nd.shape[1], dtype=torch.float64, device=x_nd.device)
    for a in starts(len(x_nd), tile):
        part = x_nd[a : a + tile].double()
        moment_dd += part.T @ part
    return moment_dd
