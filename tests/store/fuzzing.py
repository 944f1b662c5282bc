"""Damaged files for every reader: either `InputError` or plain data, in little time and memory.

As a program: ``python fuzzing.py READER ROUNDS`` runs rounds of 500 cases in a process of its own and prints what they
took as one JSON line.
"""

import io
import json
import pickle
import resource
import signal
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgpack
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.store import artifact, images, ledger, tables
from synface.store.formats import lmdb_file, lmdb_pages, recordio, verification_bin, webdataset, zipped

CASES = 500
#: no single case may take longer
HANG_SECONDS = 20


def picture(n: int, image_format: str = "jpeg") -> bytes:
    pixels = np.random.default_rng(n).integers(0, 256, (16, 16, 3), np.uint8)
    return images.encode(pixels, image_format, 80, "algorithmicMedia")


def parquet() -> bytes:
    names = pa.array(["a", "b", "a"]).dictionary_encode()
    column = pa.array([{"bytes": picture(n), "path": f"{n}.jpg"} for n in range(3)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 4)
    return tables.parquet_bytes(pa.table({"image": column, "identity_id": names, "embedding": vectors}))


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for n, (name, data) in enumerate(
            [
                ("a/1.jpg", b"1"),
                ("b/1.jpg", b"2" * 600),
                ("2.cls", b"7"),
                ("2.jpg", b"3"),
                ("3.json", b'{"identity_id": "x"}'),
            ]
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), n
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zipped_images() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            archive.writestr(f"{n}/0.png", picture(n) + bytes(200))
    return sink.getvalue()


def rec() -> bytes:
    records = [recordio.pack((5.0, 7.0), 0, b"")]
    records += [
        recordio.pack((float(n // 2),), n, picture(n)[:60] + recordio._MAGIC_BYTES * (n % 2)) for n in range(1, 5)
    ]
    return b"".join(recordio.frame(record) for record in records)


def pack() -> bytes:
    return pickle.dumps(([picture(n)[:40] for n in range(20)], [n % 2 == 0 for n in range(10)]), protocol=4)


def lmdb_map() -> bytes:
    """A branch, leaves, long values, and a list of keys that names every other record."""
    records = {str(n).encode(): msgpack.packb((picture(n) * (1 + 8 * (n % 3)), b"", n)) for n in range(12)}
    records[b"__keys__"] = msgpack.packb(list(records)[::2])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "x.lmdb"
        with (
            lmdb.open(str(place), subdir=False, map_size=1 << 20, lock=False) as database,
            database.begin(write=True) as transaction,
        ):
            for key, value in records.items():
                transaction.put(key, value or b"")
        return place.read_bytes()


def read_lmdb(data: bytes) -> None:
    pages = lmdb_pages.Pages(io.BytesIO(data), "x.lmdb")
    exhaust(pages)
    exhaust(lmdb_file.read_pages(pages, "x.lmdb"))


def manifest() -> bytes:
    files = [{"path": "data/train-00000-0.parquet", "sha256": "0" * 64, "bytes": 5, "rows": 3}]
    fields = {"verb": "generate", "kind": "images", "config_hash": "a" * 64, "config": {"fields": {"seed": 1}}}
    more = {"inputs": {"x": "y"}, "files": files, "numbers": {"images": 3}, "versions": {}, "manifest_version": 1}
    return json.dumps(fields | more).encode()


def entry() -> bytes:
    fields = {"shard": 3, "sha256": "b" * 64, "bytes": 9, "rows": 2, "config_hash": "a" * 64, "versions": {}}
    failed = [{"identity_id": "x", "sample": 1, "error": "bad"}]
    return json.dumps(fields | {"path": ledger.shard_path(3, "b" * 64), "failed": failed}).encode()


def exhaust(found: object) -> None:
    """Take everything that a reader yields."""
    for _ in found:  # type: ignore[attr-defined]
        pass


def read_parquet(data: bytes) -> None:
    tables.parse_parquet(data, "x").to_pylist()


def harmless(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """A parser whose callers turn these errors into InputError."""

    def read(data: bytes) -> None:
        try:
            parse(data)
        except artifact.DAMAGE as error:
            raise InputError(str(error)) from error

    return read


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], None]]] = {
    "parquet": (parquet, read_parquet),
    "recordio": (rec, lambda data: exhaust(recordio.read_images(io.BytesIO(data), "x.rec"))),
    "tar": (tar, lambda data: exhaust(webdataset.read_tar(io.BytesIO(data), "x.tar"))),
    "lmdb": (lmdb_map, read_lmdb),
    "zip": (zipped_images, lambda data: exhaust(zipped.read_zip(io.BytesIO(data), "x.zip"))),
    "jpeg": (lambda: picture(0), lambda data: exhaust(images.decode(data))),
    "png": (lambda: picture(0, "png"), lambda data: exhaust(images.decode(data))),
    "webp": (lambda: picture(0, "webp"), lambda data: exhaust(images.decode(data))),
    "bin": (pack, lambda data: exhaust(verification_bin.parse_pack(data, "x.bin").encoded)),
    "manifest": (manifest, harmless(artifact.parse_manifest)),
    "ledger": (entry, harmless(ledger.parse_entry)),
}

#: places count from either end, where formats keep what matters
PLACE = st.integers(-400, 400) | st.integers(0, 1 << 14)
EDIT = st.one_of(
    st.tuples(st.just("set"), PLACE, st.binary(min_size=1, max_size=8)),
    st.tuples(
        st.just("set"),
        PLACE,
        st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"[" * 4096]),
    ),
    st.tuples(st.just("insert"), PLACE, st.binary(max_size=16)),
    st.tuples(st.just("cut"), PLACE, st.integers(1, 64)),
    st.tuples(st.just("end"), PLACE, st.none()),
    st.tuples(st.just("again"), PLACE, st.integers(1, 512)),
)


def damaged(whole: bytes, edits: list[tuple]) -> bytes:
    data = bytearray(whole)
    for kind, place, value in edits:
        at = place % (len(data) + 1)
        if kind == "set":
            data[at : at + len(value)] = value
        elif kind == "insert":
            data[at:at] = value
        elif kind == "cut":
            del data[at : at + value]
        elif kind == "end":
            del data[at:]
        else:
            data[at:at] = data[at : at + value]
    return bytes(data)


def fuzz(reader: str, number: int = 0, cases: int = CASES) -> dict[str, int]:
    """Run so many cases; returns how many were refused and how many gave data. Anything but InputError is raised."""
    make, read = READERS[reader]
    whole = make()
    read(whole)
    seen = {"refused": 0, "read": 0}

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.one_of(
            st.lists(EDIT, min_size=1, max_size=5).map(lambda edits: damaged(whole, edits)), st.binary(max_size=300)
        )
    )
    def case(data: bytes) -> None:
        signal.alarm(HANG_SECONDS)
        try:
            read(data)
            seen["read"] += 1
        except InputError:
            seen["refused"] += 1
        finally:
            signal.alarm(0)

    case()
    return seen


def main() -> None:
    reader, rounds = sys.argv[1], int(sys.argv[2])
    fuzz(reader, cases=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = {"refused": 0, "read": 0}
    for number in range(rounds):
        for kind, count in fuzz(reader, number).items():
            total[kind] += count
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"reader": reader, **total, "megabytes": round(grown / 1024, 1)}))


if __name__ == "__main__":
    main()
