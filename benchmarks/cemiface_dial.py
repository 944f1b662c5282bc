"""Does a target similarity come true? Calibrate on some unseen people, test the targets on others, and say everything.

    python benchmarks/cemiface_dial.py --weights runs/cemiface_tiny/generator --work /tmp/cemiface_dial
    python benchmarks/cemiface_dial.py ... --judge runs/other_recognizer   # of another architecture and seed

Renders 200 people of the validation split (the first picture of each is the inquiry), calibrates the generator on the
first half and measures targets 0.1 ... 0.6 on the second, 8 samples each. With a judge every target's line also has
the judge's view: the mean cosine of its own embeddings of samples and inquiries, and its AUC between an identity's own
samples and those of others, with the same AUC of as many rendered pictures of these people beside it. Every line shows
asked, realised, mislabelled and failed together.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import stages
from common import write_result
from synface.core import scores
from synface.flows import calibrate
from synface.flows.calibrate_config import CalibrateConfig
from synface.models import weights
from synface.models.embedding import Embedder
from synface.settings import build
from synface.store import images, status, tables

DOMAIN = "heads-real"


def people(asked: argparse.Namespace) -> str:
    """One-shot inquiries: the first rendered picture of each unseen person, embedded."""
    size = weights.read_config(asked.weights, "generator").input_size
    rendered = stages.generate(
        f"{asked.work}/inquiry_images",
        generator="heads",
        domain=DOMAIN,
        heads={"split": "val"},
        num_identities=2 * asked.people,
        images_per_identity=asked.samples,
        image_size=size,
    )
    return stages.embed(f"{asked.work}/inquiries", images=rendered, weights=asked.scorer, images_per_identity=1)


def judged(asked: argparse.Namespace, calibrated: str, inquiries: str, targets: list[float]) -> list[dict[str, Any]]:
    """The judge's view of the test people's samples at every target."""
    table = tables.read_identities(inquiries).slice(asked.people, asked.people)
    place = f"{asked.work}/judged.parquet"
    Path(place).write_bytes(tables.parquet_bytes(table))
    schedule = {"similarity": {"schedule": targets}}
    made = stages.draw(f"{asked.work}/judged", calibrated, place, len(targets) * asked.samples, schedule)
    judge = Embedder.from_pretrained(asked.judge, threads=1)
    names = table["identity_id"].to_pylist()
    own = embeddings(judge, f"{asked.work}/inquiry_images")
    own_id = np.stack([own[name, 0] for name in names])
    found = embeddings(judge, made)
    rendered = auc_among(np.stack([[own[name, k] for k in range(asked.samples)] for name in names]))
    lines = []
    for t, target in enumerate(targets):
        x_ikd = np.stack([[found[n, k * len(targets) + t] for k in range(asked.samples)] for n in names])
        cos = np.einsum("ikd,jd->ikj", x_ikd, own_id)
        same = np.repeat(np.eye(len(names), dtype=bool)[:, None], asked.samples, 1)
        lines.append(
            {
                "target": target,
                "judge_cosine_to_inquiry": round(float(cos[same].mean()), 4),
                "judge_auc_to_inquiry": round(scores.auc(cos.ravel(), same.ravel()), 4),
                "judge_auc_among_samples": round(auc_among(x_ikd), 4),
                "judge_auc_among_rendered": round(rendered, 4),
                "failed": int(status.status(made)["failed"]),
            }
        )
    return lines


def auc_among(x_ikd: np.ndarray) -> float:
    """AUC between two samples of one identity and of two; unit features [identities, samples, d]."""
    pairs = x_ikd.reshape(-1, x_ikd.shape[2])
    label = np.repeat(np.arange(len(x_ikd)), x_ikd.shape[1])
    upper = np.triu_indices(len(pairs), 1)
    return scores.auc((pairs @ pairs.T)[upper], (label[:, None] == label)[upper])


def embeddings(judge: Embedder, uri: str) -> dict[tuple[str, int], np.ndarray]:
    found = pictures(uri)
    return dict(zip(found, judge.embed(np.stack(list(found.values()))), strict=True))


def pictures(uri: str) -> dict[tuple[str, int], np.ndarray]:
    """(identity, sample) -> uint8 image."""
    table = pa.concat_tables(tables.iter_images(uri, ["image", "identity_id", "sample"]))
    keys = zip(table["identity_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
    return {key: images.decode(row["bytes"]) for key, row in zip(keys, table["image"].to_pylist(), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--judge", default="")
    parser.add_argument("--people", type=int, default=100, help="for the curve, and again for the test")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--guidance", type=float)
    asked = parser.parse_args()
    inquiries = people(asked)
    output = f"{asked.work}/calibrated-{asked.guidance or 'own'}"
    numbers = calibrate.run(
        build(
            CalibrateConfig,
            {
                "weights": asked.weights,
                "identities": inquiries,
                "scorer": asked.scorer,
                "num_identities": asked.people,
                "test_identities": asked.people,
                "samples": asked.samples,
                "sampler": {} if asked.guidance is None else {"guidance": asked.guidance},
                "output": output,
            },
        )
    )
    table = json.loads((Path(output) / calibrate.FILE).read_text())
    targets = [line["asked"] for line in table["targets"]]
    result = {
        "weights_sha256": weights.read_config(asked.weights, "generator").sha256,
        "people": asked.people,
        "samples": asked.samples,
        "numbers": {k: v for k, v in numbers.items() if k not in ("uri", "seconds", "cached")},
        "grid": table["grid"],
        "targets": table["targets"],
        "judge": judged(asked, output, inquiries, targets) if asked.judge else "none given",
    }
    write_result("cemiface_dial", result)


if __name__ == "__main__":
    main()
