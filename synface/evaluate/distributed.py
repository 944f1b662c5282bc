"""Rendering of benchmarks and embedding of pictures on Ray: the only file of this stage that imports it."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from synface.core import scores
from synface.core.errors import SynfaceError
from synface.core.rng import KeyPart
from synface.models import heads
from synface.models.embedding import Embedder
from synface.ops import cluster
from synface.ops.progress import Progress
from synface.store import images as image_files
from synface.store.formats.verification_bin import decode_images

#: pictures per embedding call: about a second of work
CHUNK = 256

RenderJob = tuple[str, str, int, tuple[tuple[KeyPart, ...], ...]]  # domain, stress, identity seed, keys
Rendered = list[tuple[bytes, dict[str, Any]]]


@lru_cache(maxsize=2)
def _renderer(size: int) -> heads.HeadRenderer:
    return heads.HeadRenderer(size)


def render_pictures(jobs: Sequence[RenderJob], size: int) -> list[Rendered]:
    """For every job (an identity and some keys) the encoded PNGs and what the renderer knows of them."""
    out = []
    for domain, stress, seed, keys in jobs:
        identity = heads.sample_identity(domain, seed)
        facts = heads.identity_attributes(identity)
        rows: Rendered = []
        for key in keys:
            variation = heads.sample_variation(domain, *key, stress=stress)
            render = _renderer(size).render(identity, variation)
            data = image_files.encode(render.image, "png", 0, "algorithmicMedia")
            rows.append((data, {**render.attributes, **{f"identity_{k}": v for k, v in facts.items()}}))
        out.append(rows)
    return out


@ray.remote(num_cpus=1, max_retries=3)
def _render_task(jobs: Sequence[RenderJob], size: int) -> list[Rendered]:
    return render_pictures(jobs, size)


@ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)
class _EmbedActor:
    """One process with its own copy of the recognizer."""

    def __init__(self, weights: str, device: str, threads: int, micro_batch: int):
        self._embedder = Embedder.from_pretrained(weights, device, threads, micro_batch)

    def embed(self, encoded: Sequence[bytes], side: int, where: str, first: int) -> np.ndarray:
        """Flip-summed unit rows float64 [n, d] of pictures `first`, `first` + 1, ... of a benchmark."""
        return embed_pictures(self._embedder, encoded, side, where, first)


def embed_pictures(embedder: Embedder, encoded: Sequence[bytes], side: int, where: str, first: int = 0) -> np.ndarray:
    """Unit sum of each picture's features and its mirror image's, float64 [n, d], as the field does."""
    images = decode_images(encoded, embedder.size, side, where, first)
    flipped = np.ascontiguousarray(images[:, :, ::-1])
    return scores.flip_sum(embedder.features(images), embedder.features(flipped))


def render_all(jobs: Sequence[RenderJob], size: int, per_task: int, label: str) -> Iterator[Rendered]:
    """`render_pictures` over Ray tasks; results in the order of the jobs."""
    cluster.connect()
    parts = [jobs[i : i + per_task] for i in range(0, len(jobs), per_task)]
    progress = Progress(label, sum(len(keys) for *_, keys in jobs), "pictures")
    results = _in_order(
        [lambda part=part: _render_task.remote(part, size) for part in parts],
        2 * _cpus(),
        lambda result: progress.advance(sum(len(rows) for rows in result)),
    )
    for result in results:
        yield from result


def embed_all(
    encoded: Sequence[bytes],
    side: int,
    where: str,
    weights: str,
    numerics: dict[str, Any],
    actors: int | None,
    label: str,
) -> np.ndarray:
    """`embed_pictures` over Ray actors, float64 [n, d]; the same bits for any number of actors."""
    cluster.connect()
    gpu = numerics["device"] == "cuda"
    threads = numerics["threads"]
    resources = ray.cluster_resources()
    available = int(resources.get("GPU", 0)) if gpu else max(1, _cpus() // threads)
    starts = range(0, len(encoded), CHUNK)
    count = max(1, min(actors or available, available, len(starts)))
    options = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": min(threads, _cpus())}
    pool = [_EmbedActor.options(**options).remote(weights, **numerics) for _ in range(count)]
    progress = Progress(label, len(encoded), "pictures")
    calls: list[Callable[[], Any]] = [
        lambda i=i, start=start: pool[i % count].embed.remote(encoded[start : start + CHUNK], side, where, start)
        for i, start in enumerate(starts)
    ]
    try:
        return np.concatenate(list(_in_order(calls, 2 * count, lambda rows: progress.advance(len(rows)))))
    finally:
        for actor in pool:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _in_order(calls: Sequence[Callable[[], Any]], ahead: int, done: Callable[[Any], None]) -> Iterator[Any]:
    """Results of calls in their order, at most `ahead` of them running or waiting to be read."""
    running: dict[int, Any] = {}
    try:
        for index in range(len(calls) + ahead):
            if index < len(calls):
                running[index] = calls[index]()
            if index >= ahead - 1 and (ready := index - ahead + 1) in running:
                result = _get(running.pop(ready))
                done(result)
                yield result
    finally:
        for reference in running.values():
            ray.cancel(reference)


def _get(reference: Any) -> Any:
    """A task's result; an error of ours as itself, not wrapped in Ray's."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, SynfaceError):
            raise error.cause from None
        raise
