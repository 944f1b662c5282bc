"""Small sweeps for tests."""

from typing import Any

from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Planner, resolved, trials
from synface.settings import build, merge

RECIPE: dict[str, Any] = {
    "pool": {"generator": "heads", "domain": "heads-digi", "num_identities": 8, "images_per_identity": 1,
             "image_size": 64},
    "embed": {"weights": "heads-fr-tiny"},
    "pack": {"solver": "subset", "num_identities": 4},
    "generate": {"generator": "heads", "images_per_identity": 4, "image_size": 64},
    "train_recognizer": {"backbone": "tiny", "image_size": 64, "epochs": 6, "global_batch_size": 8},
    "evaluate": {"far": [0.1]},
}  # fmt: skip


def sweep_config(output="/runs/s", recipe=None, **fields) -> SweepConfig:
    given = {"output": str(output), "recipe": merge(RECIPE, recipe or {}), **fields}
    return resolved(build(SweepConfig, given))


def planned(**fields):
    """(configuration, planner, trials)."""
    config = sweep_config(**fields)
    planner = Planner(config)
    return config, planner, trials(config, planner)
