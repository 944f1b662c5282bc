"""Statistics of repeated runs: mean with its interval over seeds, rank correlation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """Of equal runs that differ by their seed.

    Attributes:
        n: how many.
        mean: of them.
        std: of the sample (n - 1); None for a single one.
        low: of the 95 % interval of the mean (Student t); None for a single one.
        high: likewise.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student-t 95 % interval of independent values, at least one."""
    x_n = np.asarray(values, np.float64)
    mean = float(x_n.mean())
    if len(x_n) < 2:
        return Summary(len(x_n), mean, None, None, None)
    std = float(x_n.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(x_n) - 1)) * std / len(x_n) ** 0.5
    return Summary(len(x_n), mean, std, mean - half, mean + half)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rho of two equally long lists; ties get their mean rank.

    None where it is not defined: fewer than two pairs, or one side all equal.
    """
    if len(left) != len(right):
        raise ValueError(f"lists of {len(left)} and {len(right)} values")
    if len(set(left)) < 2 or len(set(right)) < 2:
        return None
    a, b = stats.rankdata(left), stats.rankdata(right)
    return float(np.corrcoef(a, b)[0, 1])
