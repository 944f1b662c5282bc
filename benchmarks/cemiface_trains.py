"""What does a recognizer learn from generated images? Against as many rendered ones of the same people.

    python benchmarks/cemiface_trains.py --weights runs/cemiface_tiny/calibrated --work runs/cemiface_trains
    python benchmarks/cemiface_trains.py ... --m 0,0.25,0.5,0.75,1 --targets 0.3,0.5     # the curve over m

People of the training split that the generator has not seen, one picture of each as the inquiry. Arms: these people
rendered (`heads-real`), and generated at each m (or each target similarity), each with the same number of images; a
fresh recognizer per arm and seed, tested on `heads-v1`, whose people nobody has seen. Beside it, of every generated
arm, what came (no sample is drawn twice), and with `--judge` what an independent judge sees.
"""

import argparse
from pathlib import Path
from typing import Any

import stages
from cemiface_dial import came
from common import mean_and_interval, write_result
from synface.models import weights
from synface.models.embedding import Embedder
from synface.ops.runs import say

DOMAIN = "heads-real"
FIRST = 500_000  # identity seeds beyond everything that was trained on


def arms_of(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Name -> variation of the generated arms."""
    found: dict[str, dict[str, Any]] = {f"m {m:g}": {"m": m} for m in stages.numbers(asked.m)}
    found |= {f"similarity {s:g}": {"similarity": s} for s in stages.numbers(asked.targets)}
    if asked.mixed:
        low, high = stages.numbers(asked.mixed)
        found[f"m in [{low:g}, {high:g}]"] = {"m": {"range": [low, high]}}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--judge", default="")
    parser.add_argument("--recipe", default="jobs/configs/quickstart.yaml", help="of the recognizer and its test")
    parser.add_argument("--m", default="0.75")
    parser.add_argument("--targets", default="")
    parser.add_argument("--mixed", default="", help="low,high: one more arm with m drawn from a range")
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    root, sections = Path(asked.work), stages.sections_of(asked.recipe)
    size = weights.read_config(asked.weights, "generator").input_size
    rendered = stages.generate(
        root / "rendered",
        generator="heads",
        domain=DOMAIN,
        first_seed=FIRST,
        num_identities=asked.identities,
        images_per_identity=asked.samples,
        image_size=size,
    )
    inquiries = stages.embed(root / "inquiries", images=rendered, weights=asked.scorer, images_per_identity=1)
    sets = {"rendered": rendered}
    for name, variation in arms_of(asked).items():
        sets[name] = stages.draw(root / name.replace(" ", "-"), asked.weights, inquiries, asked.samples, variation)
    scorer = Embedder.from_pretrained(asked.scorer, threads=1)
    judge = Embedder.from_pretrained(asked.judge, threads=1) if asked.judge else None
    seen = {name: came(scorer, images, inquiries, judge) for name, images in sets.items()}
    found: dict[str, list[float]] = {name: [] for name in sets}
    for seed in range(asked.seeds):
        for name, images in sets.items():
            place = root / f"{Path(images).name}-fr"
            found[name].append(stages.recognizer_accuracy(place, sections, [images], seed)["heads-v1"])
            say(f"seed {seed}, {name}: {found[name][-1]:.2f} %")
    gaps = {
        name: mean_and_interval([r - g for r, g in zip(found["rendered"], values, strict=True)])
        for name, values in found.items()
        if name != "rendered"
    }
    write_result(
        "cemiface_trains",
        {
            "average_accuracy_percent": {name: mean_and_interval(values) for name, values in found.items()},
            "points_below_rendered": gaps,
            "per_seed": found,
            "came": seen,
            "settings": {k: v for k, v in vars(asked).items() if k != "work"},
        },
    )


if __name__ == "__main__":
    main()
