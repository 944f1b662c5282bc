"""Which identities are far apart *as generated*? Packed identities -> CemiFace samples, judged by what came out.

    python benchmarks/cemiface_packed.py --weights runs/cemiface_tiny/calibrated --work runs/cemiface_packed
    python benchmarks/cemiface_packed.py ... --judge runs/other --train   # AUC of a judge, accuracy of a FR

Arms, all of the same number of identities from one pool of unseen people, all rendered alike: the first of the pool
(unpacked), its dispersed subset, packed in the whole embedding space (the unsafe way), packed inside the leading
subspace that holds a share of the energy, the same whitened, and the closed loop from one of these, alone or with the
rounds that the judge tells apart less well left out. Every line: what was asked, what came, how near to what was
asked, whether an independent judge still tells the people apart, and what a recognizer learns from them.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import stages
from cemiface_dial import auc_among, auc_error, by_identity
from cemiface_dial import embeddings as embedded
from common import mean_and_interval, write_result
from synface.core import sphere
from synface.flows import closed_loop, realised
from synface.flows.closed_loop_config import ClosedLoopConfig
from synface.models import weights
from synface.models.embedding import Embedder
from synface.ops.runs import say
from synface.settings import build
from synface.store import tables
from synface.store import uri as uris

ARMS = (
    "unpacked", "dispersed", "packed", "subspace 0.9", "subspace 0.8", "whitened 0.9", "closed-loop dispersed",
    "closed-loop subspace 0.9", "judged-loop subspace 0.9",
)  # fmt: skip
STATED = (
    "max_cosine", "mean_nearest_cosine", "max_cosine_asked", "cosine_to_asked_mean", "nearer_to_another",
)  # fmt: skip


def choose(asked: argparse.Namespace, root: Path, pool: str, arm: str) -> str:
    """URI of an arm's identities."""
    count = asked.identities
    if arm == "unpacked":
        chosen = str(root / "unpacked.parquet")
        uris.write_bytes(chosen, tables.parquet_bytes(tables.read_identities(pool).slice(0, count)))
        return chosen
    if arm == "dispersed":
        return stages.pack(root / arm, solver="subset", pool=pool, num_identities=count)
    way, _, rest = arm.partition(" ")
    if way in ("closed-loop", "judged-loop"):
        fields = {
            "identities": choose(asked, root, pool, rest),
            "weights": asked.weights,
            "scorer": asked.scorer,
            "samples": asked.samples,
            "variation": {"m": asked.m},
            "rounds": asked.rounds,
            "judge": asked.judge if way == "judged-loop" else None,
            "output": str(root / place(arm)),
        }
        return closed_loop.run(build(ClosedLoopConfig, fields))["uri"]
    more: dict[str, Any] = {"subspace": float(rest) if rest else "all"}
    if way == "whitened":
        more["whiten"] = "space"
    return stages.pack(root / place(arm), gallery=pool, alpha=asked.alpha, num_identities=count, **more)


def place(arm: str) -> str:
    """Folder of an arm."""
    return arm.replace(" ", "-")


def judged(asked: argparse.Namespace, identities: str, images: str) -> dict[str, float]:
    """AUC of the judge between two samples of one identity and of two, its standard error over identities, and the
    judge's margin as the closed loop has it.
    """
    found = embedded(Embedder.from_pretrained(asked.judge, threads=1), images)
    x_ikd = by_identity(found, tables.read_identities(identities)["identity_id"].to_pylist(), asked.samples)
    centre_id = sphere.normalize(x_ikd.mean(1))
    line = {
        "judge_auc_among_samples": auc_among(x_ikd),
        "judge_auc_error": auc_error(x_ikd),
        "judge_margin": closed_loop.margin(np.einsum("ikd,id->ik", x_ikd, centre_id), centre_id),
    }
    return {name: round(value, 4) for name, value in line.items()}


def measure(asked: argparse.Namespace, root: Path, pool: str, arm: str) -> dict[str, Any]:
    chosen = choose(asked, root, pool, arm)
    # not the noise that the closed loop looked at
    images = stages.draw(root / f"{place(arm)}-images", asked.weights, chosen, asked.samples, {"m": asked.m}, seed=1)
    fields = {"verify_realised": images, "weights": asked.scorer, "identities": chosen}
    came = realised.run(build(realised.RealisedConfig, fields | {"output": str(root / f"{place(arm)}-realised")}))
    line: dict[str, Any] = {name: round(came[name], 4) for name in STATED}
    if asked.judge:
        line |= judged(asked, chosen, images)
    if asked.train:
        sections = stages.sections_of(asked.recipe)
        fr = root / f"{place(arm)}-fr"
        found = [stages.recognizer_accuracy(fr, sections, [images], seed)["heads-v1"] for seed in range(asked.seeds)]
        line["accuracy_percent"] = mean_and_interval(found)
    say(f"{arm}: {line}")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--judge", default="")
    parser.add_argument("--train", action="store_true", help="train a recognizer on every arm")
    parser.add_argument("--recipe", default="jobs/configs/quickstart.yaml", help="of that recognizer")
    parser.add_argument("--seeds", type=int, default=2, help="of the recognizers")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--pool", type=int, default=2600, help="people of the pool")
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--m", type=float, default=0.75)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    root = Path(asked.work)
    pictures = stages.generate(
        root / "pool_images",
        generator="heads",
        domain="heads-real",
        heads={"split": "val"},
        first_seed=10_000,
        num_identities=asked.pool,
        images_per_identity=2,
        image_size=weights.read_config(asked.scorer).input_size,
    )
    pool = stages.embed(root / "pool", images=pictures, weights=asked.scorer)
    given = {k: v for k, v in vars(asked).items() if k not in ("arms", "work")}
    lines = {arm: measure(asked, root, pool, arm) for arm in asked.arms.split(",")}
    write_result("cemiface_packed", {"arms": lines, "settings": given})


if __name__ == "__main__":
    main()
