"""LMDB as Vec2Face trains from it: one file, ``<number>`` -> msgpack (image file, feature as ``.npy``, label).

``__keys__``, ``__len__`` and ``__classnum__`` hold the keys, their number and that of the identities (layout: public
repository HaiyuWu/Vec2Face, ``scripts/prepare_training_set.py``). The features are those of Vec2Face's own extractor,
which is not ours to imitate: written as empty arrays, passed over when read.

Written by LMDB's own library, which maps a file: it is made in a temporary folder, then copied to where it belongs.
Read by `lmdb_pages`, which believes nothing that it finds; a file elsewhere is copied to a temporary one first,
because records are asked for in no order.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats.found import MAX_FILE_BYTES, FoundImage
from synface.store.formats.lmdb_pages import Pages

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
        options = {"subdir": False, "lock": False, "sync": False, "map_size": FIRST_MAP_BYTES}
        with contextlib.closing(lmdb.open(str(place), **options)) as database:
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
    with _local(uri) as place, open(place, "rb", buffering=0) as stream:
        yield from read_pages(Pages(stream, uri), uri)


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


def read_pages(pages: Pages, where: str) -> Iterator[FoundImage]:
    """The images of an open file. InputError for a record of another layout."""
    for key in _keys(pages, where):
        key = key.encode() if isinstance(key, str) else key
        name = repr(key)[:40]
        value = pages.get(key) if isinstance(key, bytes) and key else None
        record = _unpack(value, where, name) if value is not None else None
        if not isinstance(record, list | tuple) or len(record) < 2:
            raise InputError(f"{where}: record {name} is no (image, feature, label)")
        data, label = record[0], record[-1]
        if not isinstance(data, bytes) or isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise InputError(f"{where}: record {name} holds no image file and whole label from 0")
        yield FoundImage(f"{label:07d}", data, f"{where.rsplit('/', 1)[-1]}#{name}")


def _keys(pages: Pages, where: str) -> Iterable[Any]:
    """The keys in the file's own order, else those of all records."""
    packed = pages.get(b"__keys__")
    if packed is None:
        return (key for key in pages if key[:2] != b"__")
    keys = _unpack(packed, where, "__keys__")
    if not isinstance(keys, list):
        raise InputError(f"{where}: __keys__ is no list")
    return keys


def _unpack(value: bytes, where: str, name: str) -> Any:
    try:
        return msgpack.unpackb(value, max_bin_len=MAX_FILE_BYTES)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InputError(f"{where}: record {name} is not msgpack ({error})") from error
