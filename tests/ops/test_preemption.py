"""The simulation of preemptions against closed forms."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def model():
    sys.path.append(str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("preemption", BENCHMARKS / "preemption.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("interval", "checkpoint", "restart", "mtbf"),
    [(100, 5, 30, 1000), (300, 5, 30, 400), (50, 0, 0, 100), (200, 20, 100, 150), (700, 10, 60, 5000)],
)
def test_the_mean_of_many_runs_is_the_closed_form(model, interval, checkpoint, restart, mtbf):
    """Within four standard errors of the mean, the last part shorter than the others."""
    rng = np.random.default_rng(7)
    walls = [model.simulate(2050, interval, checkpoint, restart, mtbf, rng)["wall"] for _ in range(4000)]
    expected = model.expected_wall(2050, interval, checkpoint, restart, mtbf)
    assert abs(np.mean(walls) - expected) < 4 * np.std(walls) / math.sqrt(len(walls))


def test_every_second_of_a_run_is_accounted_for(model):
    rng = np.random.default_rng(3)
    for _ in range(50):
        found = model.simulate(5000, 300, 7, 40, 500, rng)
        parts = found["repeated"] + found["checkpoints"] + found["restarts"]
        assert found["wall"] == pytest.approx(5000 + parts)
        assert found["checkpoints"] == pytest.approx(7 * math.ceil(5000 / 300))


def test_without_preemptions_only_checkpoints_cost(model):
    found = model.simulate(1000, 100, 2, 60, 1e15, np.random.default_rng(0))
    assert found == {"wall": 1020.0, "preemptions": 0, "repeated": 0.0, "checkpoints": 20.0, "restarts": 0.0}
    assert model.expected_wall(1000, 100, 2, 60, 1e15) == pytest.approx(1020)


def test_the_same_seed_gives_the_same_run(model):
    runs = [model.simulate(9000, 100, 2, 60, 300, np.random.default_rng(5)) for _ in range(2)]
    assert runs[0] == runs[1] and runs[0]["preemptions"] > 10


@pytest.mark.parametrize(("checkpoint", "mtbf", "within"), [(1, 1e6, 1e-4), (20, 10_800, 1e-3), (20, 1350, 0.01)])
def test_dalys_interval_is_the_minimum_and_youngs_is_near(model, checkpoint, mtbf, within):
    best = model.best_interval(checkpoint, mtbf)
    assert model.daly(checkpoint, mtbf) == pytest.approx(best, rel=within)
    # Young's is Daly's to first order: C below it, and 1/3 sqrt(C / 2 M) of it above
    assert model.young(checkpoint, mtbf) == pytest.approx(best, rel=2 * math.sqrt(checkpoint / mtbf))
    # at the minimum, (1 - t / M) e^((t + C) / M) = 1
    assert (1 - best / mtbf) * math.exp((best + checkpoint) / mtbf) == pytest.approx(1, abs=1e-6)


def test_a_checkpoint_longer_than_twice_the_mean_time_is_hopeless(model):
    assert model.daly(50, 20) == 20
