"""One protocol's numbers against counts by hand."""

import json

import numpy as np
import pytest

from synface.core import scores
from synface.evaluate.verification import Protocol, average, corners, measure

FAR = (0.1, 0.01)


def protocol(n=400, d=8, noise=0.9, seed=0, groups=True):
    """Pairs around random centres, and two groups of which the second is harder."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((n, d))
    same = np.tile([True, False], n // 2)
    hard = rng.random(n) < 0.5
    a = centre + noise * rng.standard_normal((n, d)) * np.where(hard, 1.5, 0.5)[:, None]
    other = np.where(same[:, None], centre, rng.standard_normal((n, d)))
    b = other + noise * rng.standard_normal((n, d)) * np.where(hard, 1.5, 0.5)[:, None]
    x = scores.unit_rows(np.concatenate([a, b]))
    group = np.tile(np.where(hard, "hard", "easy"), 2)
    mixed = np.concatenate([np.where(hard, "hard", "easy"), np.full(n, "easy")])
    by = {"kind": group, "mixed": mixed} if groups else {}
    return x, Protocol("p", np.arange(n), np.arange(n) + n, same, by)


def test_numbers_are_the_scores_of_the_pairs():
    x, p = protocol()
    got = measure(x, p, FAR, "strict")
    cos = np.array([float(np.dot(x[i], x[j])) for i, j in zip(p.left_n, p.right_n, strict=True)])
    np.testing.assert_allclose(got.score_n, cos, atol=1e-15)
    folds = scores.fold_accuracy(scores.squared_distance(x[p.left_n], x[p.right_n]), p.same_n)
    n = got.numbers
    assert (n["accuracy"], n["accuracy_std"]) == (folds.accuracy, folds.std)
    assert n["threshold_cosine"] == pytest.approx(1 - np.mean(folds.threshold_f) / 2)
    assert n["genuine_mean"] == pytest.approx(np.mean(cos[p.same_n]))
    assert n["impostor_std"] == pytest.approx(np.std(cos[~p.same_n]))
    low, high = n["accuracy_ci95"]
    assert low < n["accuracy"] < high
    assert n["auc"] == pytest.approx(np.mean(cos[p.same_n][:, None] > cos[~p.same_n][None]))
    point = n["tar_at_far"]["0.1"]
    assert point["far"] == np.mean(cos[~p.same_n] >= point["threshold_cosine"]) <= 0.1
    assert n["fnmr_at_fmr"]["0.1"] == pytest.approx(1 - point["tar"])
    json.dumps(n, allow_nan=False)


def test_slices_count_pairs_whose_two_images_are_in_the_group():
    x, p = protocol()
    got = measure(x, p, FAR, "strict")
    kind = got.numbers["slices"]["kind"]
    hard = p.groups["kind"][p.left_n] == "hard"
    assert kind["hard"]["genuine"] == int((hard & p.same_n).sum())
    assert sum(kind[g][c] for g in kind for c in ("genuine", "impostor")) == len(p.same_n)
    assert kind["hard"]["auc"] < kind["easy"]["auc"]
    threshold = got.numbers["tar_at_far"]["0.1"]["threshold_cosine"]
    rates = kind["hard"]["tar_at_far"]["0.1"]
    assert rates["tar"] == np.mean(got.score_n[hard & p.same_n] >= threshold)
    assert rates["far"] == np.mean(got.score_n[hard & ~p.same_n] >= threshold)
    right = got.correct_n
    expected = (right[hard & p.same_n].mean() + right[hard & ~p.same_n].mean()) / 2
    assert kind["hard"]["balanced_accuracy"] == pytest.approx(expected)
    # pairs across groups belong to none
    mixed = got.numbers["slices"]["mixed"]
    assert mixed["hard"]["genuine"] == 0
    assert mixed["hard"]["auc"] is None
    assert mixed["easy"]["genuine"] == int((~hard & p.same_n).sum())


def test_an_unreachable_far_accepts_nothing_and_is_plain_json():
    x, p = protocol(groups=False)
    impostor_best = measure(x, p, (0.001,), "strict")
    point = impostor_best.numbers["tar_at_far"]["0.001"]
    assert point["far"] == 0
    same = np.ones(len(p.same_n), bool)
    same[0] = False
    x[p.right_n[0]] = x[p.left_n[0]]  # the one impostor is the best score of all
    one = Protocol("p", p.left_n, p.right_n, same, {})
    point = measure(x, one, (0.5,), "strict").numbers["tar_at_far"]["0.5"]
    assert point == {"tar": 0.0, "far": 0.0, "threshold_cosine": None}


def test_average_is_the_mean_over_protocols():
    x, p = protocol(groups=False)
    y, q = protocol(noise=0.3, seed=1, groups=False)
    a, b = measure(x, p, FAR, "strict").numbers, measure(y, q, FAR, "strict").numbers
    mean = average({"one": {"p": a, "q": b}, "two": {"p": b}})
    assert mean["one"]["accuracy"] == pytest.approx((a["accuracy"] + b["accuracy"]) / 2)
    assert mean["all"]["accuracy"] == pytest.approx((a["accuracy"] + 2 * b["accuracy"]) / 3)
    assert mean["all"]["protocols"] == 3
    expected = (a["tar_at_far"]["0.1"]["tar"] + b["tar_at_far"]["0.1"]["tar"]) / 2
    assert mean["one"]["tar_at_far"]["0.1"] == pytest.approx(expected)


def test_corners_draw_the_same_line():
    x, p = protocol(groups=False)
    curve = measure(x, p, FAR, "strict").curve
    keep = corners(curve)
    assert len(keep) < len(curve.far_k)
    assert {0, len(curve.far_k) - 1} <= set(keep.tolist())
    area = np.trapezoid(curve.tar_k, curve.far_k)
    assert np.trapezoid(curve.tar_k[keep], curve.far_k[keep]) == pytest.approx(area, abs=1e-12)
    dropped = np.setdiff1d(np.arange(len(curve.far_k)), keep)
    on_line = np.interp(curve.far_k[dropped], curve.far_k[keep], curve.tar_k[keep])
    on_step = np.isin(curve.far_k[dropped], curve.far_k[keep]) | np.isclose(on_line, curve.tar_k[dropped])
    assert on_step.all()


def test_nan_embeddings_are_refused():
    x, p = protocol()
    x[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        measure(x, p, FAR, "strict")
