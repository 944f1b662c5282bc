"""Identification against loops over probes and gallery rows."""

import numpy as np
import pytest

from synface.core import identification
from synface.core.sphere import uniform

RNG = np.random.default_rng(0)


def world(probes=60, gallery=40, people=15, seed=0, known=10):
    """Probes of `people`, a gallery of the first `known` of them with several rows each, and distractors (-1)."""
    rng = np.random.default_rng(seed)
    centre = uniform(rng, people, 8)

    def near(label):
        return centre[label] + 0.6 * rng.standard_normal((len(label), 8)).astype(np.float32) / 8**0.5

    probe_label, gallery_label = rng.integers(0, people, probes), np.arange(gallery) % known
    p, g = near(probe_label), near(gallery_label)
    g = np.concatenate([g, uniform(rng, 20, 8)])
    gallery_label = np.concatenate([gallery_label, np.full(20, -1)])
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (p, g)]
    return unit[0], probe_label, unit[1], gallery_label


def naive(p, p_label, g, g_label):
    mate, other, rank = [], [], []
    for x, label in zip(p, p_label, strict=True):
        own = [float(x @ y) for y, k in zip(g, g_label, strict=True) if k == label]
        rest = [float(x @ y) for y, k in zip(g, g_label, strict=True) if k != label]
        mate.append(max(own, default=-np.inf))
        other.append(max(rest, default=-np.inf))
        rank.append(1 + sum(s >= mate[-1] for s in rest) if own else 0)
    return np.array(mate), np.array(other), np.array(rank)


@pytest.mark.parametrize("tile", [7, 1000])
def test_search_is_the_loop(tile):
    p, p_label, g, g_label = world()
    found = identification.search(p, p_label, g, g_label, tile)
    mate, other, rank = naive(p, p_label, g, g_label)
    np.testing.assert_allclose(found.mate_p, mate, atol=1e-6)
    np.testing.assert_allclose(found.other_p, other, atol=1e-6)
    assert found.rank_p.tolist() == rank.tolist()
    assert 0 < np.mean(rank == 1) < 1  # neither trivial nor hopeless
    rates = identification.rank_rates(found, (1, 5, 20))
    assert rates == {r: np.mean(rank[rank > 0] <= r) for r in (1, 5, 20)}


def test_a_tie_counts_against_the_system():
    x = np.eye(2)
    found = identification.search(x[:1], np.array([0]), x[[0, 0, 1]], np.array([1, 0, 2]))
    assert found.rank_p.tolist() == [2]


@pytest.mark.parametrize("rule", ["strict", "nearest"])
@pytest.mark.parametrize("target", [0.0, 0.05, 0.2, 1.0])
def test_tpir_by_brute_force(rule, target):
    found = identification.search(*world(probes=120))
    mated = found.mated_p
    candidates = [np.inf, *found.mate_p[mated], *found.other_p[~mated]]
    points = []
    for t in candidates:
        fpir = float(np.mean(found.other_p[~mated] >= t))
        tpir = float(np.mean((found.rank_p[mated] == 1) & (found.mate_p[mated] >= t)))
        points.append((fpir, tpir))
    if rule == "strict":
        expected = max((p for p in points if p[0] <= target), key=lambda p: p[1])[1]
    else:
        gap = min(abs(f - target) for f, _ in points)
        expected = max(p for p in points if abs(p[0] - target) == gap)[1]
    got = identification.tpir_at_fpir(found, target, rule)
    assert got.tar == pytest.approx(expected, abs=1e-12)


def test_what_cannot_be_measured_is_refused():
    p, p_label, g, g_label = world()
    found = identification.search(p, p_label + 100, g, g_label)
    with pytest.raises(ValueError, match="no probe's identity"):
        identification.rank_rates(found, (1,))
    with pytest.raises(ValueError, match="mated and non-mated"):
        identification.tpir_at_fpir(found, 0.1)
