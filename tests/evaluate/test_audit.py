"""Audit statistics against loops over all pairs, in tiles smaller than the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core import scores, sphere
from synface.evaluate import audit


def clusters(classes=7, per_class=5, d=12, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), per_class)
    label = label[rng.permutation(len(label))]
    x = rng.standard_normal((classes, d))[label] + noise * rng.standard_normal((len(label), d))
    return sphere.normalize(x).astype(np.float32), label


def test_class_centres_are_unit_means():
    x, label = clusters()
    centre = audit.class_centres(x, label)
    for c in range(7):
        mean = x[label == c].astype(float).mean(0)
        np.testing.assert_allclose(centre[c], mean / np.linalg.norm(mean), atol=1e-7)


@settings(max_examples=30)
@given(st.integers(1, 25), st.floats(-0.9, 0.9), st.integers(1, 30), st.integers(0, 10))
def test_unique_share_by_definition(n, r, tile, seed):
    x = sphere.uniform(np.random.default_rng(seed), n, 4)
    expected = [all(float(x[i] @ x[j]) < r for j in range(i)) for i in range(n)]
    assert audit.unique_share(x, r, tile) == np.mean(expected)


def test_unique_share_closed_forms():
    assert audit.unique_share(np.eye(5), 0.3) == 1
    assert audit.unique_share(np.ones((5, 1)), 0.3) == 0.2  # the first is always new


def test_consistency_weighs_classes_equally():
    x = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    label = np.array([0, 0, 0, 1])
    centre = np.array([[1.0, 0], [0, 1]])
    assert audit.intra_consistency(x, label, centre, 0.3) == pytest.approx((2 / 3 + 1) / 2)


def test_similarity_statistics_bins():
    label = np.array([0, 0, 1, 1, 2, 3])
    similarity = np.array([0.1, 0.2, -0.5, 0.1, 0.55, 0.3])
    got = audit.similarity_statistics(similarity, label)
    assert got["mean"] == pytest.approx(similarity.mean())
    assert got["std"] == pytest.approx(similarity.std())
    expected = dict.fromkeys(audit.BIN_NAMES, 0) | {"<0": 1, "0.1-0.2": 1, "0.3-0.4": 1, ">0.5": 1}
    assert got["identities_by_mean"] == expected


@pytest.mark.parametrize("tile", [3, 8, 1000])
def test_mislabel_rate_by_loop(tile):
    x, label = clusters(noise=1.2)
    centre = audit.class_centres(x, label).astype(np.float32)
    wrong = [np.delete(centre @ row, c).max() > centre[c] @ row for row, c in zip(x, label, strict=True)]
    assert 0 < np.mean(wrong) < 1
    assert audit.mislabel_rate(x, label, centre, tile) == np.mean(wrong)


@pytest.mark.parametrize("tile", [4, 9, 1000])
def test_pair_histogram_equals_all_pairs(tile):
    x, label = clusters()
    i, j = np.triu_indices(len(x), 1)
    cos, same = (x @ x.T)[i, j].astype(np.float64), label[i] == label[j]
    got = audit.pair_histogram(x, label, tile)
    numbers = got.numbers()
    assert (numbers["genuine_pairs"], numbers["impostor_pairs"]) == (same.sum(), (~same).sum())
    assert numbers["genuine_mean"] == pytest.approx(cos[same].mean(), abs=1e-6)
    assert numbers["impostor_std"] == pytest.approx(cos[~same].std(), abs=1e-6)
    fisher = (cos[same].mean() - cos[~same].mean()) ** 2 / (cos[same].var() + cos[~same].var())
    assert numbers["fisher_ratio"] == pytest.approx(fisher, rel=1e-4)
    assert numbers["auc"] == pytest.approx(scores.auc(cos, same), abs=2e-3)
    assert numbers["eer"] == pytest.approx(scores.eer(scores.roc(cos, same)), abs=1 / (~same).sum() + 1 / same.sum())
    for far in (0.5, 0.1, 0.01):
        threshold = audit.impostor_threshold(x, label, far)
        exact = scores.tar_at_far(scores.roc(cos, same), far).threshold
        assert np.mean(cos[~same] >= threshold) <= far
        assert threshold == pytest.approx(exact, abs=2 / audit.PAIR_BINS) or np.mean(cos[~same] >= exact) < far


def test_pair_histogram_needs_both_kinds():
    with pytest.raises(ValueError, match="no genuine pair"):
        audit.pair_histogram(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="no impostor pair"):
        audit.pair_histogram(np.ones((3, 1)), np.zeros(3, int))


def test_leakage_counts_and_worst_pairs():
    cosine = np.array([0.2, 0.9, 0.5, 0.9], np.float32)
    numbers, worst = audit.leakage(cosine, np.array([5, 6, 7, 8]), np.array([0, 1, 1, 1]), 0.5, 3)
    assert numbers["leaking_samples"] == 3
    assert numbers["leaking_identities"] == 1
    assert numbers["leaking_share"] == 0.75
    assert [(k.sample, k.reference) for k in worst] == [(1, 6), (3, 8), (2, 7)]
