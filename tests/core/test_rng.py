import numpy as np
import pytest

from synface.core import rng


def test_same_key_same_numbers_whatever_was_drawn_before():
    first = rng.generator(7, "identity", 3, "noise").standard_normal(5)
    rng.generator(7, "identity", 4, "noise").standard_normal(100)
    assert np.array_equal(first, rng.generator(7, "identity", 3, "noise").standard_normal(5))


@pytest.mark.parametrize(
    "other", [(8, "a", 0), (7, "b", 0), (7, "a", 1), (7, "a", "0"), ("7", "a", 0), (7, "a"), (7, "a", 0, "")]
)
def test_every_part_and_its_type_matters(other):
    assert rng.key_digest(7, "a", 0) != rng.key_digest(*other)


def test_parts_do_not_run_into_each_other():
    assert rng.key_digest("ab", "c") != rng.key_digest("a", "bc")


def test_key_digest_is_pinned():
    """Published datasets depend on it: a change renames every image there is."""
    assert rng.key_digest(7, "a", 0).hex() == "85e2d3d6724e704788ebc767624a8c0d"


def test_bool_and_float_keys_are_refused():
    for bad in (True, 1.5, None):
        with pytest.raises(TypeError):
            rng.key_digest(bad)


def test_rows_do_not_depend_on_their_neighbours():
    keys = [("id", i) for i in range(6)]
    whole = rng.normal_rows(1, keys, (2, 3))
    assert whole.dtype == np.float32 and whole.shape == (6, 2, 3)
    assert np.array_equal(whole[4:5], rng.normal_rows(1, keys[4:5], (2, 3)))


def test_permutation_is_a_permutation_and_keyed():
    a, b = rng.permutation(100, 3, "epoch", 0), rng.permutation(100, 3, "epoch", 1)
    assert sorted(a) == list(range(100)) and not np.array_equal(a, b)


def test_derived_seed_is_a_non_negative_int64():
    assert all(0 <= rng.derived_seed(i) < 2**63 for i in range(100))


def test_normals_have_the_right_moments():
    x = rng.generator(0, "moments").standard_normal(200_000)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
