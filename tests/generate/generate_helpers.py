"""Configurations and identities for the tests of generation."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from synface.core import rng
from synface.generate.config import GenerateConfig
from synface.settings import StageConfig, build
from synface.store import artifact, images, schemas, tables
from synface.store.clean import dead_files


class DemoIdentities(StageConfig):
    verb = "pack"

    count: int = 6


def pattern_config(output, **fields):
    """12 identities x 4 images of 16 pixels in 3 shards, where `fields` say nothing else."""
    base = {
        "generator": "pattern_generator:Pattern",
        "images_per_identity": 4,
        "image_size": 16,
        "images_per_shard": 16,
        "how": {"max_actors": 1},
        "output": str(output),
    }
    if "identities" not in fields:
        base["num_identities"] = 12
    return build(GenerateConfig, base | fields)


def write_identities(output, count=6, source="pattern", embedding_nd=None, ids=None, seed=None):
    """An identities artifact; its rows are unit vectors where nothing else is given."""
    config = DemoIdentities(output=str(output), count=count)
    opened = artifact.open_output(config)
    if embedding_nd is None:
        embedding_nd = np.eye(8, dtype=np.float32)[np.arange(count) % 8]
    columns = {
        "identity_id": ids or [f"{source}-{n}" for n in range(count)],
        "embedding": schemas.embedding_column(embedding_nd),
        "source": [source] * count,
        "seed": np.asarray(seed if seed is not None else range(count), np.int64),
    }
    entry = tables.write_identities(config.output, pa.table(columns))
    artifact.commit(config, opened, "identities", [entry], {"identities": count})
    return config.output


def files(output, skip=("result-", "leases/")):
    """Every file below an output by its path, without those that may hold times, and dead runs' leases."""
    root = Path(output)
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return {k: v for k, v in found.items() if not any(s in k for s in skip)}


def files_after_a_kill(output):
    """`files` without what a writer that died in the middle of a write leaves: `clean` must know it as garbage."""
    found = files(output)
    halves = {path for path in found if path.endswith(".tmp")}
    assert halves <= {path for path, _ in dead_files(str(output), time.time() + 60)}
    return {path: data for path, data in found.items() if path not in halves}


def noise_picture(n, size=16):
    """uint8 [size, size, 3]: the n-th picture of `write_pictures`."""
    return rng.generator(n, "style-picture").integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_pictures(folder, count=7, size=16) -> str:
    """An images table in two files, of which a reader may take the first ones."""
    config = DemoIdentities(output=str(folder), count=count)
    opened = artifact.open_output(config)
    schema = schemas.images_schema(pa.struct([("k", pa.int32())]))
    entries = []
    for file, rows in enumerate((range(4), range(4, count))):
        made = [
            {
                "image": {
                    "bytes": images.encode(noise_picture(n, size), "png", 0, "algorithmicMedia"), "path": f"{n}.png",
                },
                "label": n, "identity_id": f"s{n}", "sample": 0, "attributes": {"k": n}, "seed": 0, "generator": "toy",
                "weights_sha256": "", "config_hash": "",
            }
            for n in rows
        ]  # fmt: skip
        data = tables.parquet_bytes(pa.Table.from_pylist(made, schema=schema))
        entries.append(artifact.write_file(config.output, f"data/{file}.parquet", data, len(made)))
    artifact.commit(config, opened, "images", entries, {"image_size": size})
    return str(folder)
