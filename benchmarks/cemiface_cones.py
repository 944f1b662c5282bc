"""Cones that cannot overlap, or mid similarity? Mislabel rates of both variations, side by side.

    python benchmarks/cemiface_cones.py --weights runs/cemiface_tiny/calibrated --work runs/cemiface_cones

The same unseen people and noise in every arm. `cone c` turns the embedding itself by a cosine drawn from [c, 1]
(raised to half the angle to the nearest identity, so that asked embeddings cannot change sides), the network is asked
`--m`; `similarity s` is a target of the calibrated dial. Every line: the similarity that came, the share of samples
nearer to another identity, and how alike the samples of one identity are (what a recognizer can learn from).
"""

import argparse
from pathlib import Path
from typing import Any

import stages
from cemiface_dial import came, people
from common import write_result
from synface.models.embedding import Embedder
from synface.ops.runs import say


def measure(asked: argparse.Namespace, inquiries: str, name: str, variation: dict[str, Any]) -> dict[str, float]:
    place = Path(asked.work) / name.replace(" ", "-")
    images = stages.draw(place, asked.weights, inquiries, asked.samples, variation)
    line = came(Embedder.from_pretrained(asked.scorer, threads=1), images, inquiries)
    say(f"{name}: {line}")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="calibrated")
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--inquiry", type=int, default=4, help="pictures whose mean embedding is the inquiry")
    parser.add_argument("--people", type=int, default=100, help="half of the identities")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--cones", default="0.71,0.8,0.9")
    parser.add_argument("--m", type=float, default=1.0, help="asked beside a cone")
    parser.add_argument("--targets", default="0.3,0.4,0.5,0.6")
    asked = parser.parse_args()
    inquiries = people(asked)
    arms: dict[str, dict[str, Any]] = {
        f"cone {c:g}": {"m": asked.m, "cone": {"lower": c}} for c in stages.numbers(asked.cones)
    }
    arms |= {f"similarity {s:g}": {"similarity": s} for s in stages.numbers(asked.targets)}
    lines = {name: measure(asked, inquiries, name, variation) for name, variation in arms.items()}
    write_result("cemiface_cones", {"arms": lines, "identities": 2 * asked.people, "samples": asked.samples})


if __name__ == "__main__":
    main()
