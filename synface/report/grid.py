"""The first images of an images table, identity by identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import artifact, tables


@dataclass(frozen=True)
class Grid:
    """Rows of encoded images, one identity a row."""

    rows: tuple[tuple[str, tuple[bytes, ...]], ...]
    numbers: Mapping[str, Any]


def read_grid(uri: str, identities: int, images: int) -> Grid:
    """The first images of the first identities, shard after shard until there are enough."""
    rows: dict[str, list[bytes]] = {}
    for table in tables.iter_images(uri, ["identity_id", "image"]):
        _collect(table, rows, identities, images)
        if len(rows) >= identities and all(len(row) >= images for row in rows.values()):
            break
    manifest = artifact.require(uri, "images")
    if not rows:
        raise InputError(f"{uri}: the images table has no rows; generate it first")
    return Grid(tuple((name, tuple(row)) for name, row in rows.items()), manifest.numbers)


def _collect(table: pa.Table, rows: dict[str, list[bytes]], identities: int, images: int) -> None:
    names = table["identity_id"].to_pylist()
    for index, name in enumerate(names):
        if name not in rows and len(rows) >= identities:
            continue
        row = rows.setdefault(name, [])
        if len(row) < images:
            row.append(table["image"][index].as_py()["bytes"])
