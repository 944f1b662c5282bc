"""What the log-sum-exp solver is measured against: HyperFace's two algorithms and the per-row maximum.

* Algorithm 1 (arXiv 2411.08470): the closest pair of the whole set, the gallery term, one Adam step, every row
  renormalised. Only two rows feel the first term in a step.
* Algorithm 2 (same paper): the same on a random batch of rows. The paper's batch size is not known to us.
* Per-row maximum (Mettes et al., "Hyperspherical prototype networks", NeurIPS 2019): mean_i max_{j != i} <x_i, x_j>,
  so that every row feels its own nearest neighbour; here with Adam too.

All are tiled (the published codes hold the n x n matrix), and take gradients in closed form. Gallery neighbours
are looked up in every step, as published.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from synface.core import rng
from synface.pack.closest import ClosestPair
from synface.pack.energy import TILE, max_cosine, starts
from synface.pack.gallery import Gallery, add_gradient_, nearest

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's usual memories


@dataclass(frozen=True)
class Descent:
    """The rows after all steps, and their exact max cosine."""

    x_nd: Tensor
    max_cosine: float


def algorithm1(
    x_nd: Tensor,
    steps: int,
    learning_rate: float,
    gallery: Gallery | None = None,
    tile: int = TILE,
    on_step: Callable[[int, float], None] | None = None,
    refresh: int = 1,
) -> Descent:
    """HyperFace's Algorithm 1: L = -d(closest pair) + alpha * mean distance to the gallery.

    The published steps, for less than they cost as published: the closest pair is found by bounds, and without a
    gallery only the few rows in motion are touched. `refresh`: steps between look-ups of gallery neighbours (1 as
    published).
    """
    return _adam_of_pairs(x_nd, steps, learning_rate, gallery, tile, on_step, refresh)


def _adam_of_pairs(
    x_nd: Tensor,
    steps: int,
    learning_rate: float,
    gallery: Gallery | None,
    tile: int,
    on_step: Callable[[int, float], None] | None,
    refresh: int,
) -> Descent:
    """`_adam` of `pair_gradient`, over the rows in motion: all near a gallery, else those of the closest pair, now or
    not long ago.

    A row comes to rest when its step falls below a hundredth of what its coordinates, of about 1/sqrt(d), can hold;
    momentum decays by a tenth a step, so all later steps together are below a tenth of that. Its moments are kept,
    with the step they are from, as a sum without gradients would have let them decay.
    """
    x_nd = x_nd.clone()
    still = 0.01 * torch.finfo(x_nd.dtype).eps / x_nd.shape[1] ** 0.5
    first_nd, second_nd = torch.zeros_like(x_nd), torch.zeros_like(x_nd)
    last_n = torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)
    rows_r = torch.arange(len(x_nd), device=x_nd.device)  # the first step renormalises every row
    pairs, near_n = ClosestPair(x_nd, tile), None
    for step in range(1, steps + 1):
        i, j, largest = pairs.find(x_nd)
        if gallery is None:
            rows_r = torch.cat([rows_r, rows_r.new_tensor([i, j])]).unique()
        rows = rows_r if gallery is None else slice(None)  # all rows without a copy of them
        waited_r1 = (step - last_n[rows])[:, None].to(x_nd.dtype)
        last_n[rows] = step
        before_rd = x_nd[rows].clone()
        g_rd = torch.zeros_like(before_rd)
        g_rd[rows_r == i], g_rd[rows_r == j] = x_nd[j], x_nd[i]
        if gallery is not None:
            if near_n is None or (step - 1) % refresh == 0:
                near_n = nearest(gallery, x_nd, tile)
            add_gradient_(g_rd, gallery, near_n, len(x_nd), tile)
        first_nd[rows] = (first_nd[rows] * BETA1**waited_r1).add_(g_rd, alpha=1 - BETA1)
        second_nd[rows] = (second_nd[rows] * BETA2**waited_r1).addcmul_(g_rd, g_rd, value=1 - BETA2)
        scale_rd = (second_nd[rows] / (1 - BETA2**step)).sqrt_().add_(EPSILON)
        move_rd = (first_nd[rows] / scale_rd).mul_(learning_rate / (1 - BETA1**step))
        x_nd[rows] = torch.nn.functional.normalize(before_rd - move_rd, dim=1)
        pairs.moved(rows_r, (x_nd[rows] - before_rd).norm(dim=1))
        rows_r = rows_r[move_rd.abs().amax(1) > still] if gallery is None else rows_r
        if on_step is not None:
            on_step(step, largest)
    return Descent(x_nd, max_cosine(x_nd, tile))


def algorithm2(
    x_nd: Tensor,
    steps: int,
    learning_rate: float,
    batch: int,
    seed: int,
    gallery: Gallery | None = None,
    tile: int = TILE,
    on_step: Callable[[int, float], None] | None = None,
) -> Descent:
    """HyperFace's Algorithm 2: the closest pair and the gallery term of a keyed random batch of rows."""

    def choose(step: int) -> Tensor:
        return torch.from_numpy(rng.generator(seed, "batch", step).choice(len(x_nd), min(batch, len(x_nd)), False))

    return _adam(x_nd, pair_gradient, steps, learning_rate, gallery, tile, on_step, choose)


def row_max(
    x_nd: Tensor,
    steps: int,
    learning_rate: float,
    gallery: Gallery | None = None,
    tile: int = TILE,
    on_step: Callable[[int, float], None] | None = None,
    refresh: int = 1,
) -> Descent:
    """Mettes et al.: L = mean_i max_{j != i} <x_i, x_j> + alpha * mean distance to the gallery."""
    return _adam(x_nd, row_max_gradient, steps, learning_rate, gallery, tile, on_step, refresh=refresh)


def pair_gradient(x_nd: Tensor, tile: int = TILE) -> tuple[Tensor, float]:
    """Gradient [n, d] of the largest cosine, zero but in the rows of the closest pair, and that cosine."""
    i, j, cosine = closest_pair(x_nd, tile)
    gradient_nd = torch.zeros_like(x_nd)
    gradient_nd[i], gradient_nd[j] = x_nd[j], x_nd[i]
    return gradient_nd, cosine


def closest_pair(x_nd: Tensor, tile: int = TILE) -> tuple[int, int, float]:
    """The two distinct rows with the largest cosine, i < j; n^2 d operations."""
    best = (0, 1, -2.0)
    for a in starts(len(x_nd), tile):
        for b in range(a, len(x_nd), tile):
            cos_ab = x_nd[a : a + tile] @ x_nd[b : b + tile].T
            if a == b:
                cos_ab.fill_diagonal_(-2.0)
            if (largest := float(cos_ab.amax())) > best[2]:
                flat = int(cos_ab.argmax())
                i, j = a + flat // cos_ab.shape[1], b + flat % cos_ab.shape[1]
                best = (min(i, j), max(i, j), largest)
    return best


def row_max_gradient(x_nd: Tensor, tile: int = TILE) -> tuple[Tensor, float]:
    """Gradient [n, d] of mean_i max_{j != i} <x_i, x_j>, and the largest cosine; n^2 d operations."""
    best_n = torch.full((len(x_nd),), -2.0, dtype=x_nd.dtype, device=x_nd.device)
    index_n = torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)

    def update(first: int, offset: int, value: Tensor, arg: Tensor) -> None:
        part = slice(first, first + len(value))
        better = value > best_n[part]
        best_n[part] = torch.where(better, value, best_n[part])
        index_n[part] = torch.where(better, arg + offset, index_n[part])

    for a in starts(len(x_nd), tile):
        for b in range(a, len(x_nd), tile):
            cos_ab = x_nd[a : a + tile] @ x_nd[b : b + tile].T
            if a == b:
                cos_ab.fill_diagonal_(-2.0)
            update(a, b, *cos_ab.max(1))
            if a != b:
                update(b, a, *cos_ab.max(0))
    gradient_nd = x_nd[index_n]
    gradient_nd.index_add_(0, index_n, x_nd)
    return gradient_nd / len(x_nd), float(best_n.max())


def _adam(
    x_nd: Tensor,
    gradient: Callable[[Tensor, int], tuple[Tensor, float]],
    steps: int,
    learning_rate: float,
    gallery: Gallery | None,
    tile: int,
    on_step: Callable[[int, float], None] | None,
    choose: Callable[[int], Tensor] | None = None,
    refresh: int = 1,
) -> Descent:
    """Adam on all rows (a row without gradient still moves by its momentum), then every row renormalised."""
    x_nd, near_n = x_nd.clone(), None
    first_nd, second_nd = torch.zeros_like(x_nd), torch.zeros_like(x_nd)
    for step in range(1, steps + 1):
        rows = None if choose is None else choose(step)
        part_nd = x_nd if rows is None else x_nd[rows]
        g_nd, largest = gradient(part_nd, tile)
        if gallery is not None:
            if near_n is None or rows is not None or (step - 1) % refresh == 0:
                near_n = nearest(gallery, part_nd, tile)
            add_gradient_(g_nd, gallery, near_n, len(part_nd), tile)
        if rows is not None:
            g_nd = torch.zeros_like(x_nd).index_copy_(0, rows, g_nd)
        first_nd.mul_(BETA1).add_(g_nd, alpha=1 - BETA1)
        second_nd.mul_(BETA2).addcmul_(g_nd, g_nd, value=1 - BETA2)
        scale = (second_nd / (1 - BETA2**step)).sqrt_().add_(EPSILON)
        x_nd.addcdiv_(first_nd, scale, value=-learning_rate / (1 - BETA1**step))
        x_nd.div_(x_nd.norm(dim=1, keepdim=True))
        if on_step is not None:
            on_step(step, largest)
    return Descent(x_nd, max_cosine(x_nd, tile))
