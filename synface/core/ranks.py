"""Ranks of samples within their class."""

import numpy as np


def rank_groups(value_n: np.ndarray, label_n: np.ndarray, groups: int) -> np.ndarray:
    """Each class's samples in `groups` parts of equal size by falling value; the part of every sample, int64 [n].

    With n_c samples in the class, the one of rank r (0: the largest value; ties by position) is in part
    ``floor(r groups / n_c)``; so parts differ by at most one sample.

    Args:
        value_n: what is ranked.
        label_n: class of every sample, any integers.
        groups: how many parts.
    """
    order = np.lexsort((np.arange(len(value_n)), -value_n, label_n))
    sorted_n = label_n[order]
    first = np.flatnonzero(np.diff(sorted_n, prepend=sorted_n[:1] - 1))
    counts = np.diff(np.append(first, len(order)))
    rank_n = np.arange(len(order)) - np.repeat(first, counts)
    out = np.empty(len(order), np.int64)
    out[order] = rank_n * groups // np.repeat(counts, counts)
    return out


def part_statistics(value_n: np.ndarray, label_n: np.ndarray, kept_n: np.ndarray) -> dict[str, float]:
    """Mean of a part's values, and the means over classes of their highest and lowest.

    Args:
        value_n: what was ranked.
        label_n: class of every sample, any integers.
        kept_n: which samples the part holds, bool; at least one.
    """
    label, value = label_n[kept_n], value_n[kept_n]
    ordered = value[np.lexsort((value, label))]
    ends = np.cumsum(np.unique(label, return_counts=True)[1]) - 1
    starts = np.append(0, ends[:-1] + 1)
    found = {"mean": value.mean(), "mean_highest": ordered[ends].mean(), "mean_lowest": ordered[starts].mean()}
    return {name: round(float(v), 6) for name, v in found.items()}
