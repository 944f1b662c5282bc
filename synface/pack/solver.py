"""Packing by temperature continuation on the log-sum-exp energy, with Riemannian steps.

One pass computes the energy's gradient over all pairs (`energy.block_energy`), then moves every row:

    g_i = tangential part of dE_b/dx_i (+ gallery term)
    m_i = mu transport(m_i) + (1 - mu) g_i,     v_i = rho v_i + (1 - rho) |g_i|^2   (one scalar per row)
    x_i <- normalise(x_i - lr  m_i / sqrt(v_i)),     bias-corrected as in Adam

The sharpness b rises and the step lr falls geometrically. One second moment *per row*, not per coordinate, keeps
the method equivariant under rotations and lets every row move, though few rows hold most of the gradient; a
global norm instead diverges late.

The rows may be a shard of a larger packing: whatever concerns the others' rows goes through `Exchange`, and a solve
on one device is the case of no others. `begin`, `advance` and `finish` are the same code for both.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from synface.pack import energy
from synface.pack.energy import TILE, Repulsion, block_energy
from synface.pack.exchange import Exchange, LocalExchange
from synface.pack.gallery import Gallery, add_gradient_, nearest, project_band_, settle_band_

Start = Literal["isotropic", "manifold", "packed"]
Reason = Literal["target", "passes", "time"]
Precision = Literal["highest", "high", "medium"]  # torch.set_float32_matmul_precision's words

#: from this share of the passes on all products are in full precision, whatever the task's early precision
FULL_FROM = 0.8


@dataclass(frozen=True)
class Schedule:
    """Sharpness and step length (radians) from first to last pass, both geometric, and the two memories."""

    passes: int
    sharpness: tuple[float, float]
    step: tuple[float, float]
    momentum: float = 0.6
    second_moment: float = 0.8

    def at(self, progress: float) -> tuple[float, float]:
        """Sharpness and step at progress in [0, 1]."""
        return _geometric(self.sharpness, progress), _geometric(self.step, progress)


@dataclass(frozen=True)
class Task:
    """What is asked of a solve, the same for every shard; fields as in `solve`.

    `early_precision` is that of float32 products in the passes before `FULL_FROM`: while the weights are spread over
    many pairs and steps are long, rounded cosines (TF32: 11 bits) change nothing that the last passes do not mend.
    """

    schedule: Schedule
    gallery: Gallery | None = None
    fixed_md: Tensor | None = None
    target_cosine: float | None = None
    max_seconds: float | None = None
    tile: int = TILE
    early_precision: Precision = "highest"


@dataclass
class State:
    """All that a pass changes: rows, momentum, second moments, passes done, last known max cosine, seconds spent.

    `largest` and `seconds` are those of the whole packing, the rest is the shard's own. `pairs` counts the pairs
    of rows that this shard computed.
    """

    x_nd: Tensor
    momentum_nd: Tensor
    second_n1: Tensor
    passes: int
    largest: float
    neighbours_n: Tensor | None = None
    seconds: float = 0.0
    pairs: int = 0


@dataclass(frozen=True)
class PassReport:
    """What `on_pass` gets: `largest` is the max cosine of `state.x_nd` before this pass moved it."""

    state: State
    largest: float
    sharpness: float
    step: float


@dataclass(frozen=True)
class Solution:
    """The rows, their exact max cosine, the passes made, and why they ended."""

    x_nd: Tensor
    max_cosine: float
    passes: int
    seconds: float
    reason: Reason


def default_schedule(d: int, passes: int, start: Start = "isotropic") -> Schedule:
    """The measured defaults: sharpness in units of sqrt(d), the spread of a random cosine being 1/sqrt(d).

    A start that is packed already (a code, an earlier result) begins sharp and with short steps, or it would be
    melted first. Near a gallery the last steps are shorter, as its term pulls where the energy no longer pushes; but
    few passes end with longer ones, and less sharply.
    """
    root = math.sqrt(d)
    first, step, last = {
        "isotropic": (2.0, 4.0, 0.002),
        "manifold": (0.5, 8.0, max(0.0005, 0.05 / passes)),
        "packed": (30.0, 0.05 * root, 0.002),
    }[start]
    sharpest = min(200.0, 6.25 * passes) if start == "manifold" else 200.0
    return Schedule(passes, (first * root, sharpest * root), (step / root, last))


def kind_of_start(x_nd: Tensor) -> Start:
    """Whether points fill their space: mean squared cosine up to 3/d; random points have 1/d, faces many times it.

    From points on a low-dimensional manifold a sharp energy only spreads them inside it (its gradient lies in
    their span); a soft one, which is nearly the frame potential, opens the other directions first.
    """
    return "isotropic" if energy.mean_square_cosine(x_nd) <= 3.0 / x_nd.shape[1] else "manifold"


def initial_state(x_nd: Tensor, largest: float) -> State:
    """A fresh state: no momentum. Takes its own copy of the rows."""
    x = x_nd.clone()
    return State(x, torch.zeros_like(x), x.new_zeros(len(x), 1), 0, largest)


def solve(
    x_nd: Tensor,
    schedule: Schedule,
    *,
    gallery: Gallery | None = None,
    fixed_md: Tensor | None = None,
    target_cosine: float | None = None,
    max_seconds: float | None = None,
    tile: int = TILE,
    exchange: Exchange | None = None,
    on_pass: Callable[[PassReport], None] | None = None,
    state: State | None = None,
) -> Solution:
    """Move the rows of x until the target, the passes or the time is reached.

    Args:
        x_nd: start, unit norm; left as it is.
        schedule: see `default_schedule`.
        gallery: adds the published gallery term.
        fixed_md: rows that repel the moving ones and stay where they are.
        target_cosine: stop at the first pass that finds the max cosine at or below it.
        max_seconds: the schedule is run through by this time (then the result depends on the machine).
        tile: edge of a Gram tile.
        exchange: the other shards; None when x holds all points.
        on_pass: called after each pass, for progress and checkpoints.
        state: continue from here instead of from x.
    """
    shards = LocalExchange() if exchange is None else exchange
    task = Task(schedule, gallery, fixed_md, target_cosine, max_seconds, tile)
    state = begin(x_nd, task, shards) if state is None else state
    reason = advance(state, task, shards, schedule.passes, on_pass)
    assert reason is not None
    return finish(state, task, shards, reason)


def begin(x_nd: Tensor, task: Task, shards: Exchange) -> State:
    """The state before the first pass: a copy of the rows, no momentum, and the max cosine over all shards."""
    with energy.flushed_denormals(), torch.no_grad():
        nearest_n = nearest_of_all(x_nd, task.fixed_md, shards, task.tile)
    return initial_state(x_nd, _largest(nearest_n, shards))


def advance(
    state: State,
    task: Task,
    shards: Exchange,
    until: int,
    on_pass: Callable[[PassReport], None] | None = None,
) -> Reason | None:
    """Passes until so many are made in all; why the solve is over, or None where it goes on."""
    schedule, gallery = task.schedule, task.gallery
    began = time.monotonic() - state.seconds
    with energy.flushed_denormals(), torch.no_grad():
        total = int(shards.total(_scalar(len(state.x_nd), state.x_nd)))
        while state.passes < min(until, schedule.passes):
            progress = state.passes / max(schedule.passes - 1, 1)
            state.seconds = time.monotonic() - began
            if task.max_seconds is not None:
                elapsed = float(shards.largest(_scalar(state.seconds, state.x_nd)))  # one clock for all shards
                progress = max(progress, elapsed / task.max_seconds)
                if progress > 1.0:
                    return "time"
            sharpness, step = schedule.at(progress)
            with products_in("highest" if progress >= FULL_FROM else task.early_precision):
                found = repulsion(state, task, shards, sharpness)
            state.largest = float(found.max_cosine)
            if task.target_cosine is not None and state.largest <= task.target_cosine:
                return "target"
            gradient_nd = found.pull_nd.div_(found.mass.to(found.pull_nd.dtype))
            if gallery is not None:
                if state.neighbours_n is None or state.passes % gallery.refresh == 0:
                    state.neighbours_n = nearest(gallery, state.x_nd, task.tile)
                add_gradient_(gradient_nd, gallery, state.neighbours_n, total, task.tile)
            move_(state, gradient_nd, schedule, step, task.tile)
            if gallery is not None and gallery.band is not None and state.neighbours_n is not None:
                project_band_(state.x_nd, gallery, state.neighbours_n, task.tile)
            if on_pass is not None:
                on_pass(PassReport(state, state.largest, sharpness, step))
        state.seconds = time.monotonic() - began
    return "passes" if state.passes >= schedule.passes else None


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Float32 matrix products of this precision within the block; the former one comes back afterwards."""
    before = torch.get_float32_matmul_precision()
    if precision == before:  # setting even the same one pins what a library may choose
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def finish(state: State, task: Task, shards: Exchange, reason: Reason) -> Solution:
    """The band kept exactly, and the exact max cosine."""
    banded = task.gallery is not None and task.gallery.band is not None
    largest = state.largest
    with energy.flushed_denormals(), torch.no_grad():
        if task.gallery is not None and banded:
            settle_band_(state.x_nd, task.gallery, task.tile)
        if reason != "target" or banded:
            largest = _largest(nearest_of_all(state.x_nd, task.fixed_md, shards, task.tile), shards)
    return Solution(state.x_nd, largest, state.passes, state.seconds, reason)


def repulsion(state: State, task: Task, shards: Exchange, sharpness: float) -> Repulsion:
    """Pull on this shard's rows from all points; mass and max cosine over all shards. Exact for any sharding."""
    rows_nd, fixed_md = state.x_nd, task.fixed_md
    options = {"sharpness": sharpness, "shift": state.largest, "tile": task.tile}
    mass, pull_nd, largest = block_energy(rows_nd, **options)
    state.pairs += len(rows_nd) * (len(rows_nd) - 1) // 2
    for mine, others_md in shards.meet(rows_nd):
        back_md = torch.zeros_like(others_md)
        cross = block_energy(rows_nd[mine], others_md, **options, pull_nd=pull_nd[mine], back_md=back_md)
        shards.give_back(back_md, pull_nd, Tensor.add_)
        mass, largest = mass + cross.mass, torch.maximum(largest, cross.max_cosine)
        state.pairs += len(rows_nd[mine]) * len(others_md)
    shards.settle()
    if fixed_md is not None:
        cross = block_energy(rows_nd, fixed_md, **options, pull_nd=pull_nd)
        mass, largest = mass + cross.mass, torch.maximum(largest, cross.max_cosine)
    return Repulsion(shards.total(mass), pull_nd, shards.largest(largest))


def nearest_of_all(rows_nd: Tensor, fixed_md: Tensor | None, shards: Exchange, tile: int = TILE) -> Tensor:
    """Per row of this shard [n] the exact largest cosine to any other point, of all shards and the fixed ones."""
    best_n = energy.nearest_cosines(rows_nd, tile=tile)[0]
    for mine, others_md in shards.meet(rows_nd):
        best_m = energy.no_neighbours(others_md)[0]
        energy.block_nearest_(best_n[mine], best_m, rows_nd[mine], others_md, tile)
        shards.give_back(best_m, best_n, lambda kept, came: torch.maximum(kept, came, out=kept))
    shards.settle()
    if fixed_md is not None:
        best_n = torch.maximum(best_n, energy.nearest_cosines(rows_nd, fixed_md, tile)[0])
    return best_n


def move_(state: State, gradient_nd: Tensor, schedule: Schedule, step: float, tile: int) -> None:
    """One Riemannian step of every row, in place and chunk by chunk (no temporary of the rows' size)."""
    mu, rho = schedule.momentum, schedule.second_moment
    state.passes += 1
    fade_m, fade_v = 1.0 - mu**state.passes, 1.0 - rho**state.passes
    for a in range(0, len(gradient_nd), tile):
        x, g, m, v = (t[a : a + tile] for t in (state.x_nd, gradient_nd, state.momentum_nd, state.second_n1))
        energy.project_tangent_(g, x)
        energy.project_tangent_(m, x).mul_(mu).add_(g, alpha=1.0 - mu)
        v.mul_(rho).add_(g.square().sum(1, keepdim=True), alpha=1.0 - rho)
        x.sub_(m * (step / fade_m / (v / fade_v).sqrt().add_(1e-30)))
        x.div_(x.norm(dim=1, keepdim=True))


def with_passes(schedule: Schedule, passes: int) -> Schedule:
    """The same schedule over another number of passes."""
    return replace(schedule, passes=passes)


def _largest(nearest_n: Tensor, shards: Exchange) -> float:
    return float(shards.largest(nearest_n.max()))


def _scalar(value: float, like: Tensor) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64, device=like.device)


def _geometric(ends: tuple[float, float], progress: float) -> float:
    return ends[0] * (ends[1] / ends[0]) ** progress
