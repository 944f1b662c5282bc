"""What a generator is: the protocol, and what goes in and out of it."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from synface.generate.config import GenerateConfig
from synface.generate.plan import Identity, Item


@dataclass(frozen=True)
class Sample:
    """One generated image and what is known of it."""

    pixels: np.ndarray  # uint8 [size, size, 3] RGB
    attributes: dict[str, Any] = field(default_factory=dict)
    m: float | None = None
    similarity_target: float | None = None
    copied: bool = False  # of a given picture, which no other key changes: scored, but never refused


@dataclass(frozen=True)
class Failure:
    """An image that could not be made; it is quarantined with its key, the run goes on without it."""

    error: str


@dataclass(frozen=True)
class Description:
    """What is known of a generator before it is loaded.

    Attributes:
        name: as it stands in the images table.
        weights_sha256: digest of everything that decides its pixels besides the configuration.
        version: of the algorithm; stands in the manifest.
        licence: of what it makes (SPDX where there is one).
        sources: name -> licence of the material it was made from.
        source_type: term of `store.provenance.DIGITAL_SOURCE_TYPES`.
        images_per_minute: rough, on one core or GPU; the largest automatic shard.
        needs_embedding: whether it draws what an embedding says.
        embedder: name of the recognizer whose embeddings it understands; identities of another are refused.
        embedder_sha256: of that recognizer's weights; empty: any.
        embedding_dim: size of the embeddings that it draws; None: not known before it is loaded.
        teraflop_per_image: for the estimate of a dry run; None: nothing is estimated.
        network_gb: memory of the networks, likewise.
        inquiries_below: identities are left out so that all pairwise cosines stay below; None: all are drawn.
        negative: which other identity of the run each is guided away from: nearest, random; None: no one.
        digests: input field (dotted path) -> digest of what of it decides pixels, where that is less than its bytes.
    """

    name: str
    weights_sha256: str
    version: str
    licence: str
    sources: dict[str, str]
    source_type: str
    images_per_minute: int
    needs_embedding: bool
    embedder: str = ""
    embedder_sha256: str = ""
    embedding_dim: int | None = None
    teraflop_per_image: float | None = None
    network_gb: float = 0.0
    inquiries_below: float | None = None
    negative: str | None = None
    digests: dict[str, str] = field(default_factory=dict)


class Generator(Protocol):
    """Loaded once per actor, called with micro-batches.

    A generator is a class with these methods; ``GENERATORS`` and ``package.module:attribute`` name it. An
    image must depend on its item alone, never on its neighbours in the batch.
    """

    #: the ``attributes`` column: what `Sample.attributes` holds, always the same fields
    attributes: pa.StructType

    def __init__(self, config: GenerateConfig) -> None:
        """Load weights, set threads, warm up."""
        ...

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        """Check the configuration (InputError) and say what this generator is; cheap, loads nothing."""
        ...

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """Some of the first `config.num_identities` of a parametric generator's own space, by their labels.

        InputError if it has no such space.
        """
        ...

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        """One result per item, in order. At most `numerics.micro_batch` items come at once."""
        ...
