"""Every sweep in jobs/configs plans: its points are accepted by their sections, without weights or data."""

import sys
from pathlib import Path

import pytest

from synface import cli
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Planner, resolved, trials, uses
from synface.settings import build, merge, read_recipe

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jobs/configs").glob("sweep_*.yaml"))
#: file -> trials, datasets, generators trained
COUNTS = {
    "sweep_m": (63, 21, 0),
    "sweep_m_tiny": (27, 9, 0),
    "sweep_mixed_m": (24, 8, 0),
    "sweep_training_m": (15, 5, 5),
    "sweep_measure": (6, 2, 2),
    "sweep_lambda": (12, 4, 4),
    "sweep_sources": (12, 4, 2),
    "sweep_centres": (36, 12, 0),
    "sweep_ids_images": (15, 5, 0),
    "sweep_identities": (9, 3, 0),
    "sweep_hyperface": (33, 11, 0),
    "sweep_margin": (12, 1, 0),
}


def preset(path, **over):
    section = read_recipe(str(path), cli._sections())["sweep"]
    config = resolved(build(SweepConfig, {"output": "/runs/s", **merge(section, over)}))
    planner = Planner(config)
    return planner, trials(config, planner)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_preset_plans(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, found = preset(path)
    made = {name: len(places) for name, places in uses(found).items()}
    assert (len(found), made["generate"], made.get("train_generator", 0)) == COUNTS[path.stem]
    assert made.get("train_autoencoder", 1) <= 2


def test_the_weights_are_the_users_choice(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = ROOT / "jobs/configs/sweep_m_tiny.yaml"
    planner, found = preset(path, recipe={"generate": {"cemiface": {"weights": "/my/weights"}}})
    assert planner.missing(found[0].whole.stages) == ["generate.cemiface.weights /my/weights"]


def test_full_scale_takes_the_same_points(monkeypatch):
    monkeypatch.chdir(ROOT)
    full = {"base": "jobs/configs/trial_full.yaml", "select_on": ["runs/validation.bin"], "test_on": ["lfw"]}
    planner, found = preset(ROOT / "jobs/configs/sweep_mixed_m.yaml", **full)
    assert found[0].whole.stages["train_recognizer"].backbone == "r50"
    assert planner.missing(found[0].whole.stages) == [
        "generate.identities runs/inquiries",
        "generate.cemiface.weights runs/cemiface",
    ]
