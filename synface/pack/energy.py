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
) -> Repulsion:
    """Repulsion of the rows among themselves (others None), or of the rows from all the others.

    Without others each unordered pair of distinct rows counts once and both its rows are pulled. With others
    (the rows of another shard) each pair counts once here, once again at the shard that owns the others.
    O(n d) for the pull, which is added to `pull_nd` where that is given, and O(tile^2) besides.
    """
    pull_nd = torch.zeros_like(rows_nd) if pull_nd is None else pull_nd
    mass = torch.zeros((), dtype=torch.float64, device=rows_nd.device)
    largest = torch.full((), -2.0, dtype=rows_nd.dtype, device=rows_nd.device)
    buffer = rows_nd.new_empty(tile * tile)
    same = others_md is None
    y_md = rows_nd if others_md is None else others_md
    for a in starts(len(rows_nd), tile):
        x_ad = rows_nd[a : a + tile]
        for b in range(a if same else 0, len(y_md), tile):
            y_bd = y_md[b : b + tile]
            cos_ab = buffer[: len(x_ad) * len(y_bd)].view(len(x_ad), len(y_bd))
            torch.mm(x_ad, y_bd.T, out=cos_ab)
            if same and a == b:
                cos_ab.fill_diagonal_(-2.0)
            largest = torch.maximum(largest, cos_ab.amax())
            w_ab = cos_ab.sub_(shift).mul_(sharpness).clamp_(MIN_EXPONENT, MAX_EXPONENT).exp_()
            if same and a == b:
                w_ab.fill_diagonal_(0.0)
                mass += w_ab.sum() / 2
            else:
                mass += w_ab.sum()
            pull_nd[a : a + tile].addmm_(w_ab, y_bd)
            if same and a != b:
                pull_nd[b : b + tile].addmm_(w_ab.T, x_ad)
    return Repulsion(mass, pull_nd, largest)


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

    Exact in the dtype of x. Ties go to the smaller index.
    """
    same = y_md is None
    y = x_nd if y_md is None else y_md
    best_n = torch.full((len(x_nd),), -2.0, dtype=x_nd.dtype, device=x_nd.device)
    index_n = torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)
    for a in starts(len(x_nd), tile):
        x_ad = x_nd[a : a + tile]
        for b in starts(len(y), tile):
            cos_ab = x_ad @ y[b : b + tile].T
            if same and a == b:
                cos_ab.fill_diagonal_(-2.0)
            value_a, arg_a = cos_ab.max(1)
            better_a = value_a > best_n[a : a + tile]
            best_n[a : a + tile] = torch.where(better_a, value_a, best_n[a : a + tile])
            index_n[a : a + tile] = torch.where(better_a, arg_a + b, index_n[a : a + tile])
    return best_n, index_n


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
