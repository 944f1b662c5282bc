"""What the Ray pipeline costs: images/s of `synface generate` against a bare loop, and its own ceiling.

    python benchmarks/generate_overhead.py                       # rendered heads, 112 px, 5 paired rounds
    python benchmarks/generate_overhead.py --generator bytes     # a near-free generator: the pipeline's ceiling
    python benchmarks/generate_overhead.py --output s3://bucket/prefix

Both sides do the same work on the same shards with the same number of processes: render, encode, Parquet,
sha256, write, ledger entry. The rate is read the same way from both: the ledger entries' times, from the first
finished shard of each worker on, so that start-up and compilation do not count. The sides alternate; the
result is the median of the rounds' ratios, with all rounds in the JSON line.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from common import write_result
from synface.core import rng
from synface.generate.config import GenerateConfig
from synface.generate.distributed import generate
from synface.generate.generators import find_generator
from synface.generate.generators.types import Description, Sample
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import Identity, plan_shards, shard_items
from synface.generate.render import render_shard
from synface.settings import build
from synface.store import ledger, tables
from synface.store import uri as uris


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


def bare_worker(config: GenerateConfig, shards: list[int]) -> None:
    """One process of the bare loop: the same functions as an actor and a writer, without Ray."""
    kind = find_generator(config.generator)
    description, generator = kind.describe(config), kind(config)
    plan = plan_of(config)
    for shard in shards:
        asked = plan.shard(shard)
        people = shard_identities(kind, config, asked.labels, None)
        items = shard_items(config.seed, people, asked.samples)
        table, _ = render_shard(generator, description, config, "c" * 64, items)
        ledger.write_shard(config.output, shard, tables.parquet_bytes(table), table.num_rows, "c" * 64)


def plan_of(config: GenerateConfig):
    largest = find_generator(config.generator).describe(config).images_per_minute
    return plan_shards(config.num_identities or 0, config.images_per_identity, config.images_per_shard, largest)


def bare(config: GenerateConfig, workers: int) -> None:
    shards = list(range(plan_of(config).shards))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=bare_worker, args=(config, shards[w::workers])) for w in range(workers)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
        assert p.exitcode == 0


def piped(config: GenerateConfig) -> None:
    kind = find_generator(config.generator)
    generate(config, "c" * 64, open_identities(config, kind.describe(config)), plan_of(config), {})


def rate(output: str, images_per_shard: int, workers: int) -> float:
    """Images per second between the first finished shard of every worker and the last shard."""
    times = sorted(t for _, _, t in uris.list_infos(uris.join(output, ledger.LEDGER)))
    return (len(times) - workers) * images_per_shard / (times[-1] - times[workers - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="heads", choices=["heads", "bytes"])
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--images-per-shard", type=int, default=0, help="default: 128 heads, 4096 bytes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--output", default="")
    asked = parser.parse_args()
    per_shard = asked.images_per_shard or (128 if asked.generator == "heads" else 4096)
    place = asked.output or tempfile.mkdtemp(prefix="generate-overhead-")
    name = "heads" if asked.generator == "heads" else f"{Path(__file__).stem}:Bytes"
    sys.path.append(str(Path(__file__).parent))
    found = []
    for number in range(asked.rounds):
        speeds = {}
        for side in ("bare", "ray") if number % 2 else ("ray", "bare"):
            config = build(
                GenerateConfig,
                {
                    "generator": name,
                    "num_identities": asked.shards * per_shard // 16,
                    "images_per_identity": 16,
                    "images_per_shard": per_shard,
                    "image_size": asked.size,
                    "domain": "heads-real" if name == "heads" else None,
                    "output": uris.join(place, f"{time.time_ns()}"),
                    "how": {"max_actors": asked.workers},
                },
            )
            piped(config) if side == "ray" else bare(config, asked.workers)
            speeds[side] = round(rate(config.output, per_shard, asked.workers), 1)
        found.append(speeds | {"ratio": round(speeds["ray"] / speeds["bare"], 4)})
        print(json.dumps(found[-1]), file=sys.stderr)
    result = {
        "generator": asked.generator,
        "image_size": asked.size,
        "workers": asked.workers,
        "images": asked.shards * per_shard,
        "ratio": statistics.median(r["ratio"] for r in found),
        "ray_images_per_second": statistics.median(r["ray"] for r in found),
        "rounds": found,
    }
    write_result(f"generate_overhead_{asked.generator}", result)


if __name__ == "__main__":
    main()
