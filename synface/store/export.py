"""``synface export``: an images table in the formats of other tools. Streams one shard at a time."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError, unknown_name
from synface.store import artifact, tables
from synface.store import uri as uris
from synface.store.formats import folder, lmdb_file, recordio, webdataset

#: format -> writer(image tables, output URI, number of images, number of identities)
FORMATS: dict[str, Callable[[Iterator[pa.Table], str, int, int], dict[str, Any]]] = {
    "folder": folder.write,
    "lmdb": lmdb_file.write,
    "recordio": recordio.write,
    "webdataset": webdataset.write,
}
#: stands beside the exported files; says of what they are made, and whether all are there
NOTE = "synface-export.json"


def export(uri: str, format: str, output: str) -> dict[str, Any]:
    """Write the images table at `uri` below `output`; a finished export answers at once.

    Raises:
        InputError: unknown format, no finished images table, or a destination with other things in it.
    """
    if format not in FORMATS:
        raise unknown_name("export format", format, FORMATS)
    manifest = artifact.require(uri, "images")
    note: dict[str, Any] = {"source": manifest.content_digest, "format": format, "finished": False}
    old = _note(output)
    if old is None and uris.list_files(output):
        raise InputError(f"{output}: not empty; export into a new folder")
    if old is not None and {**old, "finished": False} != note:
        raise InputError(f"{output}: holds an export of other data or in another format; export into a new folder")
    images = sum(f.rows or 0 for f in manifest.files)
    cached = bool(old and old.get("finished"))
    if not cached:
        _write_note(output, note)
        FORMATS[format](tables.iter_images(uri), output, images, int(manifest.numbers["identities"]))
        _write_note(output, note | {"finished": True})
    return {"uri": output, "format": format, "images": images, "cached": cached}


def _note(output: str) -> dict[str, Any] | None:
    place = uris.join(output, NOTE)
    if not uris.exists(place):
        return None
    try:
        return dict(json.loads(uris.read_bytes(place)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: damaged ({error}); export into a new folder") from error


def _write_note(output: str, note: dict[str, Any]) -> None:
    uris.write_bytes(uris.join(output, NOTE), (json.dumps(note, sort_keys=True) + "\n").encode())
