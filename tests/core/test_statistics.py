"""Summaries over seeds and rank correlation against closed forms."""

import numpy as np
import pytest
from scipy import stats

from synface.core.statistics import rank_correlation, summarize


def test_summary_of_three_values_by_hand():
    found = summarize([1.0, 2.0, 6.0])
    std = 7**0.5  # squares 4 + 1 + 9 over two
    half = 4.302652729911275 * std / 3**0.5  # Student's t at 0.975 with two degrees of freedom
    assert found.n == 3 and found.mean == 3.0
    assert found.std == pytest.approx(std, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-9)


def test_one_value_has_no_interval():
    found = summarize([0.5])
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 0.5, None, None, None)


def test_rank_correlation_closed_form_without_ties():
    left, right = [3.0, 1.0, 4.0, 2.0, 5.0], [2.0, 1.0, 5.0, 3.0, 4.0]
    d2 = (3 - 2) ** 2 + 0 + (4 - 5) ** 2 + (2 - 3) ** 2 + (5 - 4) ** 2
    assert rank_correlation(left, right) == pytest.approx(1 - 6 * d2 / (5 * 24), abs=1e-12)


def test_rank_correlation_with_ties_is_scipys():
    stream = np.random.default_rng(0)
    left, right = stream.integers(0, 5, 40).tolist(), stream.integers(0, 5, 40).tolist()
    assert rank_correlation(left, right) == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-12)


def test_rank_correlation_ignores_any_rising_map():
    values = [0.3, -1.0, 2.5, 0.0]
    assert rank_correlation(values, np.exp(values).tolist()) == pytest.approx(1)
    assert rank_correlation(values, [-v for v in values]) == pytest.approx(-1)


def test_rank_correlation_is_not_defined_without_a_spread():
    assert rank_correlation([1.0], [2.0]) is None
    assert rank_correlation([1.0, 1.0], [2.0, 3.0]) is None
    with pytest.raises(ValueError, match="lists of 1 and 2"):
        rank_correlation([1.0], [2.0, 3.0])
