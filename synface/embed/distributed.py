"""Embedding on Ray actors: the only file of this stage that imports Ray."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from ray.exceptions import RayTaskError
from ray.util import ActorPool

from synface.core.errors import SynfaceError
from synface.embed.config import EmbedConfig
from synface.embed.sources import Part, Picture, decode_all, read_part
from synface.models.embedding import Embedder
from synface.ops import cluster, demand

#: pictures that are decoded at a time
CHUNK = 512


@dataclass(frozen=True)
class Embedded:
    """One part's result: a row per picture."""

    identity_id: list[str]
    sample: np.ndarray  # int64 [n]
    seed: np.ndarray  # int64 [n]
    source: list[str]
    embedding: np.ndarray  # float32 [n, d], unit norm


def embed_pictures(embedder: Embedder, pictures: Sequence[Picture], flip: bool) -> np.ndarray:
    """Unit embeddings float32 [n, d] of encoded pictures."""
    parts = [np.zeros((0, embedder.dim), np.float32)]
    for start in range(0, len(pictures), CHUNK):
        pixels = np.stack(decode_all(pictures[start : start + CHUNK], embedder.size))
        parts.append(embedder.embed(pixels, flip))
    return np.concatenate(parts)


class EmbedWorker:
    """One process with its own copy of the recognizer."""

    def __init__(self, weights: str, device: str, threads: int, micro_batch: int, flip: bool, limit: int | None):
        self._embedder = Embedder.from_pretrained(weights, device, threads, micro_batch)
        self._flip, self._limit = flip, limit

    def embed(self, number: int, part: Part) -> tuple[int, Embedded]:
        """The part's number and its embeddings; samples beyond a table's limit are left out where they show."""
        pictures = read_part(part)
        if self._limit is not None and part.entry is not None:
            pictures = [p for p in pictures if p.sample < self._limit]
        return number, Embedded(
            [p.identity_id for p in pictures],
            np.array([p.sample for p in pictures], np.int64),
            np.array([p.seed for p in pictures], np.int64),
            [p.source for p in pictures],
            embed_pictures(self._embedder, pictures, self._flip),
        )


def embed_parts(config: EmbedConfig, weights: str, parts: dict[int, Part]) -> Iterator[tuple[int, Embedded]]:
    """(number, result) of every part, in the order of completion."""
    if not parts:
        return
    cluster.connect()
    numerics, how = config.numerics, config.how
    gpu = numerics.device == "cuda"
    cpus = demand.cpu_share(numerics.threads, how.labels)
    bundle = {"GPU": how.gpus_per_actor} if gpu else {"CPU": cpus}
    count = demand.pool("embed: one actor", bundle, how.actors, len(parts), how.labels)
    options: dict = {"num_gpus": how.gpus_per_actor, "num_cpus": 0} if gpu else {"num_cpus": cpus}
    options |= {"max_restarts": how.restarts, "max_task_retries": how.restarts, "label_selector": how.labels or None}
    actor_class = ray.remote(EmbedWorker).options(**options)
    actors = [
        actor_class.remote(
            weights, numerics.device, numerics.threads, numerics.micro_batch, config.flip, config.images_per_identity
        )
        for _ in range(count)
    ]
    pool = ActorPool(actors)
    for item in parts.items():
        pool.submit(lambda actor, given: actor.embed.remote(*given), item)
    try:
        while pool.has_next():
            number, result = pool.get_next_unordered()
            yield number, result
    except RayTaskError as error:
        if isinstance(error.cause, SynfaceError):
            raise error.cause from None
        raise
    finally:
        for actor in actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
