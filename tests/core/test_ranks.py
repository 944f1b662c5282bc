import numpy as np
import pytest

from synface.core import ranks


def naive(value, label, groups):
    out = np.zeros(len(value), int)
    for c in set(label.tolist()):
        rows = sorted(np.flatnonzero(label == c), key=lambda i: (-value[i], i))
        for rank, row in enumerate(rows):
            out[row] = rank * groups // len(rows)
    return out


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_parts_are_those_of_a_plain_loop_and_equal_in_size(groups):
    rng = np.random.default_rng(groups)
    label = rng.integers(-3, 8, 200)
    value = np.round(rng.normal(size=200), 1)  # with ties
    found = ranks.rank_groups(value, label, groups)
    assert found.tolist() == naive(value, label, groups).tolist()
    for c in set(label.tolist()):
        sizes = np.bincount(found[label == c], minlength=groups)
        assert sizes.max() - sizes.min() <= 1
    assert ranks.rank_groups(np.zeros(0), np.zeros(0, int), groups).tolist() == []
