"""Optuna's proposals: inside the space, functions of what is known, and better than chance where outcomes say so."""

import sys
from pathlib import Path

import numpy as np
import pytest

from synface.core.errors import InputError
from synface.flows import sweep_plan, sweep_search
from synface.flows.sweep_plan import Planner

sys.path.insert(0, str(Path(__file__).parent))
from sweep_tools import sweep_config

LR, BATCH, M = "train_recognizer.optimizer.lr", "train_recognizer.global_batch_size", "train_recognizer.margin.m"
SPACE = {LR: {"loguniform": [1e-4, 1.0]}, BATCH: {"choice": [8, 16]}, M: {"uniform": [0, 1]}}
FIELDS = {"space": SPACE, "search": "optuna", "num_samples": 40}


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install \"synface\[optuna\]\""):
        sweep_search.suggest(sweep_config(**FIELDS), [], 1)


def test_points_are_numbered_on():
    config = sweep_config(space={M: [0.1]}, seeds=[0, 1])
    planner = Planner(config)
    first = sweep_plan.crossed(config, planner, [{M: 0.1}, {M: 0.2}])
    more = sweep_plan.crossed(config, planner, [{M: 0.3}], first)
    assert [(t.index, t.point, t.seed) for t in more] == [(4, 2, 0), (5, 2, 1)]


def outcome(point):
    return 1 - (point[M] - 0.3) ** 2 - 0.05 * np.log10(point[LR] / 1e-2) ** 2 + 0.1 * (point[BATCH] == 16)


def search(config, rounds, size):
    known = []
    for _ in range(rounds):
        known += [(p, outcome(p)) for p in sweep_search.suggest(config, known, size)]
    return known


def test_proposals_are_in_the_space_and_follow_from_what_is_known():
    pytest.importorskip("optuna")
    config = sweep_config(**FIELDS)
    known = search(config, 10, 4)
    assert search(config, 10, 4) == known
    assert all(1e-4 <= p[LR] <= 1 and p[BATCH] in (8, 16) and 0 <= p[M] <= 1 for p, _ in known)
    assert search(sweep_config(**FIELDS, seed=1), 1, 4) != known[:4]
    early, late = np.mean([v for _, v in known[:10]]), np.mean([v for _, v in known[-10:]])
    assert late > early + 0.05  # it learns: the late ones are near the best
    failed = sweep_search.suggest(config, [(p, None) for p, _ in known[:4]], 2)
    assert len(failed) == 2
