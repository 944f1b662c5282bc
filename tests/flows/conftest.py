"""A small CemiFace generator, its scorer, and people: random weights whose ridge mean follows the embeddings."""

import dataclasses

import numpy as np
import pytest
import torch

from synface.core import rng
from synface.models import autoencoder, recognizers, weights
from synface.models.denoisers import config as denoisers
from synface.models.denoisers import generator as generators
from synface.store import schemas, tables

SMALL = dataclasses.replace(
    denoisers.TINY, sample_size=8, channels=4, widths=(16, 32), attention=(False, False), embedding_dim=8,
    condition_dim=64, head_channels=16, norm_groups=8,
)  # fmt: skip


def unit(n, d, seed=0):
    x = rng.generator(seed, "u").standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def people_table(x_nd, sha):
    names = [f"p{i}" for i in range(len(x_nd))]
    return schemas.identities_table(names, x_nd, ["toy"] * len(x_nd), [0] * len(x_nd), {"embedder_sha256": sha})


@pytest.fixture(scope="session")
def small_cemiface(tmp_path_factory) -> dict[str, str]:
    """A scorer, a generator for it whose ridge mean follows its embeddings, and eight people."""
    folder = tmp_path_factory.mktemp("cemiface")
    torch.manual_seed(1)
    scorer = recognizers.build("tiny", 8, 32)
    weights.save_pretrained(str(folder / "fr"), scorer, weights.WeightsConfig("tiny", 8, 32, "CC0-1.0", "noise"))
    sha = weights.read_config(str(folder / "fr")).sha256
    module = generators.build(SMALL, autoencoder.AutoencoderConfig(image_size=32, channels=4, width=16, narrow=16))
    with torch.no_grad():
        module.denoiser.mean.weight_dk.normal_(0, 3)
    stated = generators.weights_config(
        module,
        "small",
        generators.Provenance("fr", sha, "Apache-2.0", "noise"),
        "float32",
        inquiries={"threshold": 0.9},
    )
    weights.save_pretrained(str(folder / "g"), module, stated)
    (folder / "ids.parquet").write_bytes(tables.parquet_bytes(people_table(unit(8, 8), sha)))
    return {"weights": str(folder / "g"), "scorer": str(folder / "fr"), "identities": str(folder / "ids.parquet")}
