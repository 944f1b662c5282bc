"""What drives a solve, whoever computes it: orders, progress, checkpoints, a stop signal, work that was lost."""

import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from synface.core.errors import SynfaceError
from synface.ops import metrics
from synface.ops.progress import Progress, say
from synface.ops.signals import check_stop, stop_requested
from synface.pack import checkpoint, energy
from synface.pack.checkpoint import Checkpoint, Part
from synface.pack.exchange import PeerLostError
from synface.pack.shard import Report, Shard, moved
from synface.pack.solver import Reason, Task

#: how often in a row lost shards are replaced without any progress
RESTARTS = 8


class Crew(Protocol):
    """Shards that together hold a packing; every order goes to all of them."""

    workers: int

    def begin(self, x_nd: Tensor) -> Report:
        """Share out the first rows."""
        ...

    def resume(self, output: str, found: Checkpoint) -> Report:
        """Take up a checkpoint."""
        ...

    def advance(self, until: int) -> Report:
        """Passes until so many are made in all; counts are those of the busiest shard."""
        ...

    def save(self, output: str) -> list[Part]:
        """Write a checkpoint's parts."""
        ...

    def finish(self, reason: Reason) -> tuple[Tensor, float]:
        """The final rows, all of them, and their max cosine."""
        ...

    def nearest(self, x_nd: Tensor, others_md: Tensor | None = None) -> Tensor:
        """Per row of x the largest cosine to another row of x, or to a row of the others; exact."""
        ...

    def assemble(self) -> None:
        """Shards that stand ready, without rows yet: at the beginning, and after a `PeerLostError`."""
        ...

    def close(self) -> None:
        """Let go of what the shards hold."""
        ...


class LocalCrew:
    """One shard, in this process; rows come and go on the CPU, wherever it computes."""

    workers = 1

    def __init__(self, task: Task, device: str = "cpu"):
        self.tile, self.device = task.tile, device
        self.shard = Shard(moved(task, device), 0)

    def begin(self, x_nd: Tensor) -> Report:
        """See `Crew`."""
        return self.shard.begin(x_nd.to(self.device))

    def resume(self, output: str, found: Checkpoint) -> Report:
        """See `Crew`."""
        return self.shard.resume(output, found, range(found.parts[-1].stop), self.device)

    def advance(self, until: int) -> Report:
        """See `Crew`."""
        return self.shard.advance(until)

    def save(self, output: str) -> list[Part]:
        """See `Crew`."""
        return [self.shard.save(output)]

    def finish(self, reason: Reason) -> tuple[Tensor, float]:
        """See `Crew`."""
        rows_nd, largest = self.shard.finish(reason)
        return rows_nd.cpu(), largest

    def nearest(self, x_nd: Tensor, others_md: Tensor | None = None) -> Tensor:
        """See `Crew`."""
        others = None if others_md is None else others_md.to(self.device)
        return energy.nearest_cosines(x_nd.to(self.device), others, self.tile)[0].cpu()

    def assemble(self) -> None:
        """A process stands ready, or nothing does."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Place:
    """Where a solve keeps its checkpoints (output None: nowhere), and every how many passes it writes one."""

    output: str | None = None
    config_hash: str = ""
    every: int = 25


@dataclass(frozen=True)
class Driven:
    """A solve's end: rows, max cosine (`first`: before the first pass), passes, why it ended, and counts.

    pairs_per_pass, floats_per_pass: what the busiest shard computed and received in a pass (`exchange.cost`).
    resumed_at: the pass from which this run continued an earlier one; None where it began anew.
    """

    x_nd: Tensor
    first: float
    largest: float
    passes: int
    reason: Reason | str
    pairs_per_pass: int
    floats_per_pass: int
    resumed_at: int | None
    replaced: int


def drive(
    crew: Crew,
    x_nd: Tensor,
    passes: int,
    place: Place,
    *,
    enough: float = -math.inf,
    progress_seconds: float = 5.0,
    restarts: int = RESTARTS,
) -> Driven:
    """Solve from x, or from the newest checkpoint of the same configuration.

    Args:
        crew: who computes.
        x_nd: the first rows.
        passes: of the schedule, for the progress line.
        place: checkpoints.
        enough: a start whose max cosine is at most this is returned as it is.
        progress_seconds: between lines of progress, and at most between two looks for a stop signal.
        restarts: how often in a row lost shards are replaced without a pass in between.

    Raises:
        StoppedError: a stop signal; a checkpoint was written first.
        SynfaceError: shards were lost again and again.
    """
    lost = replaced = 0
    best = -1
    while True:
        found = None if place.output is None else checkpoint.latest(place.output, place.config_hash, len(x_nd))
        try:
            crew.assemble()
            if found is None or place.output is None:
                report = crew.begin(x_nd)
                if report.largest <= enough:
                    return Driven(x_nd, report.largest, report.largest, 0, "start", 0, 0, None, replaced)
            else:
                report = crew.resume(place.output, found)
                say(f"pack: continues after pass {report.passes}")
            first = report.largest if found is None else found.first
            report = _passes(crew, report, first, passes, place, progress_seconds)
            best = max(best, report.passes)
            assert report.reason is not None
            rows_nd, largest = crew.finish(report.reason)
            made = max(report.passes - (found.passes if found else 0), 1)
            pairs, floats = report.pairs // made, report.floats // made
            resumed = found.passes if found else None
            return Driven(rows_nd, first, largest, report.passes, report.reason, pairs, floats, resumed, replaced)
        except PeerLostError as error:
            # the newest checkpoint is what is known to have been reached since
            reached = checkpoint.latest(place.output, place.config_hash, len(x_nd)) if place.output else None
            progressed = reached is not None and reached.passes > best
            best = max(best, -1 if reached is None else reached.passes)
            lost = 1 if progressed else lost + 1
            if lost > restarts:
                raise SynfaceError(
                    f"shards were lost {lost} times without a checkpoint in between; last: {error}. The same command "
                    "continues from the last checkpoint"
                ) from error
            say(f"pack: {error}; replacing the lost shards")
            metrics.add(metrics.WORK_LOST, "pack")
            replaced += 1


def _passes(crew: Crew, report: Report, first: float, passes: int, place: Place, progress_seconds: float) -> Report:
    """Orders of a few passes at a time until the solve is over."""
    progress = Progress("pack", passes, "passes", done=report.passes, interval=progress_seconds)
    pace = 1.0
    while report.reason is None:
        boundary = report.passes - report.passes % place.every + place.every
        until = min(report.passes + max(int(pace), 1), boundary)
        began, before = time.monotonic(), report.passes
        report = crew.advance(until)
        made = report.passes - before
        progress.advance(made, f"max cosine {report.largest:.4f}")
        metrics.add(metrics.PASSES, "pack", made)
        metrics.show(metrics.MAX_COSINE, "pack", report.largest)
        pace = progress_seconds * made / max(time.monotonic() - began, 1e-6)
        due = report.passes == boundary or stop_requested()
        if report.reason is None and place.output is not None and due:
            parts = tuple(sorted(crew.save(place.output), key=lambda part: part.start))
            seen = Checkpoint(place.config_hash, report.passes, first, report.largest, report.seconds, parts)
            checkpoint.mark(place.output, seen)
        if report.reason is None:
            check_stop()
    return report


def measure(crew: Crew, x_nd: Tensor, others_md: Tensor | None = None, restarts: int = RESTARTS) -> Tensor:
    """`crew.nearest`, again with other shards where some are lost."""
    for attempt in range(restarts + 1):
        try:
            return crew.nearest(x_nd, others_md)
        except PeerLostError as error:
            if attempt == restarts:
                raise
            say(f"pack: {error}; replacing the lost shards")
            crew.assemble()
    raise AssertionError("the last attempt returns or raises")


def joined(parts: list[Tensor]) -> Tensor:
    """Rows of shards in their order."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
