"""Builders of a small but whole run, written through the store functions that the stages use."""

import io
import json
from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from synface.core import scores, sphere
from synface.core.rng import generator
from synface.evaluate import outcome
from synface.evaluate.verification import Protocol, measure
from synface.models.weights import WeightsConfig
from synface.report.config import ReportConfig
from synface.settings import InputUri, StageConfig, build
from synface.store import artifact, schemas, tables

VERSIONS = {"synface": "0.1.0", "torch": "2.13.0"}
NOISE = {"frontal": 0.8, "pose": 1.3, "age": 1.1, "quality": 1.5, "mixed": 1.4, "lookalike": 0.9}
HOSTILE = '<script>alert("x")</script>'


class Made(StageConfig):
    """Stands for any stage's configuration."""

    verb: ClassVar[str] = "made"
    seed: int = 0
    note: str = ""
    source: InputUri | None = None


def commit(folder, kind, files, numbers, **fields):
    config = Made(output=str(folder), **fields)
    opened = artifact.open_output(config)
    artifact.commit(config, opened, kind, files, numbers, VERSIONS)
    return str(folder)


def face(person, sample, size=64):
    """A smooth coloured blob, the same for a person but for noise."""
    base = generator("report", person).integers(40, 220, (5, 5, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(base).resize((size, size), Image.Resampling.BICUBIC), np.int16)
    noise = generator("report", person, sample).integers(-12, 13, image.shape)
    out = io.BytesIO()
    Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def make_identities(folder, n, seed, **numbers):
    rng = generator("identities", seed)
    x = sphere.normalize(0.5 * rng.standard_normal((1, 64)) / 8 + rng.standard_normal((n, 64)) / 8).astype(np.float32)
    nearest = sphere.nearest_cosine(x)[0]
    table = schemas.identities_table(
        [f"heads-{i}" for i in range(n)], x, ["heads-real"] * n, list(range(n)), nearest_cosine=nearest
    )
    stated = {"num_identities": n, "dim": 64, "bound": 0.08, "iid_max_cosine": 0.52, "solver": "subset", **numbers}
    return commit(folder, "identities", [tables.write_identities(str(folder), table)], stated, seed=seed)


def make_images(folder, identities=12, images=12, picture=face, names=None, similarity=None):
    names = names or [f"heads-real-{i}" for i in range(identities)]
    rows = [(i, k) for i in range(identities) for k in range(images)]
    attributes = pa.array([{"yaw": float(k)} for _, k in rows])
    count = len(rows)
    table = pa.Table.from_pydict(
        {
            "image": pa.array([{"bytes": picture(i, k), "path": f"{i}-{k}.jpg"} for i, k in rows]),
            "label": [i for i, _ in rows],
            "identity_id": [names[i] for i, _ in rows],
            "sample": [k for _, k in rows],
            "m": pa.nulls(count, pa.float32()),
            "similarity_target": pa.nulls(count, pa.float32()),
            "similarity_inquiry": pa.array([similarity and similarity(i, k) for i, k in rows], pa.float32()),
            "attributes": attributes,
            "seed": [0] * count,
            "generator": ["heads"] * count,
            "weights_sha256": ["ab" * 32] * count,
            "config_hash": ["cd" * 32] * count,
        },
        schema=schemas.images_schema(attributes.type),
    )
    entry = artifact.write_file(str(folder), "data/train-00000.parquet", tables.parquet_bytes(table), count)
    numbers = {
        "images": count,
        "identities": identities,
        "generator": "heads",
        "licence": "CC0-1.0",
        "sources": ["MakeHuman mesh (CC0)"],
        "weights_sha256": "ab" * 32,
        "image_size": 64,
    }
    return commit(folder, "images", [entry], numbers)


def make_recognizer(folder, epochs=10, name="tiny"):
    history = [
        {"epoch": e, "step": 50 * e, "loss": 14 * 0.72**e + 0.4, "accuracy": 1 - 0.8**e, "lr": 0.1 / e}
        for e in range(1, epochs + 1)
    ]
    stated = {"architecture": name, "licence": "CC0-1.0", "training_data": "images table", "sha256": "ef" * 32}
    files = [
        artifact.write_file(str(folder), "history.json", json.dumps(history).encode()),
        artifact.write_file(str(folder), "config.json", json.dumps(stated).encode()),
    ]
    numbers = {"parameters": 1_690_000, "epochs": epochs, "images": 3200, "loss": 0.5, "accuracy": 0.9}
    return commit(folder, "recognizer", files, numbers)


def make_evaluation(folder, scale=1.0, groups=True, seed=0, benchmark="heads-v1"):
    rng = generator("evaluation", seed)
    results, measured = {}, []
    facts = {
        "sex": rng.choice(["female", "male"], 100),
        "age": rng.choice(["under 30", "30 to 50", "over 50"], 100),
        "ancestry": rng.choice(["african", "asian", "caucasian"], 100),
    }
    for name, noise in NOISE.items():
        person = np.repeat(np.arange(100), 4)
        centre = rng.standard_normal((100, 48))
        x = scores.unit_rows(centre[person] + scale * noise * rng.standard_normal((400, 48)))
        left = np.arange(400)
        same = np.arange(400) % 2 == 0
        right = np.where(same, left - left % 4 + (left + 1) % 4, (left + 37) % 400)
        by = {k: v[person] for k, v in facts.items()} if groups else {}
        protocol = Protocol(name, left, right, same, by)
        scored = measure(x, protocol, (0.1, 0.01), "strict")
        results[name] = scored.numbers
        measured.append((benchmark, protocol, scored))
    stated = WeightsConfig("tiny", 48, 64, "CC0-1.0", "images table", sha256="ef" * 32)
    facts_of = {benchmark: {"sha256": "12" * 32, "images": 400, "image_size": 64}}
    content = outcome.results_content({benchmark: results}, facts_of, stated, "strict")
    tables_of = (
        (outcome.SCORES_FILE, outcome.scores_table(measured)),
        (outcome.ROC_FILE, outcome.roc_table(measured)),
    )
    files = [artifact.write_file(str(folder), outcome.RESULTS_FILE, json.dumps(content).encode())]
    files += [artifact.write_file(str(folder), path, tables.parquet_bytes(t), t.num_rows) for path, t in tables_of]
    return commit(folder, "evaluation", files, {"average": {"all": content["average"]["all"]["accuracy"]}})


def report_config(output, **fields):
    return build(ReportConfig, {"output": str(output), **fields})
