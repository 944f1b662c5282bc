"""One shard of a packing on one device: its rows, its state, and what it does between two orders. No Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from synface.pack import checkpoint, solver
from synface.pack.checkpoint import Checkpoint, Part
from synface.pack.exchange import Exchange, LocalExchange
from synface.pack.solver import Reason, State, Task


@dataclass(frozen=True)
class Report:
    """After an order: passes made in all, max cosine and seconds of the whole, why it is over (None: it is not).

    pairs, floats: pairs of rows that this shard computed and numbers that it received, since it began.
    """

    passes: int
    largest: float
    seconds: float
    reason: Reason | None
    pairs: int
    floats: int


class Shard:
    """Rows [start, start + len) of a packing. Every shard of a packing is given the same orders."""

    def __init__(self, task: Task, start: int, shards: Exchange | None = None):
        self.task, self.start = task, start
        self.shards = LocalExchange() if shards is None else shards
        self.state: State | None = None

    def begin(self, x_nd: Tensor) -> Report:
        """Take the first rows and measure them."""
        self.state = solver.begin(x_nd, self.task, self.shards)
        return self._report(None)

    def resume(self, output: str, found: Checkpoint, rows: range, device: str = "cpu") -> Report:
        """Take the state of a checkpoint."""
        self.state = checkpoint.read_rows(output, found, rows, device)
        return self._report(None)

    def advance(self, until: int) -> Report:
        """Passes until so many are made in all, or the solve is over."""
        reason = solver.advance(self._state, self.task, self.shards, until)
        return self._report(reason)

    def save(self, output: str) -> Part:
        """Write this shard's part of a checkpoint."""
        return checkpoint.save_part(output, self._state, self.start)

    def finish(self, reason: Reason) -> tuple[Tensor, float]:
        """The final rows, and the max cosine over all shards."""
        solution = solver.finish(self._state, self.task, self.shards, reason)
        return solution.x_nd, solution.max_cosine

    @property
    def _state(self) -> State:
        assert self.state is not None, "begin or resume first"
        return self.state

    def _report(self, reason: Reason | None) -> Report:
        state, floats = self._state, getattr(self.shards, "received", 0)
        return Report(state.passes, state.largest, state.seconds, reason, state.pairs, floats)


def moved(task: Task, device: str) -> Task:
    """The task with its tensors on a device."""
    near = task.gallery if task.gallery is None else replace(task.gallery, rows_md=task.gallery.rows_md.to(device))
    return replace(task, gallery=near, fixed_md=None if task.fixed_md is None else task.fixed_md.to(device))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """`count` threads for matrix products within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
