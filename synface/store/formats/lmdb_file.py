"""LMDB as Vec2Face trains from it: one file, ``<number>`` -> msgpack (image file, feature as ``.npy``, label).

``__keys__``, ``__len__`` and ``__classnum__`` hold the keys, their number and that of the identities (layout: public
repository HaiyuWu/Vec2Face, ``scripts/prepare_training_set.py``). The features are those of Vec2Face's own extractor,
which is not ours to imitate: written as empty arrays, passed over when read.

LMDB is a memory map of the C library: a file elsewhere is copied to a temporary one first, and a truncated file is
refused before it is touched. The library trusts its pages: read files of sources that you trust.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats.found import MAX_FILE_BYTES, FoundImage

FILE = "train.lmdb"
#: doubled whenever it is full; a file on disk has only the pages that are used
FIRST_MAP_BYTES = 1 << 26
COPY_BYTES = 8 << 20


def write(tables: Iterator[pa.Table], output: str, images: int, identities: int) -> dict[str, Any]:
    """Write ``train.lmdb`` below `output`; equal tables give equal keys and values."""
    sink = io.BytesIO()
    np.save(sink, np.zeros(0, np.float32))
    feature = sink.getvalue()
    keys: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / FILE
        with _opened(place, map_size=FIRST_MAP_BYTES, lock=False, sync=False) as database:
            for table in tables:
                values = [
                    _packed((row["image"]["bytes"], feature, int(row["label"])))
                    for row in table.select(["image", "label"]).to_pylist()
                ]
                named = [(str(len(keys) + i).encode(), value) for i, value in enumerate(values)]
                _put(database, named)
                keys += [key for key, _ in named]
            facts = {b"__keys__": keys, b"__len__": len(keys), b"__classnum__": identities}
            _put(database, [(name, _packed(value)) for name, value in facts.items()])
            database.sync(True)
        with open(place, "rb") as stream, uris.open_writer(uris.join(output, FILE)) as target:
            shutil.copyfileobj(stream, target, COPY_BYTES)
    return {"images": len(keys), "identities": identities}


def _packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value) or b"")


def _put(database: Any, pairs: list[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            with database.begin(write=True) as transaction:
                for key, value in pairs:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            database.set_mapsize(2 * database.info()["map_size"])


@contextlib.contextmanager
def _opened(place: Path, **options: Any) -> Iterator[Any]:
    try:
        database = lmdb.open(str(place), subdir=False, **options)
    except lmdb.Error as error:
        raise InputError(f"{place}: not a readable LMDB file ({error})") from error
    try:
        yield database
    finally:
        database.close()


def read(uri: str) -> Iterator[FoundImage]:
    """The images of an LMDB file, or of the one in a folder (``data.mdb``, ``*.lmdb``), in the order of their keys.

    Raises:
        InputError: none or several files, a truncated or foreign one, or a record of another layout.
    """
    if not uris.is_file(uri):
        names = [p for p, _ in uris.list_files(uri, recursive=False) if p.endswith((".lmdb", ".mdb"))]
        names = [p for p in names if p != "lock.mdb"]
        if len(names) != 1:
            raise InputError(f"{uri}: {len(names)} LMDB files here (.lmdb, .mdb), expected one; name the file itself")
        uri = uris.join(uri, names[0])
    with _local(uri) as place:
        yield from _read_file(place, uri)


@contextlib.contextmanager
def _local(uri: str) -> Iterator[Path]:
    if uris.is_local(uri):
        yield Path(uris.absolute(uri))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / FILE
        with uris.open_reader(uri) as stream, open(place, "wb") as target:
            shutil.copyfileobj(stream, target, COPY_BYTES)
        yield place


def _read_file(place: Path, where: str) -> Iterator[FoundImage]:
    with _opened(place, readonly=True, lock=False, readahead=False) as database:
        needed = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        if os.path.getsize(place) < needed:  # reading beyond the end of a map ends the process
            raise InputError(f"{where}: truncated: {os.path.getsize(place)} bytes, its pages need {needed}")
        with database.begin() as transaction:
            packed = transaction.get(b"__keys__")
            keys = _unpack(packed, where, "__keys__") if packed is not None else None
            if keys is None:
                keys = (bytes(key) for key in transaction.cursor().iternext(values=False) if key[:2] != b"__")
            for key in keys:
                key = key.encode() if isinstance(key, str) else key
                name = repr(key)[:40]
                value = transaction.get(key) if isinstance(key, bytes) and key else None
                record = _unpack(value, where, name) if value is not None else None
                if not isinstance(record, list | tuple) or len(record) < 2:
                    raise InputError(f"{where}: record {name} is no (image, feature, label)")
                data, label = record[0], record[-1]
                if not isinstance(data, bytes) or isinstance(label, bool) or not isinstance(label, int) or label < 0:
                    raise InputError(f"{where}: record {name} holds no image file and whole label from 0")
                yield FoundImage(f"{label:07d}", data, f"{where.rsplit('/', 1)[-1]}#{name}")


def _unpack(value: bytes, where: str, name: str) -> Any:
    try:
        return msgpack.unpackb(value, max_bin_len=MAX_FILE_BYTES)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InputError(f"{where}: record {name} is not msgpack ({error})") from error
