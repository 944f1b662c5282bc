import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.generate import conditions
from synface.generate.conditions import Fixed, Mixture, Range, Schedule


def points(n, d, seed=0):
    return sphere.uniform(rng.generator(seed, "points"), n, d)


def keys(n, who="id"):
    return [(who, k) for k in range(n)]


SPECS = [Fixed(0.0), Range(-0.1, 0.1), Schedule((0.0, 0.5, 0.9)), Mixture((Fixed(0.0), Range(0.3, 0.6)), (3, 1))]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: type(s).__name__)
def test_a_sample_keeps_its_factor_whatever_is_asked_beside_it(spec):
    many = conditions.factors(spec, 5, "anna", range(64))
    assert np.array_equal(many[:50], conditions.factors(spec, 5, "anna", range(50)))
    assert np.array_equal(many[[40, 3]], conditions.factors(spec, 5, "anna", [40, 3]))


def test_fixed_and_scheduled_factors():
    assert conditions.factors(Fixed(0.25), 1, "a", range(3)).tolist() == [0.25] * 3
    got = conditions.factors(Schedule((0.0, 0.5, -1.0)), 1, "a", range(5)).tolist()
    assert got == [0.0, 0.5, -1.0, 0.0, 0.5]


def test_ranges_are_uniform_and_differ_by_identity_and_seed():
    a = conditions.factors(Range(-0.1, 0.3), 1, "a", range(2000))
    assert a.min() >= np.float32(-0.1) and a.max() <= np.float32(0.3)
    counts = np.histogram(a, 10, (-0.1, 0.3))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi2, 9 degrees of freedom, 0.1 %
    assert not np.array_equal(a, conditions.factors(Range(-0.1, 0.3), 1, "b", range(2000)))
    assert not np.array_equal(a, conditions.factors(Range(-0.1, 0.3), 2, "a", range(2000)))


def test_mixtures_have_their_weights():
    spec = Mixture((Fixed(0.0), Fixed(0.5), Range(0.9, 1.0)), (2.0, 0.0, 6.0))
    m = conditions.factors(spec, 1, "a", range(2000))
    assert not (m == 0.5).any() and (m == 0).mean() == pytest.approx(0.25, abs=0.04)
    inside = m[m > 0.5]
    assert inside.min() >= 0.9 and inside.mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Fixed(1.01),
        lambda: Fixed(float("nan")),
        lambda: Range(0.2, 0.1),
        lambda: Schedule(()),
        lambda: Schedule((0.0, -2.0)),
        lambda: Mixture((Fixed(0.0),), (0.0,)),
        lambda: Mixture((Fixed(0.0),), (1.0, 2.0)),
        lambda: Mixture((Fixed(0.0), Fixed(1.0)), (2.0, -1.0)),
    ],
)
def test_bad_factors_are_refused(bad):
    with pytest.raises(InputError):
        bad()


def test_repeats_come_first_and_leave_the_generated_samples_alone():
    rows = conditions.subject_rows(3, 2)
    assert rows.sample_n.tolist() == [0, 1, 2, 3, 4]
    assert rows.inquiry_n.tolist() == [True, True, False, False, False]
    assert rows.draw_n.tolist() == [-1, -1, 0, 1, 2]
    assert conditions.subject_rows(8).draw_n[:3].tolist() == conditions.subject_rows(3, 5).draw_n[5:].tolist()
    assert len(conditions.subject_rows(50, 5).sample_n) == 55
    with pytest.raises(InputError):
        conditions.subject_rows(-1)


def test_gaussian_perturbation_is_hyperfaces():
    x, beta = points(4, 32), 0.2
    got = conditions.gaussian_perturbed(x, beta, 9, keys(4))
    v = np.stack([rng.generator(9, "id", k, "direction").standard_normal(32, dtype=np.float32) for k in range(4)])
    expected = x + beta * v
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(
        conditions.gaussian_perturbed(x, 0.0, 9, keys(4)), sphere.normalize(x.astype("f8")).astype("f4")
    )


def test_gaussian_spread_follows_its_formula():
    d, beta = 512, 0.05
    x = np.repeat(points(1, d), 400, 0)
    cos = (conditions.gaussian_perturbed(x, beta, 1, keys(400)) * x).sum(1)
    assert cos.mean() == pytest.approx(1 / np.sqrt(1 + beta**2 * (d - 1)), abs=0.005)


@given(d=st.integers(2, 300), cosine=st.floats(-1, 1), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_cones_have_their_cosine_exactly(d, cosine, seed):
    x = points(3, d, seed).astype(np.float64)
    got = conditions.cone_perturbed(x, np.full(3, cosine), seed, keys(3)).astype(np.float64)
    np.testing.assert_allclose((got * x).sum(1) / np.linalg.norm(x, axis=1), cosine, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_cone_directions_are_uniform_around_the_axis():
    x = np.repeat(np.eye(4)[:1], 4000, 0)
    u = conditions.cone_perturbed(x, np.full(4000, 0.6), 3, keys(4000))[:, 1:] / 0.8
    np.testing.assert_allclose(u.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(u.T @ u / 4000, np.eye(3) / 3, atol=0.03)


def test_bound_by_hand():
    angle = np.deg2rad([0, 60, 90, 180])
    np.testing.assert_allclose(conditions.non_overlap_bound(np.cos(angle)), np.cos(angle / 2), atol=1e-8)
    assert conditions.non_overlap_bound(np.array([0.0]))[0] == pytest.approx(0.7071068)


def test_cones_within_the_bound_cannot_reach_a_neighbour():
    """Even aimed straight at the nearest identity; and just outside the bound they do."""
    x = points(12, 5).astype(np.float64)
    cos, index = sphere.nearest_cosine(x)
    bound = conditions.non_overlap_bound(cos)
    other = x[index]
    towards = sphere.normalize(other - (other * x).sum(1, keepdims=True) * x)

    def aimed(cosine):
        return cosine[:, None] * x + np.sqrt(1 - cosine[:, None] ** 2) * towards

    def own_and_best_other(samples):
        similarity = samples @ x.T
        own = np.diag(similarity).copy()
        np.fill_diagonal(similarity, -np.inf)
        return own, similarity.max(1)

    own, best = own_and_best_other(aimed(bound + 1e-5))
    assert (own > best).all()
    own, best = own_and_best_other(aimed(bound - 1e-3))
    assert (own < best).any()


def test_cone_cosines_are_uniform_above_the_larger_bound():
    bound = np.array([0.9] * 1000 + [0.2] * 1000)
    s = conditions.cone_cosines(1, keys(2000), 0.6, bound)
    assert s[:1000].min() >= 0.9 and s[1000:].min() >= 0.6 and s.max() <= 1
    assert s[:1000].mean() == pytest.approx(0.95, abs=0.004) and s[1000:].mean() == pytest.approx(0.8, abs=0.015)
    assert np.array_equal(s[:3], conditions.cone_cosines(1, keys(3), 0.6, bound[:3]))
    with pytest.raises(InputError):
        conditions.cone_cosines(1, keys(1), 1.2)


def test_parents_differ_and_are_uniform():
    pairs = conditions.parents(1, keys(3000), 5)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    counts = np.bincount(pairs[:, 0] * 5 + pairs[:, 1], minlength=25)[[i for i in range(25) if i % 6]]
    assert ((counts - 150) ** 2 / 150).sum() < 43.8  # chi2, 19 degrees of freedom, 0.1 %
    with pytest.raises(InputError):
        conditions.parents(1, keys(1), 1)


def test_mixup_by_hand():
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    np.testing.assert_allclose(conditions.mixed(a, b, 0.75), [[0.75, 0.25] / np.sqrt(0.625)], atol=1e-7)
    np.testing.assert_allclose(conditions.mixed(a, b, np.array([1.0])), a)
    with pytest.raises(InputError, match="opposite"):
        conditions.mixed(a, -a, 0.5)
    share = conditions.shares(1, keys(500), 0.4, 0.6)
    assert share.min() >= 0.4 and share.max() <= 0.6 and share.mean() == pytest.approx(0.5, abs=0.01)


def test_senseless_perturbations_are_refused():
    x = points(2, 4)
    with pytest.raises(InputError, match="beta"):
        conditions.gaussian_perturbed(x, -0.1, 1, keys(2))
    with pytest.raises(InputError, match="cone"):
        conditions.cone_perturbed(x, np.array([0.5, 1.5]), 1, keys(2))
