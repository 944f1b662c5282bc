"""Does a dispersed subset train a better recognizer than as many random identities? Paired over seeds.

For each seed: its own pool of heads-digi identities, embedded by the shipped recognizer; arm one trains on
the dispersed subset of the pool, arm two on as many identities of the same pool taken in the order of their
seeds (which is random: seeds are independent draws). Same number of images, same training seed, same test.
The difference of the heads-v1 averages is given with its 95 % interval (paired Student t).

    python benchmarks/dispersed_vs_random.py --seeds 5 --output runs/dispersed_vs_random

Every stage resumes: run it again after an interruption.
"""

import argparse
from pathlib import Path
from typing import Any

from common import mean_and_interval, write_result
from synface import settings
from synface.embed import run as embed
from synface.embed.config import EmbedConfig
from synface.evaluate import run as evaluate
from synface.evaluate.config import EvaluateConfig
from synface.generate import run as generate
from synface.generate.config import GenerateConfig
from synface.ops.progress import say
from synface.pack import run as pack
from synface.pack.config import PackConfig
from synface.settings import build
from synface.store import tables
from synface.store import uri as uris
from synface.train import run as train
from synface.train.config import TrainRecognizerConfig


def recipe(path: str) -> dict[str, Any]:
    from synface.cli import STAGES

    return settings.read_recipe(path, (*STAGES, "pool"))


def make_pool(sections: dict[str, Any], root: Path, seed: int) -> str:
    count = sections["pool"]["num_identities"]
    images = build(
        GenerateConfig,
        {**sections["pool"], "first_seed": 1_000_000 * (seed + 1), "seed": seed, "output": str(root / "pool_images")},
    )
    generate.run(images)
    pool = build(EmbedConfig, {**sections["embed"], "images": images.output, "output": str(root / "pool")})
    embed.run(pool)
    say(f"seed {seed}: pool of {count} identities ready")
    return pool.output


def choose(sections: dict[str, Any], root: Path, pool: str, arm: str) -> tuple[str, dict[str, Any]]:
    """URI of the chosen identities, and their cosines."""
    from synface.core.sphere import nearest_cosine
    from synface.store.schemas import embeddings

    count = sections["pack"]["num_identities"]
    if arm == "dispersed":
        config = build(
            PackConfig, {**sections["pack"], "pool": pool, "output": str(root / "dispersed" / "identities")}
        )
        pack.run(config)
        chosen = config.output
        table = tables.read_identities(chosen)
    else:
        table = tables.read_identities(pool).slice(0, count).combine_chunks()
        chosen = str(root / "random" / "identities.parquet")
        uris.write_bytes(chosen, tables.parquet_bytes(table))
    nearest = nearest_cosine(embeddings(table))[0]
    return chosen, {"max_cosine": float(nearest.max()), "mean_nearest_cosine": float(nearest.mean())}


def run_arm(sections: dict[str, Any], root: Path, pool: str, seed: int, arm: str) -> dict[str, Any]:
    chosen, cosines = choose(sections, root, pool, arm)
    images = build(
        GenerateConfig,
        {**sections["generate"], "seed": seed, "identities": chosen, "output": str(root / arm / "images")},
    )
    generate.run(images)
    weights = build(
        TrainRecognizerConfig,
        {
            **sections["train_recognizer"],
            "seed": seed,
            "images": [images.output],
            "output": str(root / arm / "recognizer"),
        },
    )
    train.run(weights)
    config = build(
        EvaluateConfig, {**sections["evaluate"], "weights": weights.output, "output": str(root / arm / "evaluation")}
    )
    return {"identities": cosines, "evaluation": evaluate.run(config)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", default="jobs/configs/quickstart.yaml")
    parser.add_argument("--output", default="runs/dispersed_vs_random")
    given = parser.parse_args()
    sections = recipe(given.recipe)
    rows = []
    for seed in range(given.seeds):
        root = Path(given.output) / f"seed-{seed}"
        pool = make_pool(sections, root, seed)
        row = {arm: run_arm(sections, root, pool, seed, arm) for arm in ("dispersed", "random")}
        rows.append(row)
        say(f"seed {seed}: " + ", ".join(f"{arm} {average(row[arm]):.2f}" for arm in row))
    differences = [average(r["dispersed"]) - average(r["random"]) for r in rows]
    write_result(
        "dispersed_vs_random",
        {
            "recipe": given.recipe,
            "average_accuracy_percent": {
                arm: mean_and_interval([average(r[arm]) for r in rows]) for arm in ("dispersed", "random")
            },
            "difference_points": mean_and_interval(differences),
            "per_seed": rows,
        },
    )


def average(arm: dict[str, Any]) -> float:
    """Average heads-v1 accuracy in per cent."""
    return 100 * arm["evaluation"]["average"]["heads-v1"]


if __name__ == "__main__":
    main()
