import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import eval_gegenbauer

from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.pack import bounds

SHARP_CODES = {  # (points, dimension): max cosine; Cohn & Kumar 2007, table 1
    (12, 3): 1 / math.sqrt(5),
    (8, 4): 0.0,
    (240, 8): 1 / 2,
    (56, 7): 1 / 3,
    (27, 6): 1 / 4,
    (16, 5): 1 / 5,
    (552, 23): 1 / 5,
    (275, 22): 1 / 6,
    (162, 21): 1 / 7,
    (100, 22): 1 / 11,
    (112, 21): 1 / 9,
    (891, 22): 1 / 4,
    (4600, 23): 1 / 3,
    (196560, 24): 1 / 2,
    (1024, 512): 0.0,
    (513, 512): -1 / 512,
    (7, 2): math.cos(2 * math.pi / 7),
}


@pytest.mark.parametrize(("n", "d"), SHARP_CODES)
def test_best_is_attained_by_sharp_codes(n, d):
    assert bounds.best(n, d) == pytest.approx(SHARP_CODES[n, d], abs=1e-9)


@pytest.mark.parametrize(
    ("n", "d", "value"),
    [
        (24, 4, 0.4750),
        (120, 4, 0.8073),
        (288, 16, 0.2416),
        (10_000, 512, 0.0238),
        (525_312, 512, 0.04766),
        (1000, 3, 0.99267),
        (66_048, 256, 0.0623),
    ],
)
def test_levenshtein_where_it_is_not_sharp(n, d, value):
    assert bounds.levenshtein(n, d) == pytest.approx(value, abs=6e-5)


def test_closed_forms_of_low_degrees():
    d, s = 10, 0.05
    assert bounds.levenshtein_size(-0.05, d, 2) == pytest.approx(2 * d * 1.05 / (1 + 0.05 * d))
    third = d * (1 - s) * (2 + (d + 1) * s) / (1 - d * s * s)
    assert bounds.levenshtein_size(s, d, 3) == pytest.approx(third)


@pytest.mark.parametrize("d", [3, 4, 9])
def test_gegenbauer_equals_scipy(d):
    for degree, t in [(0, 0.3), (1, 0.3), (5, -0.4), (12, 0.9)]:
        scale = eval_gegenbauer(degree, d / 2 - 1, 1.0)
        assert bounds.gegenbauer(degree, d, t) == pytest.approx(eval_gegenbauer(degree, d / 2 - 1, t) / scale)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(2, 40), st.integers(0, 1000))
def test_no_points_beat_the_bound(n, d, seed):
    x_nd = sphere.uniform(rng.generator(seed, "test"), n, d).astype(np.float64)
    assert sphere.nearest_cosine(x_nd)[0].max() >= bounds.best(n, d) - 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10**6), st.integers(2, 600))
def test_levenshtein_grows_with_n_and_falls_with_d(n, d):
    assert bounds.best(n + 1, d) >= bounds.best(n, d) - 1e-9
    assert bounds.best(n, d + 1) <= bounds.best(n, d) + 1e-9


def test_large_degrees_are_found():
    assert 0.99999 < bounds.levenshtein(10**6, 3) < 1


@pytest.mark.parametrize(("n", "d"), [(50, 8), (400, 32)])
def test_iid_max_cosine_is_the_median_of_samples(n, d):
    found = [
        float(sphere.nearest_cosine(sphere.uniform(rng.generator(seed, "test"), n, d))[0].max()) for seed in range(200)
    ]
    below = np.mean(np.array(found) < bounds.iid_max_cosine(n, d))
    assert 0.5 - 4 * 0.036 < below < 0.5 + 4 * 0.036  # four standard errors of a median of 200


def test_two_points_have_median_zero():
    assert bounds.iid_max_cosine(2, 5) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(1, 5), (5, 1), (0, 0)])
def test_refuses_too_few(n, d):
    for function in (bounds.best, bounds.simplex, bounds.levenshtein, bounds.iid_max_cosine):
        with pytest.raises(InputError, match="n >= 2"):
            function(n, d)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (2, 8), (50, 8), (400, 64)])
def test_mean_nearest_cosine_of_random_points(n, d):
    if (n, d) == (2, 3):  # a cosine in R^3 is uniform, so is that to the only other point
        assert bounds.iid_mean_nearest_cosine(n, d) == pytest.approx(0.0, abs=1e-9)
    means = []
    for seed in range(12 if n > 2 else 4000):
        x_nd = sphere.uniform(rng.generator(seed, "iid"), n, d)
        means.append(float(sphere.nearest_cosine(x_nd)[0].mean()))
    spread = np.std(means) / len(means) ** 0.5
    assert bounds.iid_mean_nearest_cosine(n, d) == pytest.approx(np.mean(means), abs=4 * spread)
