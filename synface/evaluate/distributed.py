"""Rendering of benchmarks and embedding of pictures on Ray: the only file of this stage that imports it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import ray
from PIL import Image
from ray.exceptions import RayTaskError

from synface.core import scores, sphere
from synface.core.errors import SynfaceError
from synface.core.rng import KeyPart
from synface.evaluate.config import EvaluateHow
from synface.evaluate.faces_config import FacesHow
from synface.models import heads
from synface.models.embedding import Embedder
from synface.ops import cluster, demand
from synface.ops.progress import Progress
from synface.store import images as image_files
from synface.store import uri as uris
from synface.store.formats.verification_bin import decode_image, decode_images

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

    def embed(self, encoded: Sequence[bytes], side: int, where: str, first: int, flip: bool) -> np.ndarray:
        return embed_pictures(self._embedder, encoded, side, where, first, flip)

    def faces(self, folder: str, names: Sequence[str], landmark_n52: np.ndarray | None, flip: bool) -> np.ndarray:
        return face_features(self._embedder, folder, names, landmark_n52, flip)


def embed_pictures(
    embedder: Embedder, encoded: Sequence[bytes], side: int, where: str, first: int = 0, flip: bool = True
) -> np.ndarray:
    """Unit embeddings float64 [n, d] of pictures `first`, `first` + 1, ... of a set.

    With `flip` the unit sum of each picture's features and its mirror image's, as the field's verification does.
    """
    images = decode_images(encoded, embedder.size, side, where, first)
    features = embedder.features(images)
    if not flip:
        return scores.unit_rows(features)
    return scores.flip_sum(features, embedder.features(np.ascontiguousarray(images[:, :, ::-1])))


def face_features(
    embedder: Embedder, folder: str, names: Sequence[str], landmark_n52: np.ndarray | None, flip: bool
) -> np.ndarray:
    """Raw features float64 [n, d] of image files, their mirror images' added with `flip`.

    With landmarks each face is aligned first; without, the images are crops already and are resized.
    """
    size = embedder.size
    faces = np.empty((len(names), size, size, 3), np.uint8)
    for row, name in enumerate(names):
        where = uris.join(folder, name)
        data = uris.read_bytes(where)
        if landmark_n52 is None:
            image = decode_image(data, where)
            faces[row] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        else:
            faces[row] = image_files.align(image_files.decode(data, where), landmark_n52[row], size)
    features = embedder.features(faces).astype(np.float64)
    return features + embedder.features(np.ascontiguousarray(faces[:, :, ::-1])) if flip else features


def render_all(jobs: Sequence[RenderJob], size: int, per_task: int, label: str) -> Iterator[Rendered]:
    """`render_pictures` over Ray tasks; results in the order of the jobs."""
    cluster.connect()
    parts = [jobs[i : i + per_task] for i in range(0, len(jobs), per_task)]
    progress = Progress(label, sum(len(keys) for *_, keys in jobs), "pictures")
    results = _in_order(
        [lambda part=part: _render_task.remote(part, size) for part in parts],
        2 * _cpus(),
        lambda result: progress.advance_or_stop(sum(len(rows) for rows in result)),
    )
    for result in results:
        yield from result


class EmbedPool:
    """Actors that embed; use as a context manager, so that they end with the work."""

    def __init__(self, weights: str, numerics: dict[str, Any], how: EvaluateHow | FacesHow):
        cluster.connect()
        if numerics["device"] == "cuda":
            bundle = {"GPU": 1.0, "CPU": 0.0}
        else:
            bundle = {"GPU": 0.0, "CPU": demand.cpu_share(numerics["threads"], how.labels)}
        count = demand.pool("evaluate: one embedding actor", bundle, how.actors, labels=how.labels)
        actor = _EmbedActor.options(num_gpus=bundle["GPU"], num_cpus=bundle["CPU"], label_selector=how.labels or None)
        self._actors = [actor.remote(weights, **numerics) for _ in range(count)]

    def __enter__(self) -> "EmbedPool":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]

    def embed(
        self, encoded: Sequence[bytes], side: int, where: str, progress: Progress, flip: bool = True
    ) -> np.ndarray:
        """`embed_pictures` over the actors, float64 [n, d]; the same bits for any number of them."""
        pairs = zip(range(0, len(encoded), CHUNK), itertools.cycle(self._actors), strict=False)
        calls: list[Callable[[], Any]] = [
            lambda a=a, actor=actor: actor.embed.remote(encoded[a : a + CHUNK], side, where, a, flip)
            for a, actor in pairs
        ]
        results = _in_order(calls, 2 * len(self._actors), lambda rows: progress.advance_or_stop(len(rows)))
        return np.concatenate(list(results))

    def faces(
        self, folder: str, names: Sequence[str], landmark_n52: np.ndarray | None, flip: bool, progress: Progress
    ) -> Iterator[np.ndarray]:
        """`face_features` over the actors, a chunk of `CHUNK` faces at a time, in order."""
        calls: list[Callable[[], Any]] = []
        for first, actor in zip(range(0, len(names), CHUNK), itertools.cycle(self._actors), strict=False):
            part = slice(first, first + CHUNK)
            points = None if landmark_n52 is None else landmark_n52[part]
            calls.append(
                lambda actor=actor, part=part, points=points: actor.faces.remote(folder, names[part], points, flip)
            )
        yield from _in_order(calls, 2 * len(self._actors), lambda rows: progress.advance_or_stop(len(rows)))


@ray.remote(num_cpus=1, max_retries=3)
def _nearest_task(rows_nd: np.ndarray, reference_md: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return sphere.nearest_cosine(rows_nd, reference_md)


def nearest_reference(
    rows_nd: np.ndarray, reference_md: np.ndarray, block: int = 16_384
) -> tuple[np.ndarray, np.ndarray]:
    """`sphere.nearest_cosine(rows, reference)` over Ray tasks, a pair of blocks at a time."""
    cluster.connect()
    best, index = np.full(len(rows_nd), -np.inf, np.float32), np.zeros(len(rows_nd), np.int64)
    starts = range(0, len(rows_nd), block)
    for offset in range(0, len(reference_md), block):
        reference = ray.put(reference_md[offset : offset + block])
        calls: list[Callable[[], Any]] = [
            lambda a=a, reference=reference: _nearest_task.remote(rows_nd[a : a + block], reference) for a in starts
        ]
        for a, (value, where) in zip(starts, _in_order(calls, 2 * _cpus(), lambda _: None), strict=True):
            better = value > best[a : a + block]
            best[a : a + block][better] = value[better]
            index[a : a + block][better] = where[better] + offset
    return best, index


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
