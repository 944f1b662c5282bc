"""WebDataset tars: members ``<key>.jpg``, ``<key>.cls`` (the label) and ``<key>.json`` (the other columns).

Layout as the public ``webdataset`` reader expects it: members of one key stand together, keys hold no dot.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from synface.store import uri as uris
from synface.store.formats.naming import suffix_of


def write(tables: Iterator[pa.Table], output: str) -> dict[str, Any]:
    """One tar per shard, ``000000.tar`` and on; equal tables give equal bytes."""
    count = shards = 0
    for table in tables:
        uris.write_bytes(uris.join(output, f"{shards:06d}.tar"), tar_bytes(table))
        count, shards = count + table.num_rows, shards + 1
    return {"images": count, "shards": shards}


def tar_bytes(table: pa.Table) -> bytes:
    """The shard as a plain USTAR archive without times, owners or padding beyond the format's own."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in table.to_pylist():
            image = row.pop("image")
            key = f"{row['label']:07d}_{row['sample']:05d}"
            _add(tar, f"{key}.{suffix_of(image['path'])}", image["bytes"])
            _add(tar, f"{key}.cls", str(row["label"]).encode())
            _add(tar, f"{key}.json", json.dumps(row, sort_keys=True).encode())
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
