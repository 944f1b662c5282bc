"""Identities that are made at the run's start, for every generator that draws an embedding.

* *uniform*: points uniform on the sphere of embeddings (IDiff-Face's "synthetic uniform" contexts).
* *mixup*: mixtures of two of a table's identities (SynFace's identity mixup), each a new identity with its own label;
  SynFace's mixed labels have no counterpart here.

Each depends on ``(seed, its own number)`` and, for mixup, on the table: more of them change none.
"""

import numpy as np
import pyarrow as pa

from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.generate import conditions
from synface.generate.config import GenerateConfig
from synface.generate.generators import Description
from synface.store import schemas

UNIFORM, MIXUP = "uniform", "mixup"


def check(config: GenerateConfig, description: Description) -> None:
    """InputError where a generator that draws no embedding, or of unknown size, is given contexts."""
    asked = [name for name in (UNIFORM, MIXUP) if getattr(config.contexts, name)]
    if asked and not description.needs_embedding:
        raise InputError(f"contexts.{asked[0]}: generator {config.generator!r} draws no embedding; leave it out")
    if config.contexts.uniform and description.embedding_dim is None:
        raise InputError(
            f"contexts.uniform: generator {config.generator!r} does not say how many dimensions its embeddings have; "
            "give an identities table"
        )


def uniform(config: GenerateConfig, description: Description) -> pa.Table:
    """``num_identities`` points uniform on the sphere, stated as embeddings of the generator's own recognizer."""
    assert description.embedding_dim is not None  # `check` refused it
    seeds = np.arange(config.first_seed, config.first_seed + (config.num_identities or 0))
    keys = [(UNIFORM, int(n)) for n in seeds]
    x_nd = sphere.normalize(rng.normal_rows(config.seed, keys, (description.embedding_dim,)).astype(np.float64))
    metadata = {"embedder": description.embedder, "embedder_sha256": description.embedder_sha256}
    names = [f"{UNIFORM}-{n:010d}" for n in seeds]
    return schemas.identities_table(names, x_nd.astype(np.float32), [UNIFORM] * len(names), seeds, metadata)


def mixed(config: GenerateConfig, table: pa.Table) -> pa.Table:
    """``contexts.mixup`` mixtures of two different identities of the table; their source names the parents."""
    count = config.contexts.mixup or 0
    keys = [(MIXUP, n) for n in range(count)]
    parent_n2 = conditions.parents(config.seed, keys, table.num_rows)
    share_n = conditions.shares(config.seed, keys, *config.contexts.share)
    x_nd, name = schemas.embeddings(table), table["identity_id"].to_pylist()
    mix_nd = conditions.mixed(x_nd[parent_n2[:, 0]], x_nd[parent_n2[:, 1]], share_n)
    source = [f"{MIXUP} of {name[a]} and {name[b]}" for a, b in parent_n2]
    names = [f"{MIXUP}-{n:07d}" for n in range(count)]
    return schemas.identities_table(names, mix_nd, source, list(range(count)), schemas.metadata_of(table.schema))
