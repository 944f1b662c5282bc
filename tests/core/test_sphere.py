import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core import rng, sphere


def naive_nearest(x, y=None):
    cos = x @ (x if y is None else y).T
    if y is None:
        np.fill_diagonal(cos, -np.inf)
    return cos.max(1), cos.argmax(1)


@given(st.integers(2, 40), st.integers(2, 9), st.integers(1, 17), st.integers(0, 10**6))
def test_tiled_nearest_cosine_equals_the_full_matrix(n, d, tile, seed):
    x = sphere.uniform(rng.generator(seed), n, d)
    value, index = sphere.nearest_cosine(x, tile=tile)
    want, _ = naive_nearest(x)
    np.testing.assert_allclose(value, want, atol=2e-6)
    np.testing.assert_allclose((x[index] * x).sum(1), want, atol=2e-6)


def test_nearest_in_another_set_keeps_equal_points():
    x = sphere.uniform(rng.generator(1), 10, 4)
    value, index = sphere.nearest_cosine(x, x[::-1], tile=3)
    np.testing.assert_allclose(value, 1, atol=1e-6)
    assert list(index) == list(range(9, -1, -1))


def test_cross_polytope_has_nearest_cosine_zero():
    x = np.concatenate([np.eye(5), -np.eye(5)]).astype(np.float32)
    assert np.allclose(sphere.nearest_cosine(x)[0], 0)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_normalize_refuses_a_bad_row_by_number(bad):
    x = np.ones((3, 2))
    x[1] = bad
    with pytest.raises(ValueError, match="row 1"):
        sphere.normalize(x)


def test_uniform_points_have_unit_norm_and_no_mean():
    x = sphere.uniform(rng.generator(2), 20_000, 3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    assert np.abs(x.mean(0)).max() < 0.02


def test_effective_dimension_of_points_in_a_subspace():
    basis = np.linalg.qr(rng.generator(3).standard_normal((16, 4)))[0]
    x = sphere.uniform(rng.generator(4), 500, 4) @ basis.T
    assert sphere.effective_dimension(x, 0.999) == 4


def test_unique_rows_are_the_greedy_choice():
    x = sphere.uniform(rng.generator(5), 200, 5)
    kept = sphere.unique_rows(x, 0.6)
    naive: list[int] = []
    for row in range(200):
        if all(float(x[row] @ x[other]) < 0.6 for other in naive):
            naive.append(row)
    assert kept.tolist() == naive and 1 < len(kept) < 200
    cos = x[kept] @ x[kept].T - 2 * np.eye(len(kept))
    assert cos.max() < 0.6 <= (x @ x[kept].T).max(1).min() + 1e-6  # nobody who was left out would fit
