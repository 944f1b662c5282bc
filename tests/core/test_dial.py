import json

import numpy as np
import pytest

from synface.core import dial
from synface.core.errors import InputError

GRID = np.linspace(-1, 1, 11)


def measurements(curves_ig, std=0.0, samples=6, seed=0):
    noise = np.random.default_rng(seed).standard_normal((*curves_ig.shape, samples))
    return curves_ig[..., None] + std * noise


def brute_isotonic(y):
    """Min-max formula of isotonic regression (Robertson et al. 1988): max over starts of min over ends."""
    n = len(y)
    return np.array([max(min(np.mean(y[a : b + 1]) for b in range(i, n)) for a in range(i + 1)) for i in range(n)])


def test_fit_is_the_isotonic_regression_of_the_means():
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal((3, 8, 4))
        fitted = dial.fit(np.arange(8.0), values)
        np.testing.assert_allclose(fitted.curve_g, brute_isotonic(values.mean((0, 2))), atol=1e-12)


def test_a_known_dial_is_recovered_and_inverted():
    """The paper's bias: asked m realises 0.285 + 0.4 m. Then target 0.45 asks for 0.4125."""
    fitted = dial.fit(GRID, measurements(np.tile(0.285 + 0.4 * GRID, (5, 1))))
    asked = dial.ask(fitted, np.array([0.45, 0.285, -0.115, 0.9, -0.5]))
    np.testing.assert_allclose(asked.m_n, [0.4125, 0, -1, 1, -1], atol=1e-9)
    assert asked.reachable_n.tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(asked.expected_n, [0.45, 0.285, -0.115, 0.685, -0.115], atol=1e-9)


def test_promise_and_ask_are_inverse_on_rising_curves():
    fitted = dial.fit(GRID, measurements(np.tanh(2 * GRID)[None]))
    target = np.linspace(-0.95, 0.95, 41)
    np.testing.assert_allclose(dial.promised(fitted, dial.ask(fitted, target).m_n), target, atol=1e-12)


def test_flat_pieces_ask_for_their_middle():
    fitted = dial.fit(np.array([0.0, 0.2, 0.6, 1.0]), measurements(np.array([[0.1, 0.5, 0.5, 0.9]])))
    assert dial.ask(fitted, np.array([0.5])).m_n[0] == pytest.approx(0.4)
    dead = dial.fit(np.array([0.0, 1.0]), measurements(np.array([[0.7, 0.6]])))  # falls: pooled to 0.65
    assert dial.ask(dead, np.array([0.1, 0.65])).m_n.tolist() == [0.5, 0.5]
    assert not dial.ask(dead, np.array([0.1])).reachable_n[0]


def test_shrinkage_is_the_share_of_true_differences():
    """Identities with offsets of variance 0.04 under noise 0.2^2 / 4: w = 0.04 / 0.05."""
    generator = np.random.default_rng(0)
    offsets = 0.2 * generator.standard_normal((4000, 1))
    values = measurements(0.3 + 0.2 * GRID + offsets, std=0.2, samples=4)
    fitted = dial.fit(GRID, values, per_identity=True)
    np.testing.assert_allclose(fitted.shrinkage_g, 0.8, atol=0.02)
    equal = dial.fit(GRID, measurements(np.tile(GRID, (50, 1))), per_identity=True)  # no noise, no differences
    assert equal.shrinkage_g.tolist() == [0.0] * 11
    np.testing.assert_allclose(equal.curve_ig, np.tile(GRID, (50, 1)), atol=1e-12)


def test_a_dial_per_identity_follows_its_identity():
    curves = np.stack([0.1 + 0.5 * GRID, 0.4 + 0.2 * GRID, 0.2 + 0.3 * GRID**3])
    fitted = dial.fit(GRID, measurements(curves), per_identity=True)
    np.testing.assert_allclose(fitted.curve_ig, curves, atol=1e-12)
    m = dial.ask(fitted, np.array([0.3, 0.3]), np.array([0, 1])).m_n
    np.testing.assert_allclose(m, [0.4, -0.5], atol=1e-9)
    with pytest.raises(InputError, match="no curves of identities"):
        dial.ask(dial.fit(GRID, measurements(curves)), np.array([0.3]), np.array([0]))


def test_it_pays_where_identities_differ_and_not_where_noise_does():
    generator = np.random.default_rng(1)
    apart = 0.3 * GRID + 0.15 * generator.standard_normal((60, 1))
    common, own = dial.identity_pays(GRID, measurements(apart, 0.1, 8))
    assert own < 0.6 * common
    common, own = dial.identity_pays(GRID, measurements(np.tile(0.3 * GRID, (60, 1)), 0.1, 8))
    assert own > 0.9 * common


def test_correction_is_exact_for_a_shifted_identity():
    fitted = dial.fit(GRID, measurements(np.tile(0.285 + 0.4 * GRID, (5, 1))))
    first = dial.ask(fitted, np.array([0.4, 0.3])).m_n
    shift = np.array([0.12, -0.05])
    again = dial.correct(fitted, first, 0.285 + 0.4 * first + shift, np.array([0.4, 0.3]))
    np.testing.assert_allclose(0.285 + 0.4 * again + shift, [0.4, 0.3], atol=1e-9)


def test_errors_by_hand():
    targets = np.array([0.2, 0.4])
    values = np.array([[[0.2, 0.4], [0.5, 0.5]], [[0.1, 0.1], [0.0, 0.2]]])  # means .3 .5 / .1 .1
    error = dial.evaluate(targets, values)
    assert error.mean_absolute == pytest.approx((0.1 + 0.1 + 0.1 + 0.3) / 4)
    assert error.bias == pytest.approx((0.1 + 0.1 - 0.1 - 0.3) / 4)
    assert error.sample_std == pytest.approx(np.sqrt((0.02 + 0 + 0 + 0.02) / 4))
    assert error.monotone_share == 1.0 and error.slope == pytest.approx((0.2 + 0.0) / 2 / 0.2)
    falling = dial.evaluate(targets, values[:, ::-1])
    assert falling.monotone_share == 0.5
    assert np.isnan(dial.evaluate(targets, values[..., :1]).sample_std)


def test_slope_counts_the_asked_range_alone():
    curve = np.where(GRID < 0, 5 * GRID, 0.4 * GRID)
    assert dial.dial_slope(GRID, measurements(curve[None])) == pytest.approx(0.4)
    with pytest.raises(InputError, match="needs 2"):
        dial.dial_slope(GRID, measurements(curve[None]), 0.05, 0.15)


def test_mislabelled_against_a_loop():
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((30, 4))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    label = generator.integers(0, 30, 200)
    samples = centres[label] + 0.4 * generator.standard_normal((200, 4))
    naive = []
    for sample, own in zip(samples, label, strict=True):
        naive.append(any(sample @ c > sample @ centres[own] for j, c in enumerate(centres) if j != own))
    got = dial.mislabelled(samples, label, centres, tile=64)
    assert got.tolist() == naive and 0 < got.mean() < 1
    assert not dial.mislabelled(centres, np.arange(30), centres).any()


def test_a_dial_travels_as_json():
    values = measurements(np.stack([GRID, 0.5 * GRID]), 0.1)
    for per_identity in (False, True):
        fitted = dial.fit(GRID, values, per_identity)
        again = dial.Dial.from_dict(json.loads(json.dumps(fitted.as_dict())))
        assert np.array_equal(again.curve_g, fitted.curve_g) and np.array_equal(again.m_g, fitted.m_g)
        assert (again.curve_ig is None) is not per_identity


@pytest.mark.parametrize(
    ("grid", "shape", "words"),
    [([0.0, 0.0], (2, 2, 2), "ascending"), ([0.0], (2, 1, 2), "at least 2"), ([0.0, 1.0], (2, 3, 2), "expected")],
)
def test_bad_calibrations_are_refused(grid, shape, words):
    with pytest.raises(InputError, match=words):
        dial.fit(np.array(grid), np.zeros(shape))


def test_missing_scores_are_refused():
    with pytest.raises(InputError, match="finite"):
        dial.fit(GRID, np.full((2, 11, 3), np.nan))
    with pytest.raises(InputError, match="4 samples"):
        dial.identity_pays(GRID, np.zeros((2, 11, 3)))
    with pytest.raises(InputError, match="2 identities"):
        dial.fit(GRID, np.zeros((1, 11, 3)), per_identity=True)
    with pytest.raises(InputError, match="target similarity"):
        dial.ask(dial.fit(GRID, measurements(GRID[None])), np.array([1.2]))
