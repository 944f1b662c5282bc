"""Embeddings of benchmarks and tables, kept by what they are made from: another question to them embeds nothing.

An entry's name hashes the pictures, the recognizer and everything that decides the bits of an embedding. Its file is
the sha256 of the rest and an array; a damaged one is told and made again. The folder is kept below a size: whoever
ends last removes the oldest entries, while nobody holds a lease on it (`store.leases`).
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from synface.core.errors import SynfaceError
from synface.models.weights import WeightsConfig
from synface.ops.cluster import versions
from synface.ops.progress import Progress, say
from synface.settings import config_hash
from synface.store import leases
from synface.store import uri as uris

FOLDER = "embeddings"
SUFFIX = ".embedding"
#: raise it when the same pictures, weights and settings give other embeddings than before
VERSION = 1
#: packages that decide the bits of an embedding
DECIDING = ("synface", "torch", "numpy", "pillow")
DIGEST_BYTES = 32
GB = 1e9


def key(
    digests: Iterable[bytes], side: int, flip: bool, recognizer: WeightsConfig, numerics: dict[str, Any]
) -> str | None:
    """What names the embeddings of some pictures; None where they depend on code that has no digest (a plug-in).

    Args:
        digests: sha256 of every encoded picture, in order.
        side: of the pictures, pixels.
        flip: whether the mirror images' features are added.
        recognizer: as its config.json states it.
        numerics: of the embedding actors.
    """
    if ":" in recognizer.architecture:
        return None
    asked = {
        "version": VERSION,
        "pictures": hashlib.sha256(b"".join(digests)).hexdigest(),
        "side": side,
        "flip": flip,
        "recognizer": asdict(recognizer),
        "numerics": numerics,
        "versions": {name: v for name, v in versions().items() if name in DECIDING},
    }
    return config_hash(asked)


@contextlib.contextmanager
def opened(cache: str, limit_gb: float) -> Iterator[str | None]:
    """The folder of embeddings below a cache, under a lease; None where none are to be kept, or it cannot be written.

    At the end it is trimmed to `limit_gb` (10^9 bytes).
    """
    folder = uris.join(cache, FOLDER)
    with contextlib.ExitStack() as stack:
        usable = limit_gb > 0
        if usable:
            try:
                stack.enter_context(leases.held(folder, "evaluate"))
            except (SynfaceError, OSError) as error:
                usable = False
                say(f"evaluate: embeddings are not kept: {error}")
        yield folder if usable else None
    if usable:
        with contextlib.suppress(SynfaceError, OSError):  # the next evaluation trims it
            trim(folder, limit_gb * GB)


def kept_or_made(
    folder: str | None, name: str | None, limit_gb: float, progress: Progress, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """The embeddings float64 [n, d] of a key: those that are kept, else what `make` gives, which is then kept."""
    found = read(folder, name)
    if found is not None:
        progress.advance(len(found), f"kept in {folder}")
        return found
    made = make()
    keep(folder, name, made, limit_gb)
    return made


def read(folder: str | None, name: str | None) -> np.ndarray | None:
    """The embeddings float64 [n, d] of a key, or None where they are not kept or damaged."""
    if folder is None or name is None:
        return None
    place = uris.join(folder, name + SUFFIX)
    try:
        if not uris.exists(place):
            return None
        data = uris.read_bytes(place)
    except (SynfaceError, OSError):  # removed meanwhile, or a store that is away
        return None
    if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
        say(f"evaluate: {place} is damaged; its pictures are embedded again")
        return None
    return np.load(io.BytesIO(data[DIGEST_BYTES:]), allow_pickle=False)


def keep(folder: str | None, name: str | None, embedding_nd: np.ndarray, limit_gb: float) -> None:
    """Write an entry whole; nothing where it alone exceeds the limit, or cannot be written."""
    if folder is None or name is None or embedding_nd.nbytes > limit_gb * GB:
        return
    sink = io.BytesIO()
    np.save(sink, embedding_nd, allow_pickle=False)
    data = sink.getvalue()
    try:
        uris.write_bytes(uris.join(folder, name + SUFFIX), hashlib.sha256(data).digest() + data)
    except (SynfaceError, OSError) as error:
        say(f"evaluate: embeddings are not kept: {error}")


def trim(folder: str, limit: float) -> list[str]:
    """Remove the oldest entries beyond `limit` bytes, and what killed runs left; nothing while a run is under way.

    Returns:
        what was removed.
    """
    infos = uris.list_infos(folder, recursive=False)
    now = uris.store_time(folder)
    if leases.living(folder, now):  # read after the files were listed: who reads or writes them has its lease then
        return []
    entries = sorted((changed, path, size) for path, size, changed in infos if path.endswith(SUFFIX))
    excess = sum(size for *_, size in entries) - limit
    removed = leases.dead(folder, now)
    removed += [p for p, _, t in infos if p.endswith(".tmp") and now - t >= leases.LEASE_SECONDS]
    for _, path, size in entries:
        if excess <= 0:
            break
        removed.append(path)
        excess -= size
    for path in removed:
        uris.delete_file(uris.join(folder, path))
    return removed
