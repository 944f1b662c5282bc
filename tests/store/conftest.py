"""A small finished images table, made without Ray and without a renderer."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from synface.settings import StageConfig
from synface.store import artifact, card, huggingface, images, ledger, schemas, tables


class DemoImages(StageConfig):
    verb: ClassVar[str] = "generate"

    size: int = 16


ATTRIBUTES = pa.struct([("yaw", pa.float32()), ("hair", pa.string()), ("landmarks", pa.list_(pa.float32(), 10))])


def image_table(labels, samples=3, names=None, size=16, image_format="jpeg"):
    """Images of noise; `names` are the identity ids by label."""
    rows = []
    for label in labels:
        for sample in range(samples):
            pixels = np.random.default_rng([label, sample]).integers(0, 256, (size, size, 3), np.uint8)
            suffix = images.IMAGE_FORMATS[image_format]
            rows.append(
                {
                    "image": {
                        "bytes": images.encode(pixels, image_format, 95, "algorithmicMedia"),
                        "path": f"{label:07d}_{sample:05d}.{suffix}",
                    },
                    "label": label,
                    "identity_id": names[label] if names else f"id-{label}",
                    "sample": sample,
                    "attributes": {"yaw": 1.5 * sample, "hair": "short", "landmarks": [float(i) for i in range(10)]},
                    "seed": 7,
                    "generator": "noise",
                    "weights_sha256": "0" * 64,
                    "config_hash": "c" * 64,
                }
            )
    schema = schemas.images_schema(ATTRIBUTES)
    schema = schemas.images_schema(ATTRIBUTES, huggingface.metadata(schema))
    return pa.Table.from_pylist(rows, schema=schema)


def write_images(output, shards=2, finish=True, names=None, licence="CC0-1.0", failed=(), size=16):
    """An images artifact of two identities a shard, three samples each."""
    config = DemoImages(output=str(output), size=size)
    opened = artifact.open_output(config)
    ledger.write_work(config.output, shards, 6 * shards)
    entries = []
    for shard in range(shards):
        table = image_table([2 * shard, 2 * shard + 1], names=names, size=size)
        data = tables.parquet_bytes(table)
        lost = list(failed) if shard == 0 else []
        entries.append(ledger.write_shard(config.output, shard, data, table.num_rows, opened.config_hash, lost))
    if finish:
        numbers = {
            "images": 6 * shards,
            "identities": 2 * shards,
            "image_size": size,
            "generator": "noise",
            "weights_sha256": "0" * 64,
            "licence": licence,
            "sources": {"noise": "CC0-1.0"},
            "source_type": "algorithmicMedia",
            "failed": len(failed),
        }
        manifest = artifact.build_manifest(config, opened, "images", [e.file for e in entries], numbers)
        card.write_card(config.output, manifest)
        artifact.write_manifest(config.output, manifest)
    return config.output


@pytest.fixture
def images_at():
    return write_images


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return pytest.importorskip("datasets")
