"""What Ray Tune costs: a sweep against the same trials one after the other, on the same running cluster.

Both sides make the same stages with the same configurations, each in a store of its own; the benchmark pictures are
rendered before. A trial is as long as `--images` makes it (60 to 90 s was asked of the published figure).

    python benchmarks/sweep_overhead.py --trials 9 --images 3200 --output runs/sweep_overhead
"""

import argparse
import time

import stages
from common import write_result
from synface.flows import sweep, sweep_tune
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Planner, resolved, trials
from synface.ops import cluster
from synface.settings import build
from synface.store import uri as uris


def config(output: str, count: int, images: int) -> SweepConfig:
    quickstart = stages.sections_of("jobs/configs/quickstart.yaml")
    people = {"generator": "heads", "domain": "heads-digi", "num_identities": images // 16, "images_per_identity": 16}
    recipe = {"generate": {**people, "image_size": 64}, **{k: quickstart[k] for k in ("train_recognizer", "evaluate")}}
    return build(
        SweepConfig,
        {
            "output": output,
            "recipe": recipe,
            "points": [{}],
            "seeds": list(range(count)),
            "select_on": ["heads-val/frontal"],
            "test_on": [],
        },
    )


def one_after_the_other(asked: SweepConfig) -> float:
    """Seconds."""
    asked = resolved(asked)
    found = trials(asked, Planner(asked))
    started = time.monotonic()
    for trial in found:
        for name, stage in trial.whole.stages.items():
            sweep_tune.make(name, stage)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--images", type=int, default=3200)
    parser.add_argument("--output", default="runs/sweep_overhead")
    given = parser.parse_args()
    output = uris.absolute(given.output)
    cluster.connect()
    sweep.run(config(f"{output}/warm", 1, 160))  # compiled kernels, rendered benchmark, started workers
    alone = one_after_the_other(config(f"{output}/alone", given.trials, given.images))
    started = time.monotonic()
    sweep.run(config(f"{output}/sweep", given.trials, given.images))
    tuned = time.monotonic() - started
    again = sweep.run(config(f"{output}/sweep", given.trials, given.images))
    write_result(
        "sweep_overhead",
        {
            "trials": given.trials,
            "images": given.images,
            "seconds_alone": round(alone, 1),
            "seconds_sweep": round(tuned, 1),
            "overhead": round(tuned / alone - 1, 4),
            "seconds_cached": again["seconds"],
        },
    )


if __name__ == "__main__":
    main()
