"""The verb ``import``: images in a foreign format become an images table. Streams; memory is one shard."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError, PartialError
from synface.store import artifact, card, cost, huggingface, images, ledger, schemas, tables
from synface.store import uri as uris
from synface.store.formats import folder, lmdb_file, recordio, webdataset, zipped
from synface.store.formats.found import FoundImage
from synface.store.import_config import ImportConfig

#: format -> reader of a URI
READERS: dict[str, Callable[[str], Iterator[FoundImage]]] = {
    "folder": folder.read,
    "lmdb": lmdb_file.read,
    "recordio": recordio.read,
    "webdataset": webdataset.read,
    "zip": zipped.read,
}
#: of one core, beside other work, rounded down
MEASURED_IMAGES_PER_SECOND = 900.0
ATTRIBUTES = pa.struct([("place", pa.string())])


def plan(config: ImportConfig) -> dict[str, Any]:
    """How many files of which size stand at the source, and what copying them takes."""
    files = _source_files(config.source)
    size = sum(size for _, size in files)
    return {"files": len(files), "bytes": size, "estimate": estimate(config)}


def estimate(config: ImportConfig) -> dict[str, Any]:
    """Hours, requests and bytes (`store.cost`); how many images an archive holds is not known before it is read."""
    images = traffic = None
    if config.format == "folder":
        sizes = [size for _, _, size in folder.entries(config.source)]
        images = len(sizes)
        shards = max(1, math.ceil(images / config.images_per_shard))
        traffic = cost.read(sum(sizes), images) + cost.table_written(shards, sum(sizes))
    rate = cost.rate_of(None, MEASURED_IMAGES_PER_SECOND, "measured once, jpeg of 64 pixels from a local folder")
    return cost.estimate(images, "images", rate, 1.0, 0.0, traffic, workers=1)


def run(config: ImportConfig) -> dict[str, Any]:
    """Copy the images as they are into shards; labels count identities in the order in which they come.

    Raises:
        PartialError: some images are damaged or of another size; the table without them is whole.
        InputError: no images there, or a source that is damaged as a whole.
    """
    started = time.monotonic()
    config = config.model_copy(update={"output": uris.absolute(config.output)})
    listing = artifact.sha256_hex(repr(_source_files(config.source)).encode())
    opened = artifact.open_output(config, digests={"source": listing})
    numbers = _copy(config, opened) if opened.finished is None else opened.finished.numbers
    result = {"uri": config.output, **numbers, "cached": opened.finished is not None}
    result["seconds"] = round(time.monotonic() - started, 3)
    if numbers["failed"]:
        error = PartialError(
            f"{config.source}: {numbers['failed']} images left out; first: {numbers['first_failure']}"
        )
        error.numbers = result  # type: ignore[attr-defined]
        raise error
    return result


def _source_files(source: str) -> list[tuple[str, int]]:
    if uris.is_file(source):
        place, _, name = uris.absolute(source).rpartition("/")
        return [(p, size) for p, size in uris.list_files(place, recursive=False) if p == name]
    files = uris.list_files(source)
    if not files:
        raise InputError(f"{source}: no files there")
    return files


def _copy(config: ImportConfig, opened: artifact.Opened) -> dict[str, Any]:
    rows = _Rows(config, opened.config_hash)
    entries: list[ledger.ShardEntry] = []

    def write_out() -> None:
        data = tables.parquet_bytes(rows.take())
        count = rows.taken
        entries.append(ledger.write_shard(config.output, len(entries), data, count, opened.config_hash))

    for found in READERS[config.format](config.source):
        rows.add(found)
        if rows.waiting == config.images_per_shard:
            write_out()
    if rows.waiting:
        write_out()
    if not entries:
        raise InputError(f"{config.source}: no readable images of format {config.format!r} there")
    numbers = {
        "images": sum(e.rows for e in entries),
        "identities": rows.identities,
        "shards": len(entries),
        "bytes": sum(e.bytes for e in entries),
        "failed": len(rows.failures),
        "generator": config.name,
        "weights_sha256": "",
        "image_size": rows.size,
        "licence": config.licence,
        "sources": {},
        "source_type": config.source_type,
    }
    if rows.failures:
        numbers["first_failure"] = rows.failures[0]
    card.publish(config.output, artifact.build_manifest(config, opened, "images", [e.file for e in entries], numbers))
    return numbers


class _Rows:
    """Collects rows of a shard; numbers identities and their samples."""

    def __init__(self, config: ImportConfig, config_hash: str):
        self._config, self._hash = config, config_hash
        self._rows: list[dict[str, Any]] = []
        self._labels: dict[str, int] = {}
        self._samples: dict[str, int] = {}
        self.failures: list[str] = []
        self.size = self.taken = 0

    @property
    def waiting(self) -> int:
        return len(self._rows)

    @property
    def identities(self) -> int:
        return len(self._labels)

    def add(self, found: FoundImage) -> None:
        """Check one image and take it, or note why not."""
        try:
            height, width = images.decode(found.data, found.place).shape[:2]
        except InputError as error:
            self.failures.append(str(error))
            return
        self.size = self.size or height
        if (height, width) != (self.size, self.size):
            self.failures.append(f"{found.place}: {width}x{height} pixels, the first one has {self.size}x{self.size}")
            return
        label = self._labels.setdefault(found.identity_id, len(self._labels))
        sample = self._samples.get(found.identity_id, 0)
        self._samples[found.identity_id] = sample + 1
        self._rows.append(
            {
                "image": {"bytes": found.data, "path": f"{label:07d}_{sample:05d}.{images.suffix_of(found.data)}"},
                "label": label,
                "identity_id": found.identity_id,
                "sample": sample,
                "attributes": {"place": found.place},
                "seed": 0,
                "generator": self._config.name,
                "weights_sha256": "",
                "config_hash": self._hash,
            }
        )

    def take(self) -> pa.Table:
        """The collected rows as a table; starts anew."""
        schema = schemas.images_schema(ATTRIBUTES)
        schema = schemas.images_schema(ATTRIBUTES, huggingface.metadata(schema))
        rows, self._rows = self._rows, []
        self.taken = len(rows)
        return pa.Table.from_pylist(rows, schema=schema)
