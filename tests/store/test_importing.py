import io
import shutil
import tarfile

import numpy as np
import pytest
import yaml

from synface.core.errors import InputError, PartialError
from synface.settings import build
from synface.store import artifact, importing, tables
from synface.store.export import export
from synface.store.formats import webdataset
from synface.store.import_config import ImportConfig
from synface.store.verify import verify


def config(tmp_path, source, form, name="in", **fields):
    base = {"source": str(source), "format": form, "output": str(tmp_path / name), "licence": "CC0-1.0"}
    return build(ImportConfig, base | {"source_type": "algorithmicMedia"} | fields)


def rows_of(uri, *columns):
    rows = [r for t in tables.iter_images(str(uri)) for r in t.to_pylist()]
    return [tuple(r[c] for c in columns) if columns else r["image"]["bytes"] for r in rows]


@pytest.mark.parametrize("form", ["folder", "lmdb", "recordio", "webdataset"])
def test_what_is_exported_comes_back(images_at, tmp_path, form):
    source = images_at(tmp_path / "a", shards=3)
    export(source, form, str(tmp_path / "x"))
    asked = config(tmp_path, tmp_path / "x", form, images_per_shard=7)
    estimate = importing.plan(asked)["estimate"]
    result = importing.run(asked)
    if form == "folder":
        assert estimate["amount"] == 18 and estimate["store"]["put"] == 2 * result["shards"]
        assert estimate["store"]["bytes_read"] <= estimate["store"]["bytes_written"]
    else:
        assert estimate["amount"] is None  # an archive is not read for a plan
    assert (result["images"], result["identities"], result["shards"], result["failed"]) == (18, 6, 3, 0)
    assert rows_of(asked.output) == rows_of(source)
    assert rows_of(asked.output, "label", "sample") == rows_of(source, "label", "sample")
    if form not in ("recordio", "lmdb"):  # which know labels only
        assert rows_of(asked.output, "identity_id") == rows_of(source, "identity_id")
    assert verify(asked.output)["exit_code"] == 0 and importing.run(asked)["cached"]
    # and out again: the same files
    export(asked.output, form, str(tmp_path / "y"))
    if form == "folder":
        names = {p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*.jpg")}
        assert names == {p.relative_to(tmp_path / "y").as_posix() for p in (tmp_path / "y").rglob("*.jpg")}
    if form == "recordio":
        assert (tmp_path / "x" / "train.rec").read_bytes() == (tmp_path / "y" / "train.rec").read_bytes()


def test_damaged_and_odd_images_are_left_out_and_told(images_at, tmp_path):
    export(images_at(tmp_path / "a"), "folder", str(tmp_path / "x"))
    (tmp_path / "x" / "id-0" / "00001.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    export(images_at(tmp_path / "b", size=24, shards=1), "folder", str(tmp_path / "z"))
    shutil.copy(tmp_path / "z" / "id-1" / "00000.jpg", tmp_path / "x" / "id-1" / "9.jpg")
    (tmp_path / "x" / "id-1" / "notes.txt").write_text("no image")
    asked = config(tmp_path, tmp_path / "x", "folder")
    with pytest.raises(PartialError, match=r"2 images left out; first: id-0/00001.jpg: not a readable image"):
        importing.run(asked)
    manifest = artifact.require(asked.output, "images")
    assert (manifest.numbers["images"], manifest.numbers["failed"]) == (11, 2)


def test_photographs_are_not_called_synthetic(images_at, tmp_path):
    export(images_at(tmp_path / "a"), "folder", str(tmp_path / "x"))
    importing.run(config(tmp_path, tmp_path / "x", "folder", source_type="digitalCapture"))
    text = (tmp_path / "in" / "README.md").read_text()
    assert "ynthetic" not in text.replace("digitalCapture", "") and "digitalCapture" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "cc0-1.0"


def test_refusals(images_at, tmp_path):
    with pytest.raises(InputError, match="no files there"):
        importing.run(config(tmp_path, tmp_path / "none", "folder"))
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x.txt").write_text("x")
    for form, match in (("folder", "no readable images"), ("recordio", r"0 \.rec files"), ("webdataset", r"no \.tar")):
        with pytest.raises(InputError, match=match):
            importing.run(config(tmp_path, tmp_path / "e", form, name=form))
        assert artifact.load_manifest(str(tmp_path / form)) is None
    with pytest.raises(InputError, match="licence"):
        config(tmp_path, tmp_path / "e", "folder", licence="")


def tar_of(members):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def test_tars_of_folders_and_of_keys():
    data = tar_of([("a/1.jpg", b"1"), ("a/2.png", b"2"), ("b/1.jpg", b"3"), ("b/readme.txt", b"x")])
    assert [f[:2] for f in webdataset.read_tar(io.BytesIO(data), "t.tar")] == [("a", b"1"), ("a", b"2"), ("b", b"3")]
    data = tar_of([("0.cls", b"7"), ("0.jpg", b"1"), ("1.json", b'{"identity_id": "p"}'), ("1.jpg", b"2")])
    assert [f[:2] for f in webdataset.read_tar(io.BytesIO(data), "t.tar")] == [("7", b"1"), ("p", b"2")]
    for bad in ([("1.jpg", b"1")], [("1.json", b"{"), ("1.jpg", b"1")]):
        with pytest.raises(InputError):
            list(webdataset.read_tar(io.BytesIO(tar_of(bad)), "t.tar"))


def test_damaged_tars_are_refused_or_harmless():
    whole = tar_of([(f"{n}/1.jpg", bytes([n]) * 300) for n in range(3)])
    rng = np.random.default_rng(0)
    refused = 0
    for n in range(600):
        data = bytearray(whole[: rng.integers(0, len(whole))] if n % 2 else whole)
        for place in rng.integers(0, max(len(data), 1), 4):
            if len(data):
                data[place] ^= int(rng.integers(1, 256))
        try:
            assert len(list(webdataset.read_tar(io.BytesIO(bytes(data)), "t.tar"))) <= 3
        except InputError:
            refused += 1
    assert refused > 50
