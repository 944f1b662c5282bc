"""Which images are asked for, in which shard: pure, and the same however the work is done."""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Item:
    """One image that is asked for. All its randomness comes from `key`."""

    identity: Identity
    sample: int
    key: tuple[KeyPart, ...]

    @property
    def seed(self) -> int:
        """The int64 that stands for the key in the images table."""
        return derived_seed(*self.key)


@dataclass(frozen=True)
class ShardPlan:
    """Shard s holds identities ``[s * per_shard, (s + 1) * per_shard)`` with all their samples."""

    identities: int
    images_per_identity: int
    identities_per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.identities // self.identities_per_shard)

    @property
    def images(self) -> int:
        """Number of images."""
        return self.identities * self.images_per_identity

    def rows(self, shard: int) -> range:
        """The identities' row numbers (labels) of one shard."""
        start = shard * self.identities_per_shard
        return range(start, min(start + self.identities_per_shard, self.identities))

    def images_in(self, shard: int) -> int:
        """Number of images that one shard asks for."""
        return len(self.rows(shard)) * self.images_per_identity


def plan_shards(identities: int, images_per_identity: int, images_per_shard: int | None, largest: int) -> ShardPlan:
    """Divide the work.

    Args:
        identities: how many there are.
        images_per_identity: samples of each.
        images_per_shard: asked size, rounded to whole identities; None: automatic.
        largest: what the generator makes in about a minute; the automatic size never exceeds it.
    """
    if images_per_shard is None:
        even = math.ceil(identities * images_per_identity / SHARDS_WANTED)
        images_per_shard = min(max(even, SMALLEST_SHARD), largest)
    return ShardPlan(identities, images_per_identity, max(1, images_per_shard // images_per_identity))


def shard_items(seed: int, identities: list[Identity], images_per_identity: int) -> list[Item]:
    """The images of a shard in their order; an item's key is (seed, identity_id, sample) and nothing else."""
    return [
        Item(identity, sample, (seed, identity.identity_id, sample))
        for identity in identities
        for sample in range(images_per_identity)
    ]
