"""How the shards of one packing see each other's rows: half a ring, each pair of points computed once.

Shard r of k holds a contiguous range of the rows. In step s = 1, 2, ... of a pass it meets shard r + s (mod k): it
fetches their rows, computes the pairs of both (`energy.block_energy`), adds its side of the pull and gives theirs
back. After floor((k - 1) / 2) steps every two shards have met but the opposite ones of an even k, whose pairs are
shared out: one takes half of its rows against all of theirs, the other all of its own against the other half.

So a pass over n rows in d dimensions costs each shard 3 n^2 d / k floating-point operations, the k-th part of the
work of a single device (an all-gather, where every shard computes its rows against all others, costs 4 n^2 d / k),
and each receives at most n d numbers: rows fetched and pulls given back. The next rows are in flight while a tile
is computed, and a pull travels home during the step after its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Protocol

import torch.distributed as dist
from torch import Tensor

from synface.core.errors import SynfaceError


class PeerLostError(SynfaceError):
    """Another shard stopped answering; what it held is lost."""


class Meeting(NamedTuple):
    """Pairs that a shard computes with another: `mine` of its rows with `theirs` of the rows of shard `owner`."""

    owner: int
    mine: slice
    theirs: slice


def row_ranges(n: int, k: int) -> list[range]:
    """The rows of each of k shards, contiguous, sizes equal or one apart."""
    return [range(n * r // k, n * (r + 1) // k) for r in range(k)]


def meeting(rank: int, step: int, sizes: list[int]) -> Meeting:
    """Whom shard `rank` meets in a step (0 to k // 2 - 1) of a pass: every pair of rows of two shards meets once."""
    k = len(sizes)
    other = (rank + step + 1) % k
    if 2 * (step + 1) < k:
        return Meeting(other, slice(0, sizes[rank]), slice(0, sizes[other]))
    half = (sizes[min(rank, other)] + 1) // 2  # opposite shards of an even ring see each other in the same step
    if rank < other:
        return Meeting(other, slice(0, half), slice(0, sizes[other]))
    return Meeting(other, slice(0, sizes[rank]), slice(half, sizes[other]))


def meetings(rank: int, sizes: list[int]) -> list[Meeting]:
    """All meetings of shard `rank` in a pass."""
    return [meeting(rank, step, sizes) for step in range(len(sizes) // 2)]


class Cost(NamedTuple):
    """Of one pass, for the busiest shard: pairs of rows computed, numbers received over the links."""

    pairs: int
    floats: int


def cost(n: int, d: int, k: int) -> Cost:
    """Work and traffic of a pass by `meetings`; a pair takes 6 d operations (a product of length d, three times)."""
    sizes = [len(r) for r in row_ranges(n, k)]
    pairs = [s * (s - 1) // 2 for s in sizes]
    floats = [0] * k
    for rank in range(k):
        for owner, mine, theirs in meetings(rank, sizes):
            pairs[rank] += _count(mine) * _count(theirs)
            floats[rank] += d * _count(theirs)  # rows fetched
            floats[owner] += d * _count(theirs)  # pull given back
    return Cost(max(pairs), max(floats))


def _count(part: slice) -> int:
    return part.stop - part.start


class Exchange(Protocol):
    """What a shard asks of the others; `LocalExchange` where there are none."""

    def meet(self, rows_nd: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For each meeting of a pass: which of my rows take part, and the others' rows [m, d]."""
        ...

    def give_back(self, theirs: Tensor, mine: Tensor, combine: Callable[[Tensor, Tensor], object]) -> None:
        """Send what the last meeting found for the others' rows to their owner, without waiting for it; what came
        back for my rows from the step before goes into `mine` by `combine(part of mine, what came)`.
        """
        ...

    def settle(self) -> None:
        """Wait for all that is still under way."""
        ...

    def total(self, value: Tensor) -> Tensor:
        """The sum of a scalar over the shards."""
        ...

    def largest(self, value: Tensor) -> Tensor:
        """The maximum of a scalar over the shards."""
        ...


class LocalExchange:
    """One shard holds every point."""

    def meet(self, rows_nd: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Nobody."""
        return iter(())

    def give_back(self, theirs: Tensor, mine: Tensor, combine: Callable[[Tensor, Tensor], object]) -> None:
        """Nothing to give."""

    def settle(self) -> None:
        """Nothing under way."""

    def total(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def largest(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


class Wait(Protocol):
    """A transfer under way."""

    def __call__(self) -> None:
        """Return when it is finished; PeerLostError where it cannot be."""
        ...


class Link(Protocol):
    """How tensors travel: pairs of `post` are matched by their order between two shards."""

    rank: int
    size: int

    def post(self, sends: list[tuple[int, Tensor]], receives: list[tuple[int, Tensor]]) -> Wait:
        """Start to send to, and to receive from, the named shards; the tensors stay untouched until waited for."""
        ...

    def reduce(self, value: Tensor, largest: bool) -> Tensor:
        """Sum or maximum of a scalar over all shards, the same on each."""
        ...


@dataclass
class RingExchange:
    """The half ring of this file over any `Link`; rows of every shard: `sizes`."""

    link: Link
    sizes: list[int]
    received: int = 0  # numbers, all passes
    _step: int = 0
    _waits: list[Wait] = field(default_factory=list)
    _returning: Callable[[], None] | None = None

    def meet(self, rows_nd: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """See `Exchange`. The rows of the next meeting are asked for before those of this one are handed out."""
        plan = meetings(self.link.rank, self.sizes)
        coming = self._fetch(0, plan, rows_nd)
        for self._step, (_, mine, _) in enumerate(plan):
            others_md, arrived = coming
            arrived()
            coming = self._fetch(self._step + 1, plan, rows_nd)
            yield mine, others_md

    def _fetch(self, step: int, plan: list[Meeting], rows_nd: Tensor) -> tuple[Tensor, Wait]:
        if step >= len(plan):
            return rows_nd[:0], _done
        owner, _, theirs = plan[step]
        visitor, shown = self._visit(step)
        others_md = rows_nd.new_empty(_count(theirs), rows_nd.shape[1])
        self.received += others_md.numel()
        return others_md, self.link.post([(visitor, rows_nd[shown])], [(owner, others_md)])

    def _visit(self, step: int) -> tuple[int, slice]:
        """Who meets this shard in a step, and which of its rows."""
        me, k = self.link.rank, self.link.size
        visitor = (me - step - 1) % k
        met = meeting(visitor, step, self.sizes)
        assert met.owner == me
        return visitor, met.theirs

    def give_back(self, theirs: Tensor, mine: Tensor, combine: Callable[[Tensor, Tensor], object]) -> None:
        """See `Exchange`."""
        self._take_returned()
        visitor, shown = self._visit(self._step)
        owner = meeting(self.link.rank, self._step, self.sizes).owner
        back = mine[shown].clone()
        self.received += back.numel()
        arrived = self.link.post([(owner, theirs)], [(visitor, back)])

        def take() -> None:
            arrived()
            combine(mine[shown], back)

        self._returning = take

    def _take_returned(self) -> None:
        returning, self._returning = self._returning, None
        if returning is not None:
            returning()

    def settle(self) -> None:
        """See `Exchange`."""
        self._take_returned()

    def total(self, value: Tensor) -> Tensor:
        """See `Exchange`."""
        return self.link.reduce(value, largest=False)

    def largest(self, value: Tensor) -> Tensor:
        """See `Exchange`."""
        return self.link.reduce(value, largest=True)


def _done() -> None:
    """Nothing was asked for."""


class TorchLink:
    """Links of torch.distributed: gloo between CPUs, nccl between GPUs. One per process."""

    def __init__(self, address: str, rank: int, size: int, backend: str, timeout_seconds: float):
        self.rank, self.size = rank, size
        timeout = timedelta(seconds=timeout_seconds)
        try:
            dist.init_process_group(backend, init_method=address, rank=rank, world_size=size, timeout=timeout)
        except (RuntimeError, ValueError) as error:
            raise PeerLostError(f"shard {rank} of {size} found no way to the others at {address}: {error}") from error

    def post(self, sends: list[tuple[int, Tensor]], receives: list[tuple[int, Tensor]]) -> Wait:
        """See `Link`. Both directions in one batch, which is what nccl needs to not lock up."""
        operations = [dist.P2POp(dist.isend, t.contiguous(), peer) for peer, t in sends if len(t)]
        operations += [dist.P2POp(dist.irecv, t, peer) for peer, t in receives if len(t)]
        with _peers():
            works = dist.batch_isend_irecv(operations) if operations else []

        def wait() -> None:
            with _peers():
                for work in works:
                    work.wait()

        return wait

    def reduce(self, value: Tensor, largest: bool) -> Tensor:
        """See `Link`."""
        whole = value.clone()
        with _peers():
            dist.all_reduce(whole, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
        return whole

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Within: what torch.distributed raises for a lost peer is a `PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"a shard stopped answering: {str(error).splitlines()[0]}") from error
