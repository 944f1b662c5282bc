"""Training images: which there are, in which order an epoch takes them, and how a batch is fetched.

The order of an epoch is a pure function of the seed, the epoch and the tables' shards, known before any
image is read; so a training resumes in the middle of an epoch, and every rank knows its part of each batch.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synface.core import rng
from synface.core.errors import InputError
from synface.store import artifact, images, tables
from synface.store import uri as uris
from synface.train import sources
from synface.train.config import Source
from synface.train.sources import ForeignShard

COLUMNS = ("image", "identity_id")
GIB = 1 << 30


@dataclass(frozen=True)
class Shard:
    """One file of a table, and where its rows stand in the catalogue."""

    uri: str
    entry: artifact.FileEntry
    start: int
    rows: int

    @property
    def where(self) -> str:
        """For messages."""
        return uris.join(self.uri, self.entry.path)

    def files(self) -> list[bytes]:
        """The image files, in order."""
        return encoded(read_shard(self))


@dataclass(frozen=True)
class Catalog:
    """All training images without their pixels.

    Attributes:
        shards: in the order of the tables and their manifests, then of the sources.
        labels: class of every image, int64 [n].
        classes: name of every class, sorted.
        encoded_bytes: of all images.
        repeat: how often an epoch takes the images of each shard.
        kept: which images are trained on, bool [n]; None: all. The label of any other is -1.
    """

    shards: tuple[Shard | ForeignShard, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    encoded_bytes: int
    repeat: tuple[float, ...] = ()
    kept: np.ndarray | None = None

    @property
    def used(self) -> int:
        """Different images that are trained on."""
        return len(self) if self.kept is None else int(self.kept.sum())

    @property
    def per_epoch(self) -> int:
        """Images that an epoch takes."""
        if self.kept is not None:
            return self.used
        return sum(drawn(s.rows, r) for s, r in zip(self.shards, self.repeat or [1] * len(self.shards), strict=True))

    def __len__(self) -> int:
        return len(self.labels)


def read_shard(shard: Shard) -> pa.Table:
    """A shard's images and identities, its digest verified."""
    table = tables.parse_parquet(tables.read_listed(shard.uri, shard.entry), shard.where)
    missing = [c for c in COLUMNS if c not in table.column_names]
    if missing:
        raise InputError(f"{shard.where}: no column {missing[0]!r}; an images table has image and identity_id")
    return table.select(list(COLUMNS))


def encoded(table: pa.Table) -> list[bytes]:
    """The image files of a shard."""
    column = table["image"].combine_chunks()
    return pa.chunked_array([column.field("bytes")]).to_pylist()


def scan(
    table_uris: Sequence[str], image_size: int, merge_identities: bool = False,
    foreign: Sequence[Source] = (), repeat: Sequence[float] = (),
) -> Catalog:  # fmt: skip
    """Read the tables once: classes, labels and the size of the first image of every shard.

    Args:
        table_uris: images tables.
        image_size: side of every image, pixels.
        merge_identities: equal ids in two tables are one class.
        foreign: sources in foreign formats; their classes come after the tables'.
        repeat: how often an epoch takes each table's, then each source's images; empty: once.

    Raises:
        InputError: no such table, damaged files, images of another size, fewer than two classes.
    """
    names: list[str] = []
    shards: list[Shard | ForeignShard] = []
    repeats: list[float] = []
    start = size = 0
    alone = merge_identities or len(table_uris) + len(foreign) == 1
    for number, table_uri in enumerate(table_uris):
        artifact.require(table_uri, "images")
        place = uris.absolute(table_uri)  # workers may have another folder
        for entry in tables.listed_files(place):
            shard = Shard(place, entry, start, entry.rows or 0)
            table = read_shard(shard)
            shard = Shard(place, entry, start, table.num_rows)
            if table.num_rows:
                files = encoded(table)
                check_size(images.decode(files[0] or b"", shard.where), image_size, shard.where)
                size += sum(len(f) for f in files if f)
                shards.append(shard)
                repeats += repeat[number : number + 1]
                prefix = "" if alone else f"{number}/"
                names += [prefix + i for i in table["identity_id"].to_pylist()]
            start += table.num_rows
    for number, source in enumerate(foreign, len(table_uris)):
        for found in sources.scan(source, start):
            check_size(images.decode(found.first, found.shard.where), image_size, found.shard.where)
            shards.append(found.shard)
            repeats += repeat[number : number + 1]
            names += [i if alone else f"{number}/{i}" for i in found.identities]
            size += found.encoded_bytes
            start += found.shard.rows
    classes = sorted(set(names))
    places = [*table_uris, *(source.uri for source in foreign)]
    if len(classes) < 2:
        raise InputError(
            f"images {', '.join(places)}: {len(names)} images of {len(classes)} identity; training needs at "
            "least two identities"
        )
    number_of = {name: i for i, name in enumerate(classes)}
    labels = np.fromiter((number_of[n] for n in names), np.int64, len(names))
    return Catalog(tuple(shards), labels, tuple(classes), size, tuple(repeats))


def check_size(pixels: np.ndarray, image_size: int, where: str) -> None:
    """InputError unless the image is square with `image_size` pixels a side."""
    if pixels.shape[:2] != (image_size, image_size):
        raise InputError(
            f"{where}: images are {pixels.shape[1]}x{pixels.shape[0]} pixels, image_size asks {image_size}; set "
            f"image_size to the table's, or generate the table at {image_size}"
        )


def drawn(rows: int, repeat: float) -> int:
    """How many images an epoch takes of a shard."""
    return round(rows * repeat)


def drawn_rows(rows: int, repeat: float, *key: rng.KeyPart) -> np.ndarray:
    """Rows of a shard that an epoch takes, int64: all of them as often as whole, and a keyed choice for the rest."""
    whole, rest = divmod(drawn(rows, repeat), max(rows, 1))
    parts = [np.arange(rows)] * whole
    if rest:
        parts.append(rng.permutation(rows, *key)[:rest])
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def epoch_order(
    shard_rows: Sequence[int], window: int | None, seed: int, epoch: int, repeat: Sequence[float] = ()
) -> np.ndarray:
    """The order of the images in one epoch, int64.

    Args:
        shard_rows: images of each shard.
        window: None: one permutation of everything. Else the shards are permuted, and the images within
            each run of `window` shards: then only those shards are needed at a time.
        seed: of the training.
        epoch: 0-based.
        repeat: how often the images of each shard are taken; empty: once.
    """
    total = int(sum(shard_rows))
    if window is None and not repeat:
        return rng.permutation(total, seed, "epoch", epoch)
    starts = [0, *itertools.accumulate(shard_rows)]
    taken = [
        starts[s] + drawn_rows(rows, repeat[s] if repeat else 1, seed, "repeat", epoch, s)
        for s, rows in enumerate(shard_rows)
    ]
    if window is None:
        everything = np.concatenate(taken)
        return everything[rng.permutation(len(everything), seed, "epoch", epoch)]
    order = rng.permutation(len(shard_rows), seed, "shards", epoch)
    parts = []
    for number, begin in enumerate(range(0, len(order), window)):
        rows = np.concatenate([taken[s] for s in order[begin : begin + window]])
        parts.append(rows[rng.permutation(len(rows), seed, "window", epoch, number)])
    return np.concatenate(parts)


def rank_slice(step: int, batch: int, rank: int, world: int) -> slice:
    """The part of an epoch's order that one rank takes at one step of global batch size `batch`."""
    own = batch // world
    return slice(step * batch + rank * own, step * batch + (rank + 1) * own)


def steps_per_epoch(count: int, batch: int) -> int:
    """Whole batches in an epoch; the rest of the order is left for other epochs.

    Raises:
        InputError: fewer images than one batch.
    """
    if count < batch:
        raise InputError(f"global_batch_size {batch} is larger than the {count} training images; make it smaller")
    return count // batch


class ImageSource:
    """Pixels by image number: all decoded, all encoded, or (streaming) the encoded shards of one window.

    Args:
        catalog: of `scan`.
        image_size: side of every image, pixels.
        memory_bytes: what the images may take.
        window: shards that an epoch's order mixes at a time; None: all.
        threads: for decoding.
    """

    def __init__(
        self, catalog: Catalog, image_size: int, memory_bytes: float, window: int | None = None, threads: int = 2
    ):
        self._catalog, self._size = catalog, image_size
        self._starts = np.array([s.start for s in catalog.shards])
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._decoded: np.ndarray | None = None
        self._files: dict[int, list[bytes]] = {}
        # two windows: a batch may end one and begin the next
        self._keep = len(catalog.shards) if window is None else min(2 * window + 1, len(catalog.shards))
        decoded_bytes = len(catalog) * image_size * image_size * 3
        if decoded_bytes <= memory_bytes:
            self._decoded = np.empty((len(catalog), image_size, image_size, 3), np.uint8)
            for shard in catalog.shards:
                self._decode(shard.files(), shard.where, self._decoded[shard.start : shard.start + shard.rows])
        elif window is None and catalog.encoded_bytes > memory_bytes:
            raise InputError(
                f"{len(catalog)} images take {catalog.encoded_bytes / GIB:.1f} GiB encoded, how.memory_gb allows "
                f"{memory_bytes / GIB:.1f} per worker; raise it, or set shuffle_shards (e.g. 8) to stream"
            )

    @property
    def streams(self) -> bool:
        """Whether batches are decoded as they are asked for."""
        return self._decoded is None

    def take(self, index_n: np.ndarray) -> np.ndarray:
        """Images uint8 [n, s, s, 3]."""
        if self._decoded is not None:
            return self._decoded[index_n]
        shard_n = np.searchsorted(self._starts, index_n, side="right") - 1
        out = np.empty((len(index_n), self._size, self._size, 3), np.uint8)
        files = [b""] * len(index_n)
        for number in np.unique(shard_n):
            loaded = self._load(int(number))
            for place in np.flatnonzero(shard_n == number):
                files[place] = loaded[int(index_n[place] - self._starts[number])]
        self._decode(files, "training image", out)
        return out

    def _load(self, number: int) -> list[bytes]:
        """A shard's files; the most recently used shards are kept."""
        files = self._files.pop(number, None)
        if files is None:
            while len(self._files) >= self._keep:
                self._files.pop(next(iter(self._files)))
            files = self._catalog.shards[number].files()
        self._files[number] = files
        return files

    def _decode(self, files: Sequence[bytes], where: str, out: np.ndarray) -> None:
        def part(rows: range) -> None:
            for row in rows:
                pixels = images.decode(files[row] or b"", f"{where} (row {row})")
                check_size(pixels, self._size, f"{where} (row {row})")
                out[row] = pixels

        step = -(-len(files) // self._threads) or 1
        list(self._pool.map(part, [range(a, min(a + step, len(files))) for a in range(0, len(files), step)]))

    def close(self) -> None:
        """End the decoding threads."""
        self._pool.shutdown(cancel_futures=True)


def prefetched(make: Iterator, depth: int) -> Iterator:
    """The items of `make`, up to `depth` of them made ahead on one other thread; 0: none."""
    if depth == 0:
        yield from make
        return
    end = object()
    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(next, make, end) for _ in range(depth)]
        for turn in itertools.count():
            item = ahead[turn % depth].result()
            if item is end:
                break
            ahead[turn % depth] = pool.submit(next, make, end)
            yield item
