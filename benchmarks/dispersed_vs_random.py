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

import stages
from common import mean_and_interval, write_result
from synface.core.sphere import nearest_cosine
from synface.ops.runs import say
from synface.store import tables
from synface.store import uri as uris
from synface.store.schemas import embeddings

ACCURACY = "average_accuracy_percent"


def make_pool(sections: dict[str, Any], root: Path, seed: int) -> str:
    first = 1_000_000 * (seed + 1)
    images = stages.generate(root / "pool_images", **sections["pool"], first_seed=first, seed=seed)
    pool = stages.embed(root / "pool", **sections["embed"], images=images)
    say(f"seed {seed}: pool of {sections['pool']['num_identities']} identities ready")
    return pool


def choose(sections: dict[str, Any], root: Path, pool: str, arm: str) -> tuple[str, dict[str, Any]]:
    """URI of the chosen identities, and their cosines."""
    count = sections["pack"]["num_identities"]
    if arm == "dispersed":
        chosen = stages.pack(root / "dispersed" / "identities", **sections["pack"], pool=pool)
        table = tables.read_identities(chosen)
    else:
        table = tables.read_identities(pool).slice(0, count).combine_chunks()
        chosen = str(root / "random" / "identities.parquet")
        uris.write_bytes(chosen, tables.parquet_bytes(table))
    nearest = nearest_cosine(embeddings(table))[0]
    return chosen, {"max_cosine": float(nearest.max()), "mean_nearest_cosine": float(nearest.mean())}


def run_arm(sections: dict[str, Any], root: Path, pool: str, seed: int, arm: str) -> dict[str, Any]:
    chosen, cosines = choose(sections, root, pool, arm)
    images = stages.generate(root / arm / "images", **sections["generate"], seed=seed, identities=chosen)
    found = stages.recognizer_accuracy(root / arm, sections, [images], seed)
    return {"identities": cosines, ACCURACY: found["heads-v1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", default="jobs/configs/quickstart.yaml")
    parser.add_argument("--output", default="runs/dispersed_vs_random")
    given = parser.parse_args()
    sections = stages.sections_of(given.recipe)
    rows = []
    for seed in range(given.seeds):
        root = Path(given.output) / f"seed-{seed}"
        pool = make_pool(sections, root, seed)
        row = {arm: run_arm(sections, root, pool, seed, arm) for arm in ("dispersed", "random")}
        rows.append(row)
        say(f"seed {seed}: " + ", ".join(f"{arm} {row[arm][ACCURACY]:.2f}" for arm in row))
    differences = [r["dispersed"][ACCURACY] - r["random"][ACCURACY] for r in rows]
    write_result(
        "dispersed_vs_random",
        {
            "recipe": given.recipe,
            ACCURACY: {arm: mean_and_interval([r[arm][ACCURACY] for r in rows]) for arm in ("dispersed", "random")},
            "difference_points": mean_and_interval(differences),
            "per_seed": rows,
        },
    )


if __name__ == "__main__":
    main()
