"""Scores against naive loops, exact fractions and closed forms."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core import scores

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def columns(pairs):
    return np.array([p[0] for p in pairs], float) / 4, np.array([p[1] for p in pairs])


def naive_fold_accuracy(distance, same, folds):
    """The field's script, literally: a loop over folds and over thresholds."""
    n = len(distance)
    sizes = [n // folds + (1 if i < n % folds else 0) for i in range(folds)]
    out, start = [], 0
    for size in sizes:
        test = np.arange(start, start + size)
        train = np.setdiff1d(np.arange(n), test)
        start += size

        def accuracy(threshold, rows):
            predicted = np.less(distance[rows], threshold)
            right = np.sum(predicted & same[rows]) + np.sum(~predicted & ~same[rows])
            return float(right) / len(rows)

        thresholds = np.arange(0, 4, 0.01)
        on_train = [accuracy(t, train) for t in thresholds]
        out.append(accuracy(thresholds[int(np.argmax(on_train))], test))
    return np.array(out)


@pytest.mark.parametrize(("n", "seed"), [(10, 0), (57, 1), (600, 2), (603, 3)])
def test_fold_accuracy_equals_the_naive_loop_bit_by_bit(n, seed):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.5
    distance = np.clip(rng.normal(np.where(same, 1.0, 1.5), 0.35), 0, 4)
    distance[::7] = np.round(distance[::7], 2)  # exactly on thresholds
    expected = naive_fold_accuracy(distance, same, 10)
    got = scores.fold_accuracy(distance, same)
    assert (got.accuracy_f == expected).all()
    assert got.accuracy == float(np.mean(expected))
    assert got.std == float(np.std(expected))
    edges = scores.fold_bounds(n)
    by_pair = [got.correct_n[a:b].mean() for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(by_pair, expected, atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=10, max_size=40))
def test_fold_accuracy_on_ties_and_single_classes(pairs):
    distance = np.array([p[0] for p in pairs]) * 0.01
    same = np.array([p[1] for p in pairs])
    got = scores.fold_accuracy(distance, same)
    assert (got.accuracy_f == naive_fold_accuracy(distance, same, 10)).all()


def test_fold_accuracy_of_embeddings_end_to_end_in_float64():
    rng = np.random.default_rng(5)
    plain, flipped = rng.standard_normal((2, 400, 32)).astype(np.float32)
    e = scores.flip_sum(plain, flipped)
    total = plain.astype(np.float64) + flipped
    expected = total / np.sqrt((total**2).sum(1, keepdims=True))
    np.testing.assert_allclose(e, expected, rtol=1e-15)
    np.testing.assert_allclose(scores.squared_distance(e[::2], e[1::2]), 2 - 2 * (e[::2] * e[1::2]).sum(1), atol=1e-14)
    assert (scores.unit_rows(np.zeros((1, 3))) == 0).all()


def test_fold_bounds():
    assert scores.fold_bounds(23, 10).tolist() == [0, 3, 6, 9, 11, 13, 15, 17, 19, 21, 23]
    with pytest.raises(ValueError, match="at least 10 pairs, got 9"):
        scores.fold_bounds(9)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_roc_points_are_the_counted_rates(pairs):
    score, same = columns(pairs)
    curve = scores.roc(score, same)
    assert curve.threshold_k[1:].tolist() == sorted(set(score), reverse=True)
    for t, far, tar in zip(curve.threshold_k, curve.far_k, curve.tar_k, strict=True):
        assert far == np.mean(score[~same] >= t)
        assert tar == np.mean(score[same] >= t)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_auc_equals_the_brute_force_over_all_pairs(pairs):
    score, same = columns(pairs)
    wins = sum(Fraction(2 * int(g > i) + int(g == i), 2) for g in score[same] for i in score[~same]) / Fraction(
        int(same.sum()) * int((~same).sum())
    )
    assert scores.auc(score, same) == float(wins)
    curve = scores.roc(score, same)
    trapezoid = np.sum(np.diff(curve.far_k) * (curve.tar_k[1:] + curve.tar_k[:-1]) / 2)
    assert scores.auc(score, same) == pytest.approx(float(trapezoid), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 1.0]))
def test_tar_at_far_rules_by_brute_force(pairs, target):
    score, same = columns(pairs)
    curve = scores.roc(score, same)
    points = [
        (float(np.mean(score[~same] >= t)), float(np.mean(score[same] >= t))) for t in [np.inf, *sorted(set(score))]
    ]
    strict = scores.tar_at_far(curve, target, "strict")
    assert strict.far <= target
    assert strict.tar == max(tar for far, tar in points if far <= target)
    assert strict.tar == np.mean(score[same] >= strict.threshold)
    nearest = scores.tar_at_far(curve, target, "nearest")
    gap = min(abs(far - target) for far, _ in points)
    assert abs(nearest.far - target) == gap
    assert (nearest.far, nearest.tar) == max(p for p in points if abs(p[0] - target) == gap)
    assert scores.fnmr_at_fmr(curve, target) == 1 - strict.tar


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]), st.sampled_from(["strict", "nearest"]))
def test_points_of_sorted_scores_are_those_of_the_roc(pairs, target, rule):
    score, same = columns(pairs)
    genuine, impostor = np.sort(score[same]), np.sort(score[~same])
    expected = scores.tar_at_far(scores.roc(score, same), target, rule)
    assert scores.sorted_point(genuine, impostor, target, rule) == expected


def test_rates_that_rounding_moves_are_kept():
    score, same = np.arange(110.0), np.arange(110) >= 100  # 0.29 * 100 is below 29
    curve = scores.roc(score, ~same)
    point = scores.sorted_point(score[~same], score[same], 0.3, "strict")
    assert point == scores.tar_at_far(curve, 0.3, "strict")
    shares = scores.sorted_point(np.array([200.0]), np.arange(100.0), 0.29, "strict")
    assert shares.far == 0.29


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_corners_of_sorted_scores_draw_the_same_line(pairs):
    score, same = columns(pairs)
    genuine, impostor = np.sort(score[same]), np.sort(score[~same])
    curve, corners = scores.roc(score, same), scores.corner_roc(genuine, impostor)
    assert scores.eer(corners) == pytest.approx(scores.eer(curve), abs=1e-12)
    area = np.sum(np.diff(corners.far_k) * (corners.tar_k[1:] + corners.tar_k[:-1]) / 2)
    assert area == pytest.approx(scores.auc(score, same), abs=1e-12)
    for t, far, tar in zip(corners.threshold_k, corners.far_k, corners.tar_k, strict=True):
        assert far == pytest.approx(np.mean(score[~same] >= t), abs=1e-15)
        assert tar == pytest.approx(np.mean(score[same] >= t), abs=1e-15)


def test_nearest_may_exceed_the_target_and_strict_never():
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    same = np.array([True, False, True, True, False, False])
    curve = scores.roc(score, same)
    assert scores.tar_at_far(curve, 0.2, "strict").far == 0
    assert scores.tar_at_far(curve, 0.2, "nearest").far == pytest.approx(1 / 3)


def test_eer_closed_forms():
    same = np.repeat([True, False], 4)
    separable = scores.roc(np.array([4, 5, 6, 7, 0, 1, 2, 3.0]), same)
    assert scores.eer(separable) == 0
    equal = scores.roc(np.zeros(8), same)
    assert scores.eer(equal) == 0.5
    reversed_ = scores.roc(np.array([0, 1, 2, 3, 4, 5, 6, 7.0]), same)
    assert scores.eer(reversed_) == 1
    # one genuine below one impostor: both rates are 1/4 between 3 and 4
    crossed = scores.roc(np.array([3, 5, 6, 7, 0, 1, 2, 4.0]), same)
    assert scores.eer(crossed) == 0.25


def test_eer_and_auc_of_normal_scores_match_theory():
    rng = np.random.default_rng(0)
    n = 200_000
    score = np.concatenate([rng.normal(2, 1, n), rng.normal(0, 1, n)])
    same = np.repeat([True, False], n)
    assert scores.eer(scores.roc(score, same)) == pytest.approx(0.158655, abs=3e-3)  # Phi(-1)
    assert scores.auc(score, same) == pytest.approx(0.921350, abs=2e-3)  # Phi(sqrt(2))


@given(st.integers(1, 500), st.data())
def test_wilson_interval_solves_its_equation(n, data):
    k = data.draw(st.integers(0, n))
    low, high = scores.wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound, inner in ((low, k > 0), (high, k < n)):
        if inner:  # the bound p satisfies |k/n - p| = z sqrt(p (1 - p) / n)
            assert abs(k / n - bound) == pytest.approx(1.959963984540054 * (bound * (1 - bound) / n) ** 0.5, abs=1e-9)


def test_wilson_known_value():
    low, high = scores.wilson_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_histograms_lose_nothing(pairs):
    score, same = columns(pairs)
    genuine, impostor = scores.histograms(score, same, np.linspace(-0.5, 0.5, 5))
    assert genuine.sum() == same.sum()
    assert impostor.sum() == (~same).sum()
    assert genuine[0] == np.sum(same & (score < -0.25))


@pytest.mark.parametrize(
    ("score", "same", "message"),
    [
        ([0.1, np.nan], [True, False], "1 of 2 scores are not finite; the first is pair 1"),
        ([0.1, 0.2], [True, True], "need genuine and impostor pairs, got 2 genuine of 2"),
        ([0.1, 0.2], [1, 0], "labels must be bool"),
        ([0.1], [True, False], "equally long"),
    ],
)
def test_refuses_bad_scores(score, same, message):
    with pytest.raises(ValueError, match=message):
        scores.roc(np.array(score), np.array(same))


def test_refuses_bad_targets():
    curve = scores.roc(np.array([0.0, 1.0]), np.array([False, True]))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        scores.tar_at_far(curve, 2)
    with pytest.raises(ValueError, match="known: strict, nearest"):
        scores.tar_at_far(curve, 0.1, "loose")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need 0 <= successes"):
        scores.wilson_interval(3, 2)


@pytest.mark.parametrize("far", [0.0, 1e-3, 0.01, 0.1, 0.5])
def test_threshold_at_far_is_the_strict_point_of_the_roc(far):
    score = np.random.default_rng(4).integers(-40, 40, 5000) / 100  # many ties
    same = np.zeros(5000, bool)
    same[:7] = True
    threshold = scores.threshold_at_far(score[~same], far)
    strict = scores.tar_at_far(scores.roc(score, same), far)
    assert (score[~same] >= threshold).mean() == strict.far <= far
    with pytest.raises(ValueError, match="at least one"):
        scores.threshold_at_far(np.array([]), far)
