"""Shards of a packing in Ray actors: the only file of this stage that imports Ray.

Actors in one placement group, a CPU or GPU share each, exchange rows among themselves over torch.distributed
(`exchange.TorchLink`); Ray places them, carries orders, and tells when one has died. The rows of a dead actor are
lost with it, and its peers fail at their next exchange: all are then replaced and continue from the newest
checkpoint (`drive.drive`), which costs a few seconds and at most the passes since.
"""

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from synface.core.errors import SynfaceError
from synface.ops import cluster, demand
from synface.pack.checkpoint import Checkpoint, Part
from synface.pack.config import PackConfig
from synface.pack.drive import joined
from synface.pack.energy import nearest_cosines
from synface.pack.exchange import PeerLostError, RingExchange, TorchLink, row_ranges
from synface.pack.shard import Report, Shard, moved
from synface.pack.solver import Reason, Task, nearest_of_all

#: seconds that the survivors of a dead actor have to tell what they saw, before they are replaced too
LAST_WORDS_SECONDS = 2.0
#: a share of a CPU for the process beside a GPU
CPU_BESIDE_GPU = 1.0


class PackWorker:
    """The process of one shard; no method returns before every shard has done the same."""

    def __init__(self, rank: int, size: int, threads: int, device: str):
        torch.set_num_threads(threads)
        self.rank, self.size, self.device = rank, size, device
        self.link: TorchLink | None = None
        self.shard: Shard | None = None
        self.ranges: list[range] = []

    def address(self) -> str:
        """A free port of this node, where the shards find each other."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def join(self, address: str, timeout_seconds: float) -> None:
        """Connect to the other shards."""
        backend = "nccl" if self.device == "cuda" else "gloo"
        self.link = TorchLink(address, self.rank, self.size, backend, timeout_seconds)

    def take(self, task: Task, rows: int) -> None:
        """What is asked, and of how many rows in all."""
        assert self.link is not None, "join first"
        self.ranges = row_ranges(rows, self.size)
        shards = RingExchange(self.link, [len(r) for r in self.ranges])
        self.shard = Shard(moved(task, self.device), self.ranges[self.rank].start, shards)

    def begin(self, x_nd: np.ndarray) -> Report:
        """First rows of this shard."""
        return self._shard.begin(torch.tensor(x_nd, device=self.device))

    def resume(self, output: str, found: Checkpoint) -> Report:
        """This shard's rows of a checkpoint."""
        return self._shard.resume(output, found, self.ranges[self.rank], self.device)

    def advance(self, until: int) -> Report:
        """See `Shard`."""
        return self._shard.advance(until)

    def save(self, output: str) -> Part:
        """See `Shard`."""
        return self._shard.save(output)

    def finish(self, reason: Reason) -> tuple[np.ndarray, float]:
        """See `Shard`."""
        rows_nd, largest = self._shard.finish(reason)
        return rows_nd.cpu().numpy(), largest

    def nearest(self, x_nd: np.ndarray, rows: int, others_md: np.ndarray | None) -> np.ndarray:
        """Largest cosines of this shard's rows, which are given, to the others' rows or to any of all `rows` rows."""
        assert self.link is not None, "join first"
        x, tile = torch.tensor(x_nd, device=self.device), self._shard.task.tile
        if others_md is not None:
            return nearest_cosines(x, torch.tensor(others_md, device=self.device), tile)[0].cpu().numpy()
        shards = RingExchange(self.link, [len(r) for r in row_ranges(rows, self.size)])
        return nearest_of_all(x, None, shards, tile).cpu().numpy()

    def process(self) -> int:
        """This process's id."""
        return os.getpid()

    @property
    def _shard(self) -> Shard:
        assert self.shard is not None, "take first"
        return self.shard


class RayCrew:
    """Shards in Ray actors (`drive.Crew`)."""

    def __init__(self, config: PackConfig, task: Task, rows: int):
        cluster.connect()
        cluster.check_output_reachable(config.output)
        self.workers = config.how.workers
        self.config, self.rows = config, rows
        self.task = ray.put(task)  # one copy per node, not per worker
        bundle = bundle_of(config)
        demand.check_demand(f"pack: how.workers = {self.workers}", [bundle] * self.workers, labels=config.how.labels)
        self.group: PlacementGroup = placement_group(
            [bundle] * self.workers,
            strategy="PACK",
            bundle_label_selector=[config.how.labels] * self.workers if config.how.labels else None,  # type: ignore[arg-type]
        )
        self.actors: Sequence[Any] = []  # handles of PackWorker
        ray.get(self.group.ready())

    def assemble(self) -> None:
        """See `drive.Crew`. All are replaced when one is lost: the others' rows are of a later pass than its own."""
        self._dismiss()
        numerics, bundle = self.config.numerics, bundle_of(self.config)
        worker = ray.remote(PackWorker)
        self.actors = [
            worker.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank),
            ).remote(rank, self.workers, numerics.threads, numerics.device)
            for rank in range(self.workers)
        ]
        address = together([self.actors[0].address.remote()])[0]
        together([a.join.remote(address, self.config.how.exchange_timeout) for a in self.actors])
        together([a.take.remote(self.task, self.rows) for a in self.actors])

    def begin(self, x_nd: Tensor) -> Report:
        """See `drive.Crew`."""
        parts = [x_nd[r.start : r.stop].cpu().numpy() for r in row_ranges(len(x_nd), self.workers)]
        return busiest(together([a.begin.remote(x) for a, x in zip(self.actors, parts, strict=True)]))

    def resume(self, output: str, found: Checkpoint) -> Report:
        """See `drive.Crew`."""
        return busiest(together([a.resume.remote(output, found) for a in self.actors]))

    def advance(self, until: int) -> Report:
        """See `drive.Crew`."""
        return busiest(together([a.advance.remote(until) for a in self.actors]))

    def save(self, output: str) -> list[Part]:
        """See `drive.Crew`."""
        return together([a.save.remote(output) for a in self.actors])

    def finish(self, reason: Reason) -> tuple[Tensor, float]:
        """See `drive.Crew`."""
        ends = together([a.finish.remote(reason) for a in self.actors])
        return joined([torch.tensor(rows) for rows, _ in ends]), ends[0][1]

    def nearest(self, x_nd: Tensor, others_md: Tensor | None = None) -> Tensor:
        """See `drive.Crew`."""
        n = len(x_nd)
        parts = [x_nd[r.start : r.stop].cpu().numpy() for r in row_ranges(n, self.workers)]
        others = None if others_md is None else ray.put(others_md.cpu().numpy())
        orders = [a.nearest.remote(x, n, others) for a, x in zip(self.actors, parts, strict=True)]
        return joined([torch.tensor(part) for part in together(orders)])

    def processes(self) -> list[int]:
        """The workers' process ids, by rank."""
        return together([a.process.remote() for a in self.actors])

    def close(self) -> None:
        """See `drive.Crew`."""
        self._dismiss()
        remove_placement_group(self.group)

    def _dismiss(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


def bundle_of(config: PackConfig) -> dict[str, float]:
    """What one worker asks of the cluster: a GPU, or a CPU for each of its threads as far as there are so many."""
    if config.numerics.device == "cuda":
        return {"GPU": 1.0, "CPU": CPU_BESIDE_GPU}
    if config.how.cpus_per_worker is not None:
        return {"CPU": config.how.cpus_per_worker}
    threads = config.numerics.threads
    if demand.autoscaled():
        return {"CPU": float(threads)}
    return {"CPU": demand.cpu_share(threads, config.how.labels, config.how.workers)}


def busiest(reports: list[Report]) -> Report:
    """One report of all shards: they agree on the packing; counts are the largest."""
    first = reports[0]
    pairs, floats = max(r.pairs for r in reports), max(r.floats for r in reports)
    return Report(first.passes, first.largest, max(r.seconds for r in reports), first.reason, pairs, floats)


def together(references: list[Any]) -> list[Any]:
    """The answers of all shards to one order.

    Raises:
        PeerLostError: an actor died, or one lost its link to another.
        SynfaceError: an actor's own error.
    """
    waiting, errors = list(references), []
    deadline: float | None = None
    while waiting and (deadline is None or time.monotonic() < deadline):
        patience = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        done, waiting = ray.wait(waiting, num_returns=1, timeout=patience)
        for reference in done:
            try:
                ray.get(reference)
            except RayError as error:
                errors.append(error)
                # peers of a dead actor fail on their own; one that hangs instead is not waited for
                deadline = deadline or time.monotonic() + LAST_WORDS_SECONDS
    if not errors:
        return ray.get(references)
    for error in errors:
        if isinstance(error, RayActorError):
            raise PeerLostError(f"a worker died ({str(error).splitlines()[0]})") from error
    causes = [e.cause if isinstance(e, RayTaskError) else e for e in errors]
    own = next((c for c in causes if not isinstance(c, PeerLostError)), None)
    if own is None:
        raise PeerLostError(str(causes[0]))
    if isinstance(own, SynfaceError):
        raise own
    raise errors[0]
