"""Does a target similarity come true? Asks a calibrated generator for people whom its dial has not seen.

    python benchmarks/cemiface_dial.py --work runs/cemiface_dial --judge benchmarks/judge

Renders people of the validation split beyond those of `jobs/configs/cemiface_tiny.yaml`; an inquiry is the mean
embedding of their first pictures (`--inquiry 1`: one-shot). The first 100 are asked the targets 0.1 ... 0.6, eight
samples each, all 200 m = 0.75. With a judge every target's line also has the judge's view: the mean cosine of its own
embeddings of samples and inquiries, and its AUC between an identity's own samples and those of others, with the same
AUC of as many rendered pictures of these people beside it. Every line shows asked, realised, mislabelled and left out
(a cost) together.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import stages
from common import write_result
from synface.core import dial, scores, sphere
from synface.models import weights
from synface.models.embedding import Embedder
from synface.ops.runs import say
from synface.store import images, schemas, status, tables

DOMAIN = "heads-real"
FIRST = 100_000  # of the validation split's people
M = 0.75  # of the samples whose mean is compared with what was asked


def people(asked: argparse.Namespace) -> str:
    """Identities table of the unseen people; their pictures stand beside it."""
    size = weights.read_config(asked.weights, "generator").input_size
    rendered = stages.generate(
        f"{asked.work}/inquiry_images",
        generator="heads",
        domain=DOMAIN,
        heads={"split": "val"},
        first_seed=FIRST,
        num_identities=2 * asked.people,
        images_per_identity=asked.samples,
        image_size=size,
    )
    place = f"{asked.work}/inquiries-{asked.inquiry}"
    return stages.embed(place, images=rendered, weights=asked.scorer, images_per_identity=asked.inquiry)


def targets_met(asked: argparse.Namespace, table: pa.Table, targets: list[float]) -> dict[str, Any]:
    """A line per target, and the errors over all."""
    place = f"{asked.work}/asked.parquet"
    Path(place).write_bytes(tables.parquet_bytes(table))
    schedule = {"similarity": {"schedule": targets}}
    scoring = {"weights": asked.scorer, "tolerance": asked.tolerance, "attempts": 20} if asked.tolerance else {}
    made = stages.draw(
        f"{asked.work}/targets{asked.tolerance or ''}", asked.weights, place, len(targets) * asked.samples, schedule,
        scoring=scoring,
    )  # fmt: skip
    drawn_t = attempts(made, len(targets)) if asked.tolerance else np.ones(len(targets))
    pixels, names = pictures(made), table["identity_id"].to_pylist()
    found_itkd = in_order(
        Embedder.from_pretrained(asked.scorer, threads=2), pixels, names, len(targets), asked.samples
    )
    centre_id = schemas.embeddings(table)
    realised_itk = np.einsum("itkd,id->itk", found_itkd, centre_id).astype(np.float64)
    label = np.repeat(np.arange(len(names)), asked.samples)
    lines, state = [], status.status(made)
    for t, target in enumerate(targets):
        wrong = dial.mislabelled(found_itkd[:, t].reshape(len(label), -1), label, centre_id)
        lines.append(
            {
                "target": target,
                "realised": round(float(realised_itk[:, t].mean()), 4),
                "mislabelled": round(float(wrong.mean()), 4),
                "drawn_per_sample": round(float(drawn_t[t]), 3),
                "left_out": int(state["failed"]) + int(state["refused"]),
            }
        )
    if asked.judge:
        for line, view in zip(lines, judged(asked, pixels, names, len(targets)), strict=True):
            line |= view
    error = {k: round(v, 4) for k, v in dataclasses.asdict(dial.evaluate(np.array(targets), realised_itk)).items()}
    return {"targets": lines, "error": error}


def attempts(uri: str, targets: int) -> np.ndarray:
    """How often a sample of each target was drawn, in the mean."""
    table = pa.concat_tables(tables.iter_images(uri, ["sample", "attempt"]))
    attempt_n = 1.0 + table["attempt"].to_numpy()
    return np.array([attempt_n[table["sample"].to_numpy() % targets == t].mean() for t in range(targets)])


def judged(
    asked: argparse.Namespace, pixels: dict[tuple[str, int], np.ndarray], names: list[str], targets: int
) -> list[dict[str, Any]]:
    """The judge's view of every target's samples."""
    judge = Embedder.from_pretrained(asked.judge, threads=2)
    own = embeddings(judge, f"{asked.work}/inquiry_images")
    own_ikd = by_identity(own, names, asked.samples)
    centre_id = sphere.normalize(own_ikd[:, : asked.inquiry].mean(1))
    found_itkd = in_order(judge, pixels, names, targets, asked.samples)
    cos_itkj = np.einsum("itkd,jd->itkj", found_itkd, centre_id)
    same = np.broadcast_to(np.eye(len(names), dtype=bool)[:, None], cos_itkj[:, 0].shape)
    rendered = round(auc_among(own_ikd), 4)
    return [
        {
            "judge_cosine_to_inquiry": round(float(cos_itkj[:, t][same].mean()), 4),
            "judge_auc_to_inquiry": round(scores.auc(cos_itkj[:, t].ravel(), same.ravel()), 4),
            "judge_auc_among_samples": round(auc_among(found_itkd[:, t]), 4),
            "judge_auc_among_rendered": rendered,
        }
        for t in range(targets)
    ]


def re_embedded(asked: argparse.Namespace, inquiries: str) -> dict[str, float]:
    """How near the mean of an identity's samples at m = 0.75 comes to what was asked, and its rank among all."""
    made = stages.draw(f"{asked.work}/re-embedded", asked.weights, inquiries, asked.samples, {"m": M}, seed=1)
    table = tables.read_identities(inquiries)
    names = table["identity_id"].to_pylist()
    found = embeddings(Embedder.from_pretrained(asked.scorer, threads=2), made)
    mean_id = sphere.normalize(by_identity(found, names, asked.samples).mean(1))
    cosine_ij = mean_id @ schemas.embeddings(table).T
    return {
        "m": M,
        "identities": len(names),
        "cosine_to_asked": round(float(np.diag(cosine_ij).mean()), 4),
        "rank_1": round(float((cosine_ij.argmax(1) == np.arange(len(names))).mean()), 4),
    }


def in_order(
    embedder: Embedder, pixels: dict[tuple[str, int], np.ndarray], names: list[str], values: int, samples: int
) -> np.ndarray:
    """Unit features [identities, values, samples, d]; sample k of a person was asked value k modulo `values`."""
    x = np.stack([pixels[name, k * values + v] for name in names for v in range(values) for k in range(samples)])
    return embedder.embed(x).reshape(len(names), values, samples, -1)


def by_identity(found: dict[tuple[str, int], np.ndarray], names: list[str], samples: int) -> np.ndarray:
    """Features [identities, samples, d] of the named people's first samples."""
    return np.stack([[found[name, k] for k in range(samples)] for name in names])


def came(scorer: Embedder, images: str, inquiries: str, judge: Embedder | None = None) -> dict[str, float]:
    """How near an images table's samples came to their inquiries, how alike they are, and what a judge sees."""
    table, found = tables.read_identities(inquiries), embeddings(scorer, images)
    names, inquiry_id = table["identity_id"].to_pylist(), schemas.embeddings(table)
    samples = len(found) // len(names)
    x_ikd = by_identity(found, names, samples)
    label_n = np.repeat(np.arange(len(names)), samples)
    upper = np.triu_indices(samples, 1)
    line: dict[str, Any] = {
        "realised": np.einsum("ikd,id->ik", x_ikd, inquiry_id).mean(),
        "mislabelled": dial.mislabelled(x_ikd.reshape(len(label_n), -1), label_n, inquiry_id).mean(),
        "cosine_within_identity": np.einsum("ikd,ild->ikl", x_ikd, x_ikd)[:, upper[0], upper[1]].mean(),
    }
    if judge is not None:
        line["judge_auc"] = auc_among(by_identity(embeddings(judge, images), names, samples))
    return {name: round(float(value), 4) for name, value in line.items()}


def auc_among(x_ikd: np.ndarray) -> float:
    """AUC between two samples of one identity and of two; unit features [identities, samples, d]."""
    pairs = x_ikd.reshape(-1, x_ikd.shape[2])
    label = np.repeat(np.arange(len(x_ikd)), x_ikd.shape[1])
    upper = np.triu_indices(len(pairs), 1)
    return scores.auc((pairs @ pairs.T)[upper], (label[:, None] == label)[upper])


def auc_error(x_ikd: np.ndarray, blocks: int = 20) -> float:
    """Standard error of `auc_among` over identities: jackknife that leaves out one block of them at a time."""
    identity_i = np.arange(len(x_ikd))
    left = np.array([auc_among(x_ikd[identity_i % blocks != block]) for block in range(blocks)])
    return float(np.sqrt((blocks - 1) * np.mean((left - left.mean()) ** 2)))


def embeddings(embedder: Embedder, uri: str) -> dict[tuple[str, int], np.ndarray]:
    found = pictures(uri)
    return dict(zip(found, embedder.embed(np.stack(list(found.values()))), strict=True))


def pictures(uri: str) -> dict[tuple[str, int], np.ndarray]:
    """(identity, sample) -> uint8 image."""
    table = pa.concat_tables(tables.iter_images(uri, ["image", "identity_id", "sample"]))
    keys = zip(table["identity_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
    return {key: images.decode(row["bytes"]) for key, row in zip(keys, table["image"].to_pylist(), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="cemiface-tiny", help="calibrated")
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--judge", default="")
    parser.add_argument("--people", type=int, default=100, help="that are asked the targets; half of those rendered")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--inquiry", type=int, default=4, help="pictures whose mean embedding is the inquiry")
    parser.add_argument(
        "--tolerance", type=float, default=0, help="scoring.tolerance; default: nothing is drawn again"
    )
    parser.add_argument("--targets", default="0.1,0.2,0.3,0.4,0.5,0.6")
    asked = parser.parse_args()
    inquiries = people(asked)
    table = tables.read_identities(inquiries).slice(0, asked.people)
    result = {
        "weights_sha256": weights.read_config(asked.weights, "generator").sha256,
        "people": asked.people,
        "samples": asked.samples,
        "pictures_of_an_inquiry": asked.inquiry,
        "tolerance": asked.tolerance or None,
        **targets_met(asked, table, stages.numbers(asked.targets)),
        "re_embedded": re_embedded(asked, inquiries),
    }
    say(f"{result}")
    kind = ("" if asked.inquiry > 1 else "_one_shot") + (f"_within_{asked.tolerance:g}" if asked.tolerance else "")
    write_result(f"cemiface_dial{kind}", result)


if __name__ == "__main__":
    main()
