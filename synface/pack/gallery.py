"""The gallery term: what keeps packed points near the manifold of real face embeddings.

HyperFace (arXiv 2411.08470), its training loss with alpha = 0.5:

    L(X) = -d(x_i*, x_j*) + alpha (1/n) sum_k min_g d(x_k, g),     d = 1 - cosine,

where (i*, j*) is the closest pair and g runs over the gallery. Packing replaces the first term by its smooth
version (`energy.py`); the second is used as it stands. Its gradient in x_k is -(alpha/n) g_k, with g_k the
nearest gallery embedding, whose choice is refreshed every few passes (measured: every 10 is as good as every 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from synface.pack.energy import TILE, nearest_cosines


@dataclass(frozen=True)
class Gallery:
    """Gallery embeddings of unit norm [m, d], the weight alpha, and every how many passes to look again."""

    rows_md: Tensor
    alpha: float = 0.5
    refresh: int = 10


def nearest(gallery: Gallery, x_nd: Tensor, tile: int = TILE) -> Tensor:
    """Index [n] of the gallery embedding nearest to each point, through tiles."""
    return nearest_cosines(x_nd, gallery.rows_md, tile)[1]


def add_gradient_(g_nd: Tensor, gallery: Gallery, index_n: Tensor, total: int, tile: int = TILE) -> Tensor:
    """In place: add the Euclidean gradient of the gallery term, for rows of a packing of `total` points."""
    for a in range(0, len(g_nd), tile):
        g_nd[a : a + tile].sub_(gallery.rows_md[index_n[a : a + tile]], alpha=gallery.alpha / total)
    return g_nd


def distance(gallery: Gallery, x_nd: Tensor, tile: int = TILE) -> float:
    """(1/n) sum_k min_g d(x_k, g), exact: neighbours looked up anew."""
    return float((1.0 - nearest_cosines(x_nd, gallery.rows_md, tile)[0].double()).mean())


def published_loss(largest_cosine: float, gallery_distance: float, alpha: float) -> float:
    """HyperFace's L(X) up to its constant: max cosine - 1 + alpha * mean gallery distance."""
    return largest_cosine - 1.0 + alpha * gallery_distance


def principal_directions(rows_md: Tensor, explained: float) -> Tensor:
    """Orthonormal [d, e]: the leading directions that hold `explained` of the gallery's (uncentred) energy."""
    moment_dd = rows_md.double().T @ rows_md.double()
    energy_d, vectors_dd = torch.linalg.eigh(moment_dd)
    energy_d, vectors_dd = energy_d.flip(0), vectors_dd.flip(1)
    count = int(torch.searchsorted(energy_d.cumsum(0) / energy_d.sum(), explained)) + 1
    return vectors_dd[:, :count].to(rows_md.dtype)
