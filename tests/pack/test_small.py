import math

import numpy as np
import pytest

from synface.core import rng, sphere
from synface.pack import bounds, small

GOLDEN = (1 + math.sqrt(5)) / 4


@pytest.mark.parametrize(
    ("n", "d", "optimum", "share"),
    [
        (12, 3, 1 / math.sqrt(5), 1.0),  # icosahedron
        (9, 8, -1 / 8, 1.0),  # simplex
        (16, 8, 0.0, 1.0),  # cross-polytope
        (24, 4, 0.5, 0.3),  # 24-cell
        (24, 3, 0.72307846833350, 0.9),  # snub cube
    ],
)
def test_known_optima_from_random_starts_and_to_nine_digits(n, d, optimum, share):
    found = small.recover(n, d, restarts=12, passes=800)
    assert (found.max_cosine_r < optimum + 1e-3).mean() >= share
    polished = small.polish(found.x_rnd[found.max_cosine_r.argmin()])
    assert small.largest(polished) == pytest.approx(optimum, abs=1e-9)
    np.testing.assert_allclose(np.linalg.norm(polished, axis=1), 1, atol=1e-12)


def test_a_start_depends_on_its_key_alone():
    few, many = small.recover(7, 3, 2, passes=50), small.recover(7, 3, 5, passes=50)
    np.testing.assert_allclose(few.x_rnd, many.x_rnd[:2], atol=1e-5)


def test_polish_never_makes_worse():
    for seed in range(5):
        x_nd = sphere.uniform(rng.generator(seed, "test"), 15, 4).astype(np.float64)
        assert small.largest(small.polish(x_nd)) <= small.largest(x_nd)


def test_dwell_rises():
    values = [small.dwell_sharpness(p) for p in np.linspace(0, 1, 50)]
    assert values == sorted(values) and values[0] == small.DWELL[0][1]


def test_wilson_interval():
    low, high = small.wilson(10, 64)  # R: prop.test's Wilson interval without continuity correction
    assert (low, high) == (pytest.approx(0.08712, abs=1e-4), pytest.approx(0.26436, abs=1e-4))
    assert small.wilson(5, 5)[1] == pytest.approx(1.0)


def test_bounds_hold():
    assert small.recover(120, 4, 1, passes=30).max_cosine_r[0] > bounds.best(120, 4)
    assert bounds.best(120, 4) < GOLDEN
