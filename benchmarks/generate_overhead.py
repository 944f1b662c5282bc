"""What the Ray pipeline costs: images/s of `synface generate` against a bare loop, and its own ceiling.

    python benchmarks/generate_overhead.py                       # rendered heads, 112 px, 5 paired rounds
    python benchmarks/generate_overhead.py --scorer heads-fr-tiny --size 64    # the same, each image scored
    python benchmarks/generate_overhead.py --generator bytes     # a near-free generator: the pipeline's ceiling
    python tools/with_s3.py python benchmarks/generate_overhead.py --generator bytes --output s3://bench/ceiling

Both sides do the same work on the same shards with the same number of processes: render, score, encode, Parquet,
sha256, write, ledger entry. The rate is read the same way from both: the ledger entries' times, from the first
finished shard of each worker on, so that start-up and compilation do not count. A trial of the bare loop sizes the
work to `--seconds` of steady state. The sides alternate; the result is the median of the rounds' ratios, with all
rounds in the JSON line.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from common import write_result
from synface.core import rng
from synface.generate import scoring
from synface.generate.config import GenerateConfig
from synface.generate.distributed import generate
from synface.generate.generators import find_generator
from synface.generate.generators.types import Description, Sample
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import Identity, plan_shards, shard_items
from synface.generate.render import render_shard
from synface.generate.scoring import Judge
from synface.models import weights
from synface.settings import StageConfig, build
from synface.store import artifact, ledger, schemas, tables
from synface.store import uri as uris

HASH = "c" * 64
SAMPLES = 16


class Bytes:
    """A near-free generator: a smooth picture whose colours are drawn from the key."""

    attributes = pa.struct([("red", pa.float32())])

    def __init__(self, config):
        y, x = np.mgrid[0 : config.image_size, 0 : config.image_size] / config.image_size
        self.base = (np.stack([x, y, 1 - x], 2) * 100).astype(np.uint8)

    @classmethod
    def describe(cls, config):
        return Description("bytes", "0" * 64, "1", "CC0-1.0", {}, "algorithmicMedia", 100_000, False)

    @classmethod
    def own_identities(cls, config, labels):
        return [Identity(n, f"bytes-{n:08d}", "bytes", n) for n in labels]

    def render(self, items):
        colours = [rng.generator(*item.key).integers(0, 150, 3, np.uint8) for item in items]
        return [Sample(self.base + c, {"red": float(c[0])}) for c in colours]


class People(StageConfig):
    verb: ClassVar[str] = "pack"

    count: int


def write_people(output: str, count: int, scorer: str) -> str:
    """Identities whose inquiries are random points of the scorer's space: as dear to score as any."""
    stated = weights.read_config(scorer)
    x = rng.generator(0, "people").standard_normal((count, stated.embedding_dim))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    config = People(output=output, count=count)
    opened = artifact.open_output(config)
    facts = {"embedder": scorer, "embedder_sha256": stated.sha256}
    ids = [f"heads-real-{n:08d}" for n in range(count)]
    table = schemas.identities_table(ids, x, ["heads-real"] * count, list(range(count)), facts)
    artifact.commit(config, opened, "identities", [tables.write_identities(output, table)], {})
    return output


def opened(config: GenerateConfig):
    """Generator, its description, scorer, identities and plan: what the verb prepares."""
    kind = find_generator(config.generator)
    description, scorer = kind.describe(config), scoring.describe(config)
    identities = open_identities(config, description, scorer)
    plan = plan_shards(
        identities.count, config.images_per_identity, config.images_per_shard, description.images_per_minute
    )
    return kind, description, scorer, identities, plan.named(HASH)


def bare_worker(config: GenerateConfig, shards: list[int]) -> None:
    """One process of the bare loop: the same functions as an actor and a writer, without Ray."""
    kind, description, scorer, identities, plan = opened(config)
    generator = kind(config)
    judge = None if scorer is None else Judge(config, scorer, identities.reference_nd)
    for shard in map(plan.shard, shards):
        people = shard_identities(kind, config, shard.labels, identities.slice(shard.labels))
        items = shard_items(config.seed, people, shard.samples)
        table, _ = render_shard(generator, description, config, HASH, items, judge)
        ledger.write_shard(config.output, shard.number, tables.parquet_bytes(table), table.num_rows, HASH)


def bare(config: GenerateConfig, workers: int) -> None:
    shards = list(range(opened(config)[-1].shards))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=bare_worker, args=(config, shards[w::workers])) for w in range(workers)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
        assert p.exitcode == 0


def piped(config: GenerateConfig) -> None:
    *_, identities, plan = opened(config)
    generate(config, identities, plan, {})


def rate(output: str, images_per_shard: int, workers: int) -> float:
    """Images per second between the first finished shard of every worker and the last shard."""
    times = sorted(t for _, _, t in uris.list_infos(uris.join(output, ledger.LEDGER)))
    return (len(times) - workers) * images_per_shard / (times[-1] - times[workers - 1])


def config_of(asked: argparse.Namespace, place: str, per_shard: int, shards: int) -> GenerateConfig:
    heads = asked.generator == "heads"
    output = uris.join(place, f"{time.time_ns()}")
    count = shards * per_shard // SAMPLES
    who = {"num_identities": count, "domain": "heads-real" if heads else None}
    if asked.scorer:
        people = write_people(uris.join(place, f"people-{count}"), count, asked.scorer)
        who = {"identities": people, "scoring": {"weights": asked.scorer}}
    return build(
        GenerateConfig,
        {
            "generator": "heads" if heads else f"{Path(__file__).stem}:Bytes",
            "images_per_identity": SAMPLES,
            "images_per_shard": per_shard,
            "image_size": asked.size,
            "output": output,
            "how": {"max_actors": asked.workers},
            **who,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="heads", choices=["heads", "bytes"])
    parser.add_argument("--scorer", default="", help="recognizer that scores every image, on both sides")
    parser.add_argument("--seconds", type=float, default=120, help="of steady state, each side of each round")
    parser.add_argument("--shards", type=int, default=0, help="instead of --seconds")
    parser.add_argument("--images-per-shard", type=int, default=0, help="default: 128 heads, 4096 bytes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--output", default="")
    asked = parser.parse_args()
    per_shard = asked.images_per_shard or (128 if asked.generator == "heads" else 4096)
    place = asked.output or tempfile.mkdtemp(prefix="generate-overhead-")
    sys.path.append(str(Path(__file__).parent))
    shards = asked.shards
    if not shards:
        trial = config_of(asked, place, per_shard, 4 * asked.workers)
        bare(trial, asked.workers)
        shards = asked.workers + math.ceil(asked.seconds * rate(trial.output, per_shard, asked.workers) / per_shard)
    found = []
    for number in range(asked.rounds):
        speeds = {}
        for side in ("bare", "ray") if number % 2 else ("ray", "bare"):
            config = config_of(asked, place, per_shard, shards)
            piped(config) if side == "ray" else bare(config, asked.workers)
            speeds[side] = round(rate(config.output, per_shard, asked.workers), 1)
        found.append(speeds | {"ratio": round(speeds["ray"] / speeds["bare"], 4)})
        print(json.dumps(found[-1]), file=sys.stderr)
    result = {
        "generator": asked.generator,
        "scorer": asked.scorer or None,
        "image_size": asked.size,
        "workers": asked.workers,
        "images": shards * per_shard,
        "ratio": statistics.median(r["ratio"] for r in found),
        "ray_images_per_second": statistics.median(r["ray"] for r in found),
        "rounds": found,
    }
    kinds = ("_scored" if asked.scorer else "") + ("_s3" if asked.output.startswith("s3://") else "")
    write_result(f"generate_overhead_{asked.generator}{kinds}", result)


if __name__ == "__main__":
    main()
