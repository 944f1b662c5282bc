"""What is exported, read by the libraries that others read it with. LMDB: `test_archives.py`."""

import numpy as np
import pytest

from synface.store import images, tables
from synface.store.export import export

pytestmark = pytest.mark.slow


@pytest.fixture
def table(images_at, tmp_path):
    """A table's URI, its rows and their decoded images."""
    output = images_at(tmp_path / "a")
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    return output, rows, [images.decode(r["image"]["bytes"]) for r in rows]


@pytest.fixture
def tars(table, tmp_path):
    export(table[0], "webdataset", str(tmp_path / "w"))
    return sorted(str(p) for p in (tmp_path / "w").glob("*.tar"))


def test_tars_by_webdataset(table, tars):
    webdataset = pytest.importorskip("webdataset")
    _, rows, pixels = table
    loaded = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls", "json"))
    for (image, label, columns), row, decoded in zip(loaded, rows, pixels, strict=True):
        assert (image == decoded).all() and label == row["label"]
        assert columns == {k: v for k, v in row.items() if k != "image"}


def test_tars_by_datasets(table, tars, datasets, tmp_path):
    _, rows, pixels = table
    loaded = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path / "cache"))
    for got, row, image in zip(loaded, rows, pixels, strict=True):
        assert got["__key__"] == f"{row['label']:07d}_{row['sample']:05d}"
        assert (np.asarray(got["jpg"]) == image).all()
        assert int(got["cls"]) == row["label"] and got["json"]["identity_id"] == row["identity_id"]


def test_folders_by_datasets(table, datasets, tmp_path):
    output, rows, pixels = table
    export(output, "folder", str(tmp_path / "f"))
    place, cache = str(tmp_path / "f"), str(tmp_path / "cache")
    loaded = datasets.load_dataset("imagefolder", data_dir=place, split="train", cache_dir=cache)
    names = loaded.features["label"].names
    found = {(names[r["label"]], np.asarray(r["image"]).tobytes()) for r in loaded}
    assert found == {(r["identity_id"], p.tobytes()) for r, p in zip(rows, pixels, strict=True)}
