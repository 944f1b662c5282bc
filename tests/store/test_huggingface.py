"""Hugging Face's ``datasets`` reads what we write, as it is."""

import json

import numpy as np
import pyarrow as pa
import pytest

from synface.store import huggingface, images, schemas, tables
from synface.store import uri as uris


def test_the_features_name_every_column():
    attributes = pa.struct(
        [("yaw", pa.float32()), ("points", pa.list_(pa.float32(), 4)), ("tags", pa.list_(pa.string()))]
    )
    schema = schemas.images_schema(attributes)
    found = json.loads(huggingface.metadata(schema)["huggingface"])["info"]["features"]
    assert list(found) == sorted(schema.names) and found["image"] == {"_type": "Image"}
    assert found["label"] == {"dtype": "int64", "_type": "Value"}
    assert found["attributes"]["points"]["length"] == 4 and found["attributes"]["tags"]["_type"] == "Sequence"
    with pytest.raises(ValueError, match="no feature"):
        huggingface.feature(pa.date32())


@pytest.mark.slow
def test_load_dataset_reads_exactly_what_the_manifest_lists(images_at, tmp_path, datasets):
    output = images_at(tmp_path / "a")
    # a dead attempt beside the data is not read
    uris.write_bytes(uris.join(output, "data/train-00000-dead.parquet"), b"not parquet")
    loaded = datasets.load_dataset(output, split="train", cache_dir=str(tmp_path / "cache"))
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    assert len(loaded) == len(rows) == 12 and set(loaded.column_names) == set(rows[0])
    for got, row in zip(loaded, rows, strict=True):
        assert (np.asarray(got["image"]) == images.decode(row["image"]["bytes"])).all()
        assert {k: v for k, v in got.items() if k != "image"} == {k: v for k, v in row.items() if k != "image"}
    streamed = datasets.load_dataset(output, split="train", streaming=True)
    assert [r["label"] for r in streamed] == [r["label"] for r in rows]
