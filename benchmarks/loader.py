"""Decoding and augmentation alone, into no model: images per second of one core.

    python benchmarks/loader.py                       # JPEG at 112, asked at least 1,500 images/s per core
    python benchmarks/loader.py --images 200 --rounds 1    # a try

Processor time of the process (so that other processes count less). `streamed` decodes every batch (a data set that
does not fit into memory); `decoded` keeps pixels and only augments.
"""

import argparse
import io
import tempfile
import time
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from common import write_result
from synface.core import rng
from synface.settings import StageConfig, build
from synface.store import artifact, schemas, tables
from synface.train import data, loop
from synface.train.config import TrainRecognizerConfig

SHARD = 1024


class NoiseConfig(StageConfig):
    verb: ClassVar[str] = "noise"

    images: int
    size: int


def picture(number: int, size: int) -> bytes:
    """A JPEG with the detail of a face crop: smooth patches and some noise (about 4 KB at 112)."""
    draws = rng.generator("picture", number)
    coarse = Image.fromarray(draws.integers(0, 256, (9, 9, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + draws.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def write_images(output: str, count: int, size: int, classes: int) -> str:
    """An images table of so many pictures; its URI."""
    config = NoiseConfig(output=output, images=count, size=size)
    opened = artifact.open_output(config)
    schema = schemas.images_schema(pa.struct([("none", pa.int64())]))
    entries = []
    for first in range(0, count, SHARD):
        rows = [
            {
                "image": {"bytes": picture(i, size), "path": f"{i}.jpg"},
                "label": i % classes,
                "identity_id": f"{i % classes:05d}",
                "sample": i // classes,
                "attributes": {"none": 0},
                "seed": i,
                "generator": "noise",
                "weights_sha256": "",
                "config_hash": "",
            }
            for i in range(first, min(first + SHARD, count))
        ]
        payload = tables.parquet_bytes(pa.Table.from_pylist(rows, schema=schema))
        entries.append(artifact.write_file(output, f"data/train-{first:08d}.parquet", payload, len(rows)))
    artifact.commit(config, opened, "images", entries, {})
    return output


def images_per_second(images: str, args: argparse.Namespace, memory_bytes: float) -> float:
    config = build(
        TrainRecognizerConfig,
        {
            "images": [images],
            "output": "unused",
            "image_size": args.size,
            "global_batch_size": args.batch,
            "epochs": args.rounds,
            "shuffle_shards": 1,
        },
    )
    catalog = data.scan(config.images, config.image_size)
    source = data.ImageSource(catalog, config.image_size, memory_bytes, config.shuffle_shards, threads=1)
    shape = loop.shape_of(config, catalog)
    try:
        best = 0.0
        batches = loop.batches(config, catalog, source, shape, 0)
        for _ in range(args.rounds):
            start = time.process_time()
            for _ in range(shape.epoch_steps):
                next(batches)
            best = max(best, shape.epoch_steps * args.batch / (time.process_time() - start))
    finally:
        source.close()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="the best counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(folder, args.images, args.size, 64)
        result = {
            "images": args.images,
            "size": args.size,
            "mean_bytes": round(data.scan([images], args.size).encoded_bytes / args.images),
            "streamed_images_per_s_per_core": round(images_per_second(images, args, 1.0)),
            "decoded_images_per_s_per_core": round(images_per_second(images, args, 1e12)),
        }
    write_result(f"loader-{args.size}", result)


if __name__ == "__main__":
    main()
