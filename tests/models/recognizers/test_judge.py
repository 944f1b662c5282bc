"""The judge that the benchmarks of generators ask: it loads as its README says, and tells people apart."""

from pathlib import Path

import numpy as np
import pytest

from synface.core import scores
from synface.models import weights
from synface.models.embedding import Embedder
from synface.models.heads import SPLITS, render_image

ROOT = Path(__file__).parents[3]
PEOPLE = 12


def test_it_tells_people_apart_whom_nothing_has_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))  # its architecture stands in benchmarks/judge_net.py
    judge = Embedder.from_pretrained(str(ROOT / "benchmarks" / "judge"), threads=1)
    seeds = [SPLITS["val"][0] + 310_000 + i for i in range(PEOPLE)]
    pictures = np.stack([render_image("heads-real", seed, k, 64).image for seed in seeds for k in range(2)])
    first, second = judge.embed(pictures).reshape(PEOPLE, 2, -1).transpose(1, 0, 2)
    same = np.eye(PEOPLE, dtype=bool)
    assert scores.auc((first @ second.T).ravel(), same.ravel()) > 0.8


def test_it_is_another_network_than_the_scorer():
    judge = weights.read_config(str(ROOT / "benchmarks" / "judge"))
    scorer = weights.read_config("heads-fr-tiny")
    assert judge.architecture != scorer.architecture
    assert judge.licence == "Apache-2.0"
    assert "no photograph of a person" in judge.training_data
