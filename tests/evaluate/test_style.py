"""Frechet distance and diversity against closed forms and loops."""

import numpy as np
import pytest
import scipy.linalg

from synface.core.errors import InputError
from synface.evaluate import style
from synface.evaluate.audit_config import AuditConfig
from synface.settings import build


def test_frechet_distance_of_clouds_along_the_axes_has_a_closed_form():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((500, 4))
    base -= base.mean(0)
    base = base @ np.linalg.inv(np.linalg.cholesky(np.cov(base.T))).T  # covariance exactly the identity
    a, b, shift = np.array([1, 2, 3, 0.5]), np.array([2, 2, 1, 1.5]), np.array([1, 0, -2, 0.25])
    expected = float((shift**2).sum() + ((a - b) ** 2).sum())
    assert style.frechet_distance(base * a, base * b + shift) == pytest.approx(expected, rel=1e-9)
    assert style.frechet_distance(base, base) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_the_formula_with_a_matrix_root():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)), rng.standard_normal((40, 5)) + 0.3
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * np.real(root))
    assert style.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="two rows"):
        style.frechet_distance(x[:1], y)


def test_diversity_is_the_loop():
    rng = np.random.default_rng(2)
    x, real = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)) * 1.5
    label = rng.integers(0, 4, 40)
    label[:2] = 9  # too few samples: left out
    shares = []
    for c in range(4):
        own = x[label == c]
        radius = [sorted(np.linalg.norm(own - s, axis=1))[3] for s in own]
        shares.append(
            np.mean([any(np.linalg.norm(r - s) <= q for s, q in zip(own, radius, strict=True)) for r in real])
        )
    assert 0 < np.mean(shares) < 1
    assert style.intra_diversity(x, label, real) == pytest.approx(np.mean(shares))
    with pytest.raises(ValueError, match="no identity with more than 3 images"):
        style.intra_diversity(x, np.arange(40), real)


def test_copies_reach_only_themselves():
    x = np.repeat(np.eye(3), 5, axis=0)  # radius zero
    assert style.intra_diversity(x, np.repeat(np.arange(3), 5), np.eye(3)) == pytest.approx(1 / 3)


def test_a_style_needs_a_reference():
    with pytest.raises(InputError, match="style needs a reference"):
        build(AuditConfig, {"images": "a", "output": "o", "style": "numpy:asarray"})
