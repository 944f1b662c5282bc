import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core import rng, sphere
from synface.pack import energy, subset


def pool(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(sphere.uniform(rng.generator(seed, "pool"), n, d))


def largest(cos_nn: np.ndarray, rows) -> float:
    return max(cos_nn[i, j] for i, j in itertools.combinations(rows, 2))


def brute_force(x_nd: torch.Tensor, k: int) -> float:
    cos_nn = (x_nd @ x_nd.T).numpy()
    return min(largest(cos_nn, rows) for rows in itertools.combinations(range(len(x_nd)), k))


def brute_force_ceiling(x_nd: torch.Tensor, ceiling: float) -> int:
    cos_nn = (x_nd @ x_nd.T).numpy()
    for k in range(len(x_nd), 1, -1):
        if any(largest(cos_nn, rows) <= ceiling for rows in itertools.combinations(range(len(x_nd)), k)):
            return k
    return 1


def test_against_brute_force():
    exact = 0
    for seed in range(30):
        x_nd, k = pool(13, 3, seed), 4 + seed % 3
        best, found = brute_force(x_nd, k), subset.dispersed(x_nd, k)
        greedy = energy.max_cosine(x_nd[subset.farthest_first(x_nd, k)])
        assert len(set(found.index_k.tolist())) == k
        assert found.max_cosine == pytest.approx(energy.max_cosine(x_nd[found.index_k]), abs=1e-6)
        assert best - 1e-6 <= found.max_cosine <= greedy + 1e-6
        # the greedy guarantee, in angles
        assert math.acos(min(greedy, 1)) >= math.acos(best) / 2 - 1e-6
        exact += found.max_cosine <= best + 1e-6
    assert exact >= 14  # of 30; greedy alone: see the next line
    assert exact > sum(
        energy.max_cosine(x[subset.farthest_first(x, 4 + s % 3)]) <= brute_force(x, 4 + s % 3) + 1e-6
        for s, x in ((s, pool(13, 3, s)) for s in range(30))
    )


def test_swaps_improve_a_larger_pool():
    x_nd = pool(1500, 16, 0)
    greedy = subset.farthest_first(x_nd, 100)
    better = subset.improve(x_nd, greedy)
    assert better.max_cosine <= energy.max_cosine(x_nd[greedy]) - 0.01
    assert energy.max_cosine(x_nd[:100]) > better.max_cosine + 0.2  # the first hundred rows, a random choice


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 8), st.integers(0, 10**6), st.data())
def test_any_pool_gives_k_distinct_rows(n, d, seed, data):
    k = data.draw(st.integers(1, n))
    found = subset.dispersed(pool(n, d, seed), k)
    assert len(set(found.index_k.tolist())) == k
    assert set(found.index_k.tolist()) <= set(range(n))


def test_column_energies_are_those_of_the_naive_sum():
    x_nd, index_k = pool(40, 6, 2).double(), torch.tensor([3, 7, 20, 39])
    weights_nn = (20.0 * (x_nd @ x_nd.T - 1)).exp().fill_diagonal_(0)
    torch.testing.assert_close(
        subset._column_energies(x_nd, index_k, 20.0, tile=8), weights_nn[:, index_k].sum(1), atol=0, rtol=1e-12
    )
    left_n = subset._without(x_nd, weights_nn[:, index_k].sum(1), index_k, 2, 20.0)
    expected_n = weights_nn[:, torch.tensor([3, 7, 39])].sum(1)
    torch.testing.assert_close(left_n, expected_n, atol=0, rtol=1e-6)


def test_duplicates_in_the_pool_are_not_chosen_while_others_remain():
    x_nd = pool(20, 8, 1)
    found = subset.dispersed(torch.cat([x_nd, x_nd]), 20)
    assert sorted(i % 20 for i in found.index_k.tolist()) == list(range(20))


def test_rotation_does_not_change_the_choice():
    x_nd = pool(200, 5, 4).double()
    rotation_dd, _ = torch.linalg.qr(pool(5, 5, 9).double())
    first, second = (subset.dispersed(x, 20) for x in (x_nd, x_nd @ rotation_dd))
    assert torch.equal(first.index_k, second.index_k)


class TestCeiling:
    def test_is_kept(self):
        x_nd = pool(400, 8, 0)
        for ceiling in (0.3, 0.5, 0.7):
            rows = subset.under_ceiling(x_nd, ceiling, tile=64)
            assert energy.max_cosine(x_nd[rows]) <= ceiling
            # maximal: every other row conflicts with a chosen one
            rest = torch.ones(400, dtype=torch.bool)
            rest[rows] = False
            assert bool(((x_nd[rest] @ x_nd[rows].T).max(1).values > ceiling).all())

    def test_finds_nearly_as_many_as_brute_force(self):
        found, best = 0, 0
        for seed in range(12):
            x_nd = pool(11, 3, seed)
            found += len(subset.under_ceiling(x_nd, 0.3))
            best += brute_force_ceiling(x_nd, 0.3)
        assert best * 0.9 <= found <= best

    def test_dispersed_keeps_it_or_returns_fewer(self):
        x_nd = pool(300, 8, 2)
        assert len(subset.dispersed(x_nd, 20, ceiling=0.5).index_k) == 20
        few = subset.dispersed(x_nd, 200, ceiling=0.3)
        assert 2 < len(few.index_k) < 200 and few.max_cosine <= 0.3

    def test_the_conflict_rule_serves_where_max_min_fails(self):
        x_nd = pool(300, 8, 2)
        many = len(subset.under_ceiling(x_nd, 0.45))
        greedy = subset.farthest_first(x_nd, many)
        found = subset.dispersed(x_nd, many, ceiling=0.45)
        assert len(found.index_k) == many and found.max_cosine <= 0.45
        assert energy.max_cosine(x_nd[greedy]) > 0.45
