"""A small random recognizer as scorer, people in its space, and the stream without Ray."""

import numpy as np
import torch
from generate_helpers import DemoIdentities, pattern_config

from synface.core import rng
from synface.generate import distributed, scoring
from synface.generate.distributed import ShardActor
from synface.generate.writer import write_row
from synface.models import recognizers, weights
from synface.ops import cluster, demand
from synface.store import artifact, schemas, tables

SIZE, DIM = 32, 16


def write_scorer(folder, seed=4, size=SIZE) -> str:
    torch.manual_seed(seed)
    module = recognizers.build("tiny", DIM, size)
    with torch.no_grad():  # statistics of the normalisations, or all features point one way
        for _ in range(30):
            coarse = torch.rand(16, 3, 4, 4) * 2 - 1
            module(torch.nn.functional.interpolate(coarse, (size, size)))
    stated = weights.WeightsConfig("tiny", DIM, size, licence="none", training_data="none: random numbers")
    weights.save_pretrained(str(folder), module.eval(), stated)
    return str(folder)


def write_people(folder, scorer: str, count=6, sha=None) -> str:
    """The first `count` of one endless list of people."""
    x = np.stack([rng.generator(n, "person").standard_normal(DIM) for n in range(count)])
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    config = DemoIdentities(output=str(folder), count=count)
    opened = artifact.open_output(config)
    metadata = {"embedder": "tiny", "embedder_sha256": sha or weights.read_config(scorer).sha256}
    table = schemas.identities_table([f"p{n}" for n in range(count)], x, ["toy"] * count, range(count), metadata)
    artifact.commit(config, opened, "identities", [tables.write_identities(config.output, table)], {})
    return str(folder)


def scored_config(output, people, scorer, filters=None, **fields):
    base = {"identities": people, "image_size": SIZE, "format": "png", "numerics": {"micro_batch": 4}}
    return pattern_config(output, **base | fields, scoring={"weights": scorer, **(filters or {})})


def without_ray(monkeypatch, order=lambda todo: todo, limit=None):
    """Patch `generate` to make its shards here, in any order; `limit`: the run dies after so many."""

    def stream(config, identities, versions, erased, todo):
        actor = ShardActor(config, [], None, erased)
        scorer = scoring.describe(config)
        if scorer is not None:
            actor.judge = scoring.Judge(config, scorer, identities.reference_nd)
        for number, shard in enumerate(order(list(todo))):
            if number == limit:
                raise KeyboardInterrupt
            yield write_row(actor(distributed._request(shard, identities)), config.output, versions)

    monkeypatch.setattr(distributed, "_stream", stream)
    monkeypatch.setattr(distributed, "check_room", lambda config: None)
    monkeypatch.setattr(demand, "nodes", lambda: [{"CPU": 1.0}])
    for name in ("connect", "check_output_reachable"):
        monkeypatch.setattr(cluster, name, lambda *given: None)


def rows_of(uri) -> list[dict]:
    return [row for table in tables.iter_images(uri) for row in table.to_pylist()]
