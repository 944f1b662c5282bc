"""What an identities table is made from: an images table or a plain folder, cut into parts of work."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.settings import canonical_json
from synface.store import artifact, images, tables
from synface.store import uri as uris

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: pictures of a folder that make one part of work
FOLDER_PART = 2048
FOLDER_SOURCE = "folder"


@dataclass(frozen=True)
class Part:
    """One part of work: a file of a table, or some pictures of a folder.

    Attributes:
        uri: of the table or folder.
        digest: of what is read; names the part's result.
        entry: the table's file; None for a folder.
        pictures: (identity, path) of the folder's pictures.
    """

    uri: str
    digest: str
    entry: artifact.FileEntry | None = None
    pictures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """All parts, and the content digest of everything."""

    digest: str
    parts: tuple[Part, ...]
    images: int


@dataclass(frozen=True)
class Picture:
    """One picture before decoding."""

    identity_id: str
    sample: int
    seed: int
    source: str
    data: bytes
    where: str


def open_source(uri: str) -> Source:
    """The parts of an images artifact, or of a local folder of pictures.

    Raises:
        InputError: neither stands there, or the folder holds no pictures.
    """
    if artifact.load_manifest(uri) is None and uris.is_local(uri) and Path(uris.absolute(uri)).is_dir():
        return open_folder(uris.absolute(uri))
    manifest = artifact.require(uri, "images")
    entries = tables.listed_files(uri)
    parts = tuple(Part(uri, entry.sha256, entry) for entry in entries)
    return Source(manifest.content_digest, parts, sum(e.rows or 0 for e in entries))


def open_folder(folder: str) -> Source:
    """Pictures ``ID/name.jpg`` (identity: the subfolder), or ``name.jpg`` (each its own identity)."""
    root = Path(folder)
    if (root / "_synface").is_dir():
        raise InputError(f"{folder}: an unfinished synface result stands there; run the verb that makes it first")
    found = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: no pictures below it ({', '.join(SUFFIXES)}), and no finished images table")
    pictures = [(str(p.parent) if len(p.parts) > 1 else p.stem, p.as_posix()) for p in found]
    flat = [path for (_, path), p in zip(pictures, found, strict=True) if len(p.parts) == 1]
    if flat and len(flat) != len(found):
        raise InputError(
            f"{folder}: pictures stand both in it ({flat[0]}) and in subfolders; make it one subfolder per identity, "
            "or one picture per identity"
        )
    digests = [artifact.sha256_hex((root / p).read_bytes()) for p in found]
    parts = []
    for start in range(0, len(found), FOLDER_PART):
        stop = start + FOLDER_PART
        text = canonical_json([pictures[start:stop], digests[start:stop]])
        parts.append(Part(folder, hashlib.sha256(text.encode()).hexdigest(), None, tuple(pictures[start:stop])))
    whole = hashlib.sha256("".join(p.digest for p in parts).encode()).hexdigest()
    return Source(whole, tuple(parts), len(found))


def read_part(part: Part) -> list[Picture]:
    """The pictures of a part, encoded."""
    if part.entry is None:
        return _read_folder(part)
    where = uris.join(part.uri, part.entry.path)
    table = tables.parse_parquet(tables.read_listed(part.uri, part.entry), where)
    for column in ("image", "identity_id"):
        if column not in table.column_names:
            raise InputError(f"{where}: no column {column!r}; an images table has image and identity_id")
    data = pa.chunked_array([table["image"].combine_chunks().field("bytes")]).to_pylist()
    count = table.num_rows
    facts = _facts(table)
    seeds = facts.get("identity_seed") or [0] * count  # only parametric generators need it
    sources = facts.get("domain") or _column(table, "generator") or ["unknown"] * count
    samples = _column(table, "sample") or list(range(count))
    ids = table["identity_id"].to_pylist()
    return [
        Picture(ids[i], int(samples[i]), int(seeds[i]), str(sources[i]), data[i] or b"", f"{where} row {i}")
        for i in range(count)
    ]


def _column(table: pa.Table, name: str) -> list[Any] | None:
    return table[name].to_pylist() if name in table.column_names else None


def _facts(table: pa.Table) -> dict[str, list[Any]]:
    """What the generator says of the identity: its seed and its domain, where it has them."""
    if "attributes" not in table.column_names or not pa.types.is_struct(table.schema.field("attributes").type):
        return {}
    column = table["attributes"].combine_chunks()
    known = {field.name for field in column.type}
    found = {name: column.field(name).to_pylist() for name in ("identity_seed", "domain") if name in known}
    return {name: values for name, values in found.items() if values and None not in values}


def _read_folder(part: Part) -> list[Picture]:
    found = []
    for number, (identity_id, path) in enumerate(part.pictures):
        data = uris.read_bytes(uris.join(part.uri, path))
        found.append(Picture(identity_id, number, 0, FOLDER_SOURCE, data, uris.join(part.uri, path)))
    return found


def decode_all(pictures: Sequence[Picture], size: int) -> list[Any]:
    """uint8 [size, size, 3] of every picture.

    Raises:
        InputError: damaged, or of another size (named).
    """
    decoded = []
    for picture in pictures:
        pixels = images.decode(picture.data, picture.where)
        if pixels.shape != (size, size, 3):
            raise InputError(
                f"{picture.where}: {pixels.shape[1]}x{pixels.shape[0]} pixels, these weights take {size}x{size} "
                f"crops; generate the images at {size} pixels, or align and resize them"
            )
        decoded.append(pixels)
    return decoded
