"""Which images are asked for, in which shard: pure, and the same however the work is done."""

import bisect
import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from synface.core.rng import KeyPart, derived_seed

#: automatic shards: about this many per data set, so that few actors stay balanced ...
SHARDS_WANTED = 16
#: ... but not smaller than this many images
SMALLEST_SHARD = 64


@dataclass(frozen=True)
class Identity:
    """One row of the identities table as a generator needs it; `label` is its row number."""

    label: int
    identity_id: str
    source: str
    seed: int
    embedding: np.ndarray | None = None  # float32 [d], unit norm
    nearest_cosine: float | None = None  # to another identity of the run; where the variation needs it
    reference: np.ndarray | None = None  # the inquiry's embedding by the scorer, float32 [d]; where images are scored
    negative: np.ndarray | None = None  # embedding of whom the images shall not be, float32 [d]; where that is asked


@dataclass(frozen=True)
class Item:
    """One image that is asked for. All its randomness comes from `key`.

    The key is (seed, identity_id, sample), and (..., "attempt", n) of the n-th time that it is made again.
    """

    identity: Identity
    sample: int
    key: tuple[KeyPart, ...]
    attempt: int = 0

    def again(self) -> "Item":
        """The same image under another key: a function of seed, identity, sample and attempt alone."""
        attempt = self.attempt + 1
        return replace(self, key=(*self.key[:3], "attempt", attempt), attempt=attempt)

    @property
    def seed(self) -> int:
        """The int64 that stands for the key in the images table."""
        return derived_seed(*self.key)


@dataclass(frozen=True)
class Shard:
    """What one shard asks for: identities x samples, and the hash of the configuration that its rows name."""

    number: int
    labels: range
    samples: range
    config_hash: str

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels) * len(self.samples)


@dataclass(frozen=True)
class Part:
    """Identities x samples that one version of a table added, in consecutive shards of whole identities."""

    labels: range
    samples: range
    identities_per_shard: int
    config_hash: str = ""  # empty: the run's own

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.labels) // self.identities_per_shard)

    def as_list(self) -> list[int | str]:
        """Plain data for the plan's file."""
        labels, samples = self.labels, self.samples
        return [labels.start, labels.stop, samples.start, samples.stop, self.identities_per_shard, self.config_hash]

    @classmethod
    def from_list(cls, data: list[int | str]) -> "Part":
        """The inverse of `as_list`. ValueError or TypeError for anything else."""
        first, stop, first_sample, stop_sample, per_shard = map(int, data[:5])
        (name,) = data[5:]
        if not (0 <= first < stop and 0 <= first_sample < stop_sample and per_shard > 0 and isinstance(name, str)):
            raise ValueError(f"no part of a plan: {data}")
        return cls(range(first, stop), range(first_sample, stop_sample), per_shard, name)


@dataclass(frozen=True)
class ShardPlan:
    """The parts of a table in the order in which they were asked for; shards are numbered through all of them."""

    parts: tuple[Part, ...]

    @functools.cached_property
    def _first(self) -> list[int]:
        return [0, *itertools.accumulate(part.shards for part in self.parts)]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self._first[-1]

    @property
    def identities(self) -> int:
        """Number of identities."""
        return max(part.labels.stop for part in self.parts)

    @property
    def images_per_identity(self) -> int:
        """Samples of each."""
        return max(part.samples.stop for part in self.parts)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(part.labels) * len(part.samples) for part in self.parts)

    def shard(self, number: int) -> Shard:
        """One shard's labels and samples."""
        index = bisect.bisect_right(self._first, number) - 1
        part = self.parts[index]
        start = part.labels.start + (number - self._first[index]) * part.identities_per_shard
        labels = range(start, min(start + part.identities_per_shard, part.labels.stop))
        return Shard(number, labels, part.samples, part.config_hash)

    def named(self, config_hash: str) -> "ShardPlan":
        """The same, with the run's own hash in the parts that it added."""
        return ShardPlan(tuple(replace(p, config_hash=p.config_hash or config_hash) for p in self.parts))


def plan_shards(
    identities: int,
    images_per_identity: int,
    images_per_shard: int | None,
    largest: int,
    before: ShardPlan | None = None,
) -> ShardPlan:
    """Divide the work.

    Args:
        identities: how many there are.
        images_per_identity: samples of each.
        images_per_shard: asked size, rounded to whole identities; None: automatic.
        largest: what the generator makes in about a minute; the automatic size never exceeds it.
        before: what stands already and is kept: only what is missing is planned, behind its shards.
    """
    parts = [] if before is None else list(before.parts)
    people, images = (0, 0) if before is None else (before.identities, before.images_per_identity)
    wanted = (
        (range(people), range(images, images_per_identity)),
        (range(people, identities), range(images_per_identity)),
    )
    for labels, samples in wanted:
        if not len(labels) or not len(samples):
            continue
        size = images_per_shard
        if size is None:
            even = math.ceil(len(labels) * len(samples) / SHARDS_WANTED)
            size = min(max(even, SMALLEST_SHARD), largest)
        parts.append(Part(labels, samples, max(1, size // len(samples))))
    return ShardPlan(tuple(parts))


def shard_items(seed: int, identities: list[Identity], samples: int | range) -> list[Item]:
    """The images of a shard in their order; an item's key is (seed, identity_id, sample) and nothing else."""
    numbers = range(samples) if isinstance(samples, int) else samples
    return [
        Item(identity, sample, (seed, identity.identity_id, sample)) for identity in identities for sample in numbers
    ]
