"""A small images table whose identities are told apart by colour patterns."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from synface.core import rng
from synface.models import autoencoder as autoencoders
from synface.models import recognizers, weights
from synface.models.denoisers import generator as generators
from synface.settings import StageConfig
from synface.store import artifact, images, schemas, tables


class ToyConfig(StageConfig):
    verb: ClassVar[str] = "toy"

    identities: int
    images: int
    size: int
    prefix: str = "toy"


def pixels(identity: int, sample: int, size: int) -> np.ndarray:
    """A coarse pattern that is the identity's, and noise that is the sample's; uint8 [size, size, 3]."""
    pattern = rng.generator(identity, "pattern").integers(0, 256, (4, 4, 3))
    noise = rng.generator(identity, sample, "noise").normal(0, 30, (size, size, 3))
    return np.clip(np.kron(pattern, np.ones((size // 4, size // 4, 1))) + noise, 0, 255).astype(np.uint8)


def write_toy(
    output: str, identities: int = 6, per_identity: int = 4, size: int = 32, shard: int = 10, prefix: str = "toy"
) -> str:
    """An images artifact of `identities` x `per_identity` PNGs in shards of `shard` rows; returns its URI."""
    config = ToyConfig(output=output, identities=identities, images=per_identity, size=size, prefix=prefix)
    opened = artifact.open_output(config)
    facts = [("identity_seed", pa.int64()), ("domain", pa.string()), ("yaw", pa.float32()), ("pitch", pa.float32())]
    schema = schemas.images_schema(pa.struct(facts))
    rows = [
        {
            "image": {
                "bytes": images.encode(pixels(i, k, size), "png", 0, "algorithmicMedia"),
                "path": f"{i}-{k}.png",
            },
            "label": i,
            "identity_id": f"{prefix}-{i:03d}",
            "sample": k,
            "m": None,
            "similarity_target": None,
            "similarity_inquiry": None,
            "attributes": {"identity_seed": 1000 + i, "domain": "heads-real", "yaw": 10.0 * k - i, "pitch": 2.0 * i},
            "seed": 7 * i + k,
            "generator": "toy",
            "weights_sha256": "",
            "config_hash": "",
        }
        for i in range(identities)
        for k in range(per_identity)
    ]
    entries = []
    for number, start in enumerate(range(0, len(rows), shard)):
        table = pa.Table.from_pylist(rows[start : start + shard], schema=schema)
        data = tables.parquet_bytes(table)
        entries.append(artifact.write_file(output, f"data/train-{number:05d}.parquet", data, table.num_rows))
    artifact.commit(config, opened, "images", entries, {"images": len(rows), "identities": identities})
    return output


@pytest.fixture(scope="session")
def toy_images(tmp_path_factory) -> str:
    """24 images of 6 identities, 32 pixels, in 3 shards."""
    return write_toy(str(tmp_path_factory.mktemp("toy") / "images"))


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> dict[str, str]:
    """A recognizer and an autoencoder for 32 pixels, with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    recognizer = recognizers.build("tiny", 16, 32)
    weights.save_pretrained(str(folder / "fr"), recognizer, weights.WeightsConfig("tiny", 16, 32, "CC0-1.0", "noise"))
    inner = autoencoders.build(autoencoders.AutoencoderConfig(image_size=32, width=16, narrow=16))
    stated = generators.autoencoder_weights_config(inner, "CC0-1.0", "noise", "float32")
    weights.save_pretrained(str(folder / "ae"), inner, stated)
    return {"embedder": str(folder / "fr"), "autoencoder": str(folder / "ae")}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
