"""Small random weights, people, and rendering without Ray for the tests of generators that sample a denoiser."""

import dataclasses

import numpy as np
import torch
from generate_helpers import DemoIdentities

from synface.core import rng
from synface.generate.generators import find_generator
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import shard_items
from synface.models import autoencoder, weights
from synface.models.denoisers import config as denoisers
from synface.models.denoisers import generator as generators
from synface.store import artifact, schemas, tables

EMBEDDER = "ab" * 32
SMALL = dataclasses.replace(
    denoisers.TINY, sample_size=4, channels=4, widths=(16, 32), attention=(False, False), embedding_dim=8,
    condition_dim=64, head_channels=16, norm_groups=8,
)  # fmt: skip


CODEC = autoencoder.AutoencoderConfig(image_size=16, channels=4, width=16, narrow=16)


def write_weights(folder, description=SMALL, codec=CODEC, **details) -> str:
    torch.manual_seed(3)
    module = generators.build(description, codec)
    if module.denoiser.mean is not None:
        with torch.no_grad():
            module.denoiser.mean.weight_dk.normal_()
    provenance = generators.Provenance("toy-fr", EMBEDDER, "Apache-2.0", "noise")
    stated = generators.weights_config(module, "small", provenance, "float32", sampler={"steps": 3}, **details)
    weights.save_pretrained(str(folder), module, stated)
    return str(folder)


def write_people(folder, count=5, sha=EMBEDDER, dim=8) -> str:
    x = rng.generator(1).standard_normal((count, dim))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    config = DemoIdentities(output=str(folder), count=count)
    opened = artifact.open_output(config)
    names = [f"p{i}" for i in range(count)]
    metadata = {"embedder": "toy-fr", "embedder_sha256": sha}
    table = schemas.identities_table(names, x, ["toy"] * count, [0] * count, metadata)
    artifact.commit(config, opened, "identities", [tables.write_identities(config.output, table)], {})
    return str(folder)


def rendered(config, order=None, group=4):
    """All samples, rendered `group` items at a time in any order; by item."""
    threads = torch.get_num_threads()
    kind = find_generator(config.generator)
    made = kind(config)
    found = open_identities(config, kind.describe(config))
    people = shard_identities(kind, config, range(found.count), found.columns)
    items = shard_items(config.seed, people, config.images_per_identity)
    order = list(range(len(items))) if order is None else order
    out = {}
    for start in range(0, len(order), group):
        part = order[start : start + group]
        out |= dict(zip(part, made.render([items[i] for i in part]), strict=True))
    torch.set_num_threads(threads)
    return [out[i] for i in sorted(out)]
