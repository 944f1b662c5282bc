"""Templates against the field's loops."""

import numpy as np
import pytest

from synface.evaluate.templates import TemplateSums, pair_scores


def naive_templates(feature, template, media, score):
    """One template at a time: mean over each medium's faces, sum over media, normalise."""
    rows = []
    for t in np.unique(template):
        of_t = template == t
        parts = [(feature * score[:, None])[of_t & (media == m)].mean(0) for m in np.unique(media[of_t])]
        rows.append(np.sum(parts, 0) / np.linalg.norm(np.sum(parts, 0)))
    return np.array(rows)


def faces(n=200, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.integers(5, 40, n), rng.integers(0, 9, n), rng.random(n) + 0.1


@pytest.mark.parametrize("detector", [True, False])
def test_streamed_sums_are_the_loop(detector):
    feature, template, media, score = faces()
    sums = TemplateSums(template, media, 16)
    for first in range(0, 200, 33):
        part = slice(first, first + 33)
        sums.add(first, feature[part], score[part] if detector else None)
    expected = naive_templates(feature, template, media, score if detector else np.ones(200))
    assert sums.ids.tolist() == np.unique(template).tolist()
    np.testing.assert_allclose(sums.unit(), expected, atol=1e-6)


@pytest.mark.parametrize("tile", [1, 7, 1024])
@pytest.mark.parametrize("ordered", [True, False])
def test_pair_scores_are_the_dot_products(tile, ordered):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    left, right = rng.integers(0, 30, (2, 500))
    left = np.sort(left) if ordered else left
    got = pair_scores(x, left, right, tile)
    np.testing.assert_allclose(got, [float(x[i] @ x[j]) for i, j in zip(left, right, strict=True)], atol=1e-6)


def test_rows_by_template_number():
    _, template, media, _ = faces()
    sums = TemplateSums(template, media, 16)
    assert sums.ids[sums.rows_of(np.array([12, 7, 12]))].tolist() == [12, 7, 12]
    with pytest.raises(ValueError, match="template 99 has no face"):
        sums.rows_of(np.array([7, 99]))
