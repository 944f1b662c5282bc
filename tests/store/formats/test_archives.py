"""Archives as other data sets ship them: DigiFace's zips, HyperFace's tars, Vec2Face's LMDB."""

import io
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import lmdb
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.store import tables
from synface.store.export import export
from synface.store.formats import lmdb_file, lmdb_pages, webdataset, zipped


def zip_of(members, **options):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data, **options)
    return sink.getvalue()


def test_zips_of_digiface(tmp_path):
    """Several zips, a folder per subject, in the order of their numbers."""
    (tmp_path / "subjects_2-10.zip").write_bytes(zip_of([("2/0.png", b"c"), ("10/0.png", b"d")]))
    (tmp_path / "subjects_0-1.zip").write_bytes(
        zip_of([("0/", b""), ("0/0.png", b"a"), ("./1/0.png", b"b"), ("readme.txt", b"x"), ("0/.DS_Store", b"x")])
    )
    found = list(zipped.read(str(tmp_path)))
    assert [(f.identity_id, f.data) for f in found] == [("0", b"a"), ("1", b"b"), ("2", b"c"), ("10", b"d")]
    assert found[2].place == "subjects_2-10.zip:2/0.png"
    with pytest.raises(InputError, match=r"no [.]zip files"):
        list(zipped.read(str(tmp_path / "nowhere")))


def test_zips_that_are_refused():
    whole = zip_of([("a/1.png", bytes(range(256)) * 4)])
    cases = [
        (b"", "not a readable zip"),
        (whole[:-9], "not a readable zip"),
        (zip_of([("1.png", b"x")]), "in no folder"),
    ]
    encrypted = bytearray(whole)
    encrypted[6] |= 1  # flags of the local header and of the directory
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    cases.append((bytes(encrypted), "not a readable zip"))
    bomb = bytearray(whole)
    place = whole.index(b"PK\x01\x02") + 24
    bomb[place : place + 4] = (1 << 30).to_bytes(4, "little")
    cases.append((bytes(bomb), "of 1073741824 bytes, allowed"))
    flipped = bytearray(whole)
    flipped[45] ^= 255
    cases.append((bytes(flipped), "not a readable zip"))
    for data, match in cases:
        with pytest.raises(InputError, match=match):
            list(zipped.read_zip(io.BytesIO(data), "x.zip"))


def test_tars_of_folders_compressed_or_not(tmp_path):
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz")):
        with tarfile.open(tmp_path / f"x.{suffix}", mode) as tar:
            for name in ("./set/id_1/0.jpg", "./set/id_1/._0.jpg", "./set/id_2/0.jpg"):
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
        found = list(webdataset.read(str(tmp_path / f"x.{suffix}")))
        assert [f.identity_id for f in found] == ["set/id_1", "set/id_2"]
    data = (tmp_path / "x.tar.gz").read_bytes()
    with pytest.raises(InputError, match="not a readable tar"):
        list(webdataset.read_tar(io.BytesIO(data[:60]), "x.tar.gz"))


def test_lmdb_is_laid_out_as_vec2face_reads_it(images_at, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_file, "FIRST_MAP_BYTES", 1 << 14)  # too small: it must grow
    output = images_at(tmp_path / "a", size=32)
    export(output, "lmdb", str(tmp_path / "x"))
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    database = lmdb.open(str(tmp_path / "x" / "train.lmdb"), subdir=False, readonly=True, lock=False)
    with database.begin() as transaction:
        keys = msgpack.loads(transaction.get(b"__keys__"))
        assert msgpack.loads(transaction.get(b"__len__")) == len(keys) == 12
        assert msgpack.loads(transaction.get(b"__classnum__")) == 4
        for key, row in zip(keys, rows, strict=True):
            image, feature, label = msgpack.loads(transaction.get(key))
            assert (image, label) == (row["image"]["bytes"], row["label"])
            assert np.load(io.BytesIO(feature)).shape == (0,)
    database.close()
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["synface-export.json", "train.lmdb"]


def write_lmdb(place, pairs):
    database = lmdb.open(str(place), subdir=False, map_size=1 << 24, lock=False)
    with database.begin(write=True) as transaction:
        for key, value in pairs:
            transaction.put(key, value)
    database.close()


def test_lmdb_without_keys_and_in_a_folder(tmp_path):
    write_lmdb(tmp_path / "data.mdb", [(b"0", msgpack.packb((b"one", 3))), (b"1", msgpack.packb((b"two", b"f", 4)))])
    found = list(lmdb_file.read(str(tmp_path)))
    assert [f[:2] for f in found] == [("0000003", b"one"), ("0000004", b"two")]


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (b"\xc1", "is not msgpack"),
        (msgpack.packb([1]), "no .image, feature, label"),
        (msgpack.packb((b"x", b"f", "label")), "no image file and whole label"),
        (msgpack.packb(("text", b"f", 1)), "no image file and whole label"),
        (msgpack.packb((b"x", b"f", -1)), "no image file and whole label"),
    ],
)
def test_foreign_records_are_refused(tmp_path, value, match):
    write_lmdb(tmp_path / "x.lmdb", [(b"0", value)])
    with pytest.raises(InputError, match=match):
        list(lmdb_file.read(str(tmp_path / "x.lmdb")))


def test_truncated_and_other_files_are_refused_not_touched(tmp_path):
    pairs = [(str(n).encode(), msgpack.packb((bytes(9000), b"", n))) for n in range(20)]
    write_lmdb(tmp_path / "x.lmdb", pairs)
    data = (tmp_path / "x.lmdb").read_bytes()
    for broken, match in ((data[: len(data) // 2], "truncated"), (b"SQLite format 3" * 2000, "not a readable LMDB")):
        (tmp_path / "y.lmdb").write_bytes(broken)
        with pytest.raises(InputError, match=match):
            list(lmdb_file.read(str(tmp_path / "y.lmdb")))
    with pytest.raises(InputError, match="2 LMDB files"):
        list(lmdb_file.read(str(tmp_path)))


@given(
    st.dictionaries(st.binary(min_size=1, max_size=200), st.binary(max_size=9000), max_size=60),
    st.lists(st.binary(min_size=1, max_size=200), max_size=5),
)
@settings(max_examples=25)
def test_pages_are_read_as_the_library_reads_them(records, others):
    """Any keys and values: in a page, on pages of their own, in one leaf or below branches."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "x.lmdb"
        half = len(records) // 2
        write_lmdb(place, list(records.items())[:half])
        write_lmdb(place, list(records.items())[half:])  # a later transaction: the other meta, pages written anew
        with open(place, "rb") as stream:
            pages = lmdb_pages.Pages(stream, "x")
            assert list(pages) == sorted(records)
            assert {key: pages.get(key) for key in records} == records
            assert all(pages.get(key) == records.get(key) for key in others)


def test_a_deep_tree_is_read(tmp_path):
    records = {f"{n:0100d}".encode(): str(n).encode() for n in range(3000)}
    write_lmdb(tmp_path / "x.lmdb", records.items())
    with lmdb.open(str(tmp_path / "x.lmdb"), subdir=False, lock=False, readonly=True) as database:
        assert database.stat()["depth"] == 3
    with open(tmp_path / "x.lmdb", "rb") as stream:
        pages = lmdb_pages.Pages(stream, "x")
        assert {key: pages.get(key) for key in pages} == records


def test_loops_other_orders_and_other_layouts_are_refused(tmp_path):
    records = {f"{n:0100d}".encode(): b"x" for n in range(200)}
    write_lmdb(tmp_path / "x.lmdb", records.items())
    whole = (tmp_path / "x.lmdb").read_bytes()
    size, _, root = lmdb_pages.Pages(io.BytesIO(whole), "x")._read_metas()
    loop = bytearray(whole)
    for place in struct.unpack_from("<4H", whole, root * size + 16):  # each child of the root: the root itself
        struct.pack_into("<HHH", loop, root * size + place, root, 0, 0)
    pages = lmdb_pages.Pages(io.BytesIO(loop), "x")
    with pytest.raises(InputError, match="deeper than 32"):
        pages.get(min(records))
    with pytest.raises(InputError, match="met twice"):
        list(pages)
    with lmdb.open(str(tmp_path / "n.lmdb"), subdir=False, lock=False, max_dbs=1) as database:
        database.open_db(b"inner")
    with open(tmp_path / "n.lmdb", "rb") as stream, pytest.raises(InputError, match="inside the database"):
        lmdb_pages.Pages(stream, "x").get(b"inner")
    backwards = bytearray(whole)
    for meta in (0, size):
        struct.pack_into("<H", backwards, meta + 16 + 24 + 48 + 4, 2)  # MDB_REVERSEKEY of the main tree
    with pytest.raises(InputError, match="another order"):
        lmdb_pages.Pages(io.BytesIO(backwards), "x")


def test_a_list_of_keys_that_is_none(tmp_path):
    write_lmdb(tmp_path / "x.lmdb", [(b"__keys__", msgpack.packb(7))])
    with pytest.raises(InputError, match="__keys__ is no list"):
        list(lmdb_file.read(str(tmp_path / "x.lmdb")))
