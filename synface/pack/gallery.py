"""The gallery term: what keeps packed points near the manifold of real face embeddings.

HyperFace (arXiv 2411.08470), its training loss with alpha = 0.5:

    L(X) = -d(x_i*, x_j*) + alpha (1/n) sum_k min_g d(x_k, g),     d = 1 - cosine,

where (i*, j*) is the closest pair and g runs over the gallery. Packing replaces the first term by its smooth
version (`energy.py`); the second is used as it stands. Its gradient in x_k is -(alpha/n) g_k, with g_k the
nearest gallery embedding, whose choice is refreshed every few passes (measured: every 10 is as good as every 1).

Beyond the paper, a *band* tau_lo <= max_g <x_k, g> <= tau_hi holds for every point, not on average: near enough to
be a face, far enough not to be a person of the gallery. It is kept by projection along the geodesic to g_k.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from synface.pack.energy import TILE, nearest_cosines

# a direction with less than this share of the largest spread is noise, and is not blown up any further
LEAST_SPREAD = 1e-2


@dataclass(frozen=True)
class Gallery:
    """Gallery embeddings [m, d], the weight alpha, every how many passes to look again, and the band.

    The rows have unit norm, or are the coordinates of such rows in a subspace (then of norm up to 1).
    """

    rows_md: Tensor
    alpha: float = 0.5
    refresh: int = 10
    band: tuple[float, float] | None = None


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


def project_band_(x_nd: Tensor, gallery: Gallery, index_n: Tensor, tile: int = TILE) -> Tensor:
    """In place: move each row along its great circle through g_k until <x_k, g_k> lies in the band.

    Write x = a g^ + sqrt(1 - a^2) u with g^ the direction of g and u tangent; only a changes.
    """
    assert gallery.band is not None
    low, high = gallery.band
    for start in range(0, len(x_nd), tile):
        x_ad = x_nd[start : start + tile]
        g_ad = gallery.rows_md[index_n[start : start + tile]]
        norm_a1 = g_ad.norm(dim=1, keepdim=True)
        g_ad = g_ad / norm_a1
        along_a1 = (x_ad * g_ad).sum(1, keepdim=True)
        wanted_a1 = (along_a1 * norm_a1).clamp(low, high).div_(norm_a1).clamp_(-1.0, 1.0)
        u_ad = x_ad - along_a1 * g_ad
        u_ad.div_(u_ad.norm(dim=1, keepdim=True).clamp_(min=1e-12))
        moved_ad = wanted_a1 * g_ad + (1.0 - wanted_a1.square()).sqrt_() * u_ad
        x_ad.copy_(torch.where((wanted_a1 - along_a1).abs() > 1e-7, moved_ad, x_ad))
    return x_nd


def settle_band_(x_nd: Tensor, gallery: Gallery, tile: int = TILE, rounds: int = 50) -> float:
    """In place: project with neighbours looked up anew until all rows lie in the band; the share that does not.

    More than one round is needed only where leaving one gallery embedding meets another.
    """
    assert gallery.band is not None
    low, high = gallery.band
    outside = 0.0
    for _ in range(rounds):
        cosine_n, index_n = nearest_cosines(x_nd, gallery.rows_md, tile)
        outside = float(((cosine_n < low - 1e-5) | (cosine_n > high + 1e-5)).double().mean())
        if outside == 0.0:
            break
        project_band_(x_nd, gallery, index_n, tile)
    return outside


def energy_outside(x_nd: Tensor, basis_de: Tensor) -> float:
    """Mean share of the rows' squared norm outside the span of an orthonormal basis [d, e]."""
    return float((1.0 - (x_nd @ basis_de).double().square().sum(1)).clamp(min=0.0).mean())


def principal_directions(rows_md: Tensor, explained: float) -> tuple[Tensor, Tensor]:
    """The leading directions, orthonormal [d, e], that hold `explained` of the gallery's (uncentred) energy, and the
    root mean square [e] of the gallery along each, at least `LEAST_SPREAD` of the largest.
    """
    moment_dd = rows_md.double().T @ rows_md.double() / len(rows_md)
    energy_d, vectors_dd = torch.linalg.eigh(moment_dd)
    energy_d, vectors_dd = energy_d.flip(0).clamp_(min=0.0), vectors_dd.flip(1)
    share_d = energy_d.cumsum(0) / energy_d.sum()
    # rounding may leave the last share a little below 1
    count = min(int(torch.searchsorted(share_d, explained)) + 1, len(energy_d))
    spread_e = energy_d[:count].sqrt()
    spread_e = spread_e.clamp(min=LEAST_SPREAD * float(spread_e[0]))
    return vectors_dd[:, :count].to(rows_md.dtype), spread_e.to(rows_md.dtype)


def whitened(x_nd: Tensor, rows_md: Tensor) -> Tensor:
    """Unit rows x (sum_e v_e v_e^T / s_e): the spread s_e of the gallery along each direction v_e evened out (ZCA).

    A start whose points fill few directions moves in their span only; evened out, all directions are open at once.
    """
    basis_dd, spread_d = principal_directions(rows_md, 1.0)
    even_nd = (x_nd @ (basis_dd / spread_d)) @ basis_dd.T
    return even_nd / even_nd.norm(dim=1, keepdim=True)
