"""Which sampler should a generator ship with? Solver, steps, guidance and its interval, by what comes out.

    python benchmarks/cemiface_sampler.py --weights runs/cemiface_tiny/generator --work runs/cemiface_sampler \\
        --judge benchmarks/judge

People of the validation split, centres of `--inquiry` pictures, four samples each at every m, equal noise in every
arm. Every line: network evaluations an image (guided steps count twice), and for each m the similarity that came, its
spread per sample, the mislabel rate, the judge's AUC between samples of one identity and of two, and the similarity
to the people's own pictures that the judge sees; last, how much samples of one identity at m = 0.75 differ in pixels
and how sharp they are, beside rendered pictures of these people. `--work` also gets a picture of every arm: people as
rows, two samples at each m as columns.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cemiface_dial import auc_among, people, pictures
from common import write_result
from synface.core import dial, sphere
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.models.sampling import SamplerSettings
from synface.ops.runs import say
from synface.store import schemas, tables
from synface.train.looks import grid_png

GUIDED: dict[str, Any] = {"guidance": 2.5, "guidance_interval": (0.45, 0.9)}
#: name -> settings
ARMS: dict[str, dict[str, Any]] = {
    "dpm 6": {"steps": 6},
    "dpm 10": {"steps": 10},
    "ddim 20": {"solver": "ddim", "steps": 20},
    "dpm 6, guided": {"steps": 6, **GUIDED},
    "dpm 8, guided": {"steps": 8, **GUIDED},
    "dpm 10, guided": {"steps": 10, **GUIDED},
    "ddim 20, guided": {"solver": "ddim", "steps": 20, **GUIDED},
    "dpm 20, guided": {"steps": 20, **GUIDED},
    "dpm 6, guided always": {"steps": 6, "guidance": 2.5},
}


def evaluations(generator: generators.Generator, settings: SamplerSettings) -> int:
    """Network evaluations of one image."""
    config = generator.denoiser.config
    times = sampling.build_scheduler(config, settings).timesteps
    low, high = settings.guidance_interval
    doubled = sum(low <= int(t) / config.num_train_steps <= high for t in times) if settings.guidance != 1 else 0
    return len(times) + doubled


def measure(
    asked: argparse.Namespace,
    generator: generators.Generator,
    inquiry_id: np.ndarray,
    own: np.ndarray,
    settings: SamplerSettings,
) -> tuple[list[dict[str, float]], np.ndarray]:
    """A line per m, and the images [m, identities, samples, s, s, 3]; `own`: rendered pictures of the people."""
    scorer = Embedder.from_pretrained(asked.scorer, threads=1)
    judge = Embedder.from_pretrained(asked.judge, threads=1) if asked.judge else None
    count, samples = len(inquiry_id), asked.samples
    keys: list[sampling.Key] = [(f"person-{i}", k) for i in range(count) for k in range(samples)]
    embedding, label = np.repeat(inquiry_id, samples, 0), np.repeat(np.arange(count), samples)
    lines, made = [], []
    for m in asked.m:
        x = sampling.sample(generator.denoiser, embedding, np.full(len(keys), m, np.float32), 0, keys, settings)
        images = sampling.to_images(x, generator.autoencoder, settings.micro_batch)
        found = scorer.embed(images)
        realised = np.einsum("nd,nd->n", found, embedding)
        wrong = dial.mislabelled(found, label, inquiry_id)
        line = {"m": m, "realised": realised.mean(), "spread": realised.std(), "mislabelled": wrong.mean()}
        if judge is not None:
            seen_ikd = judge.embed(images).reshape(count, samples, -1)
            line["judge_auc"] = auc_among(seen_ikd)
            line["judge_realised"] = np.einsum("ikd,id->ik", seen_ikd, centres(judge, own)).mean()
        lines.append({name: round(float(value), 4) for name, value in line.items()})
        made.append(images.reshape(count, samples, *images.shape[1:]))
    return lines, np.stack(made)


def centres(embedder: Embedder, own: np.ndarray) -> np.ndarray:
    """Unit mean embedding of each person's rendered pictures uint8 [identities, pictures, s, s, 3]."""
    x_nd = embedder.embed(own.reshape(-1, *own.shape[2:]))
    return sphere.normalize(x_nd.reshape(*own.shape[:2], -1).mean(1))


def variety(images_ik: np.ndarray) -> float:
    """Mean absolute difference of two pictures of one identity, grey levels; uint8 [identities, samples, s, s, 3]."""
    x = images_ik.astype(np.float32)
    return float(np.mean([np.abs(x[:, a] - x[:, b]).mean() for a in range(x.shape[1]) for b in range(a)]))


def detail(images: np.ndarray) -> float:
    """Mean absolute Laplacian of the grey pictures uint8 [..., s, s, 3], grey levels: how sharp they are."""
    x = images.astype(np.float32).mean(-1)
    near = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return float(np.abs(4 * x[..., 1:-1, 1:-1] - near).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--judge", default="")
    parser.add_argument("--inquiry", type=int, default=4, help="pictures whose mean embedding is the inquiry")
    parser.add_argument("--people", type=int, default=100, help="half of those rendered")
    parser.add_argument("--used", type=int, default=40, help="of them")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--m", type=lambda text: [float(x) for x in text.split(",")], default="0,0.25,0.5,0.75,1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arms", default=";".join(ARMS), help="separated by semicolons")
    asked = parser.parse_args()
    table = tables.read_identities(people(asked)).slice(0, asked.used)
    inquiry_id, names = schemas.embeddings(table), table["identity_id"].to_pylist()
    generator, _ = generators.from_pretrained(asked.weights)
    generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.set_num_threads(asked.threads)
    rendered = pictures(f"{asked.work}/inquiry_images")
    own = np.stack([[rendered[name, k] for k in range(asked.samples)] for name in names])
    arms = {}
    for name in asked.arms.split(";"):
        settings = SamplerSettings(**ARMS[name])
        lines, images = measure(asked, generator, inquiry_id, own, settings)
        nearest = int(np.argmin([abs(m - 0.75) for m in asked.m]))
        arms[name] = {
            "evaluations": evaluations(generator, settings),
            "by_m": lines,
            "variety": round(variety(images[nearest]), 2),
            "detail": round(detail(images[nearest]), 2),
        }
        say(f"{name}: {arms[name]}")
        shown = np.moveaxis(images[:, :10, :2], 0, 1)
        sheet = shown.reshape(len(shown), -1, *shown.shape[3:])
        (Path(asked.work) / f"sampler {name}.png").write_bytes(grid_png(sheet))
    result = {
        "weights_sha256": weights.read_config(asked.weights, generators.GENERATOR_KIND).sha256,
        "arms": arms,
        "variety_of_rendered": round(variety(own), 2),
        "detail_of_rendered": round(detail(own), 2),
        "people": asked.used,
        "samples": asked.samples,
    }
    write_result("cemiface_sampler", result)


if __name__ == "__main__":
    main()
