"""How evenly a recognizer works over groups of people: mean, spread, skewed error ratio. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def group_statistics(accuracy: Mapping[str, float]) -> dict[str, Any]:
    """Statistics over groups' accuracies (shares), as RFW and FRCSyn report them.

    Returns:
        mean; std (population); lowest and highest with their groups' names; ``skewed_error_ratio``, the largest
        error over the smallest (Wang et al., "Racial faces in the wild", ICCV 2019; null where a group has no
        error); ``trade_off``, mean - std (FRCSyn).

    Raises:
        ValueError: fewer than two groups.
    """
    if len(accuracy) < 2:
        raise ValueError(f"{len(accuracy)} groups; statistics over groups need two")
    value = np.array(list(accuracy.values()), np.float64)
    names = list(accuracy)
    low, high = int(value.argmin()), int(value.argmax())
    least = 1 - float(value[high])
    return {
        "groups": dict(accuracy),
        "mean": float(value.mean()),
        "std": float(value.std()),
        "lowest": names[low],
        "highest": names[high],
        "skewed_error_ratio": (1 - float(value[low])) / least if least > 0 else None,
        "trade_off": float(value.mean() - value.std()),
    }


def over_benchmarks(
    results: Mapping[str, Mapping[str, Any]], groups: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, Any]]:
    """`group_statistics` over sets of benchmarks that each stand for a group of people (RFW's four packs)."""
    found = {}
    for name, members in groups.items():
        rows = {m: [p["accuracy"] for p in results[m].values()] for m in members}
        found[name] = group_statistics({m: float(np.mean(accuracies)) for m, accuracies in rows.items()})
    return found


def over_slices(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`group_statistics` of the balanced accuracies within each protocol's slices: ``benchmark/protocol/dimension``.

    Dimensions with fewer than two groups of enough pairs are left out.
    """
    found = {}
    for benchmark, protocols in results.items():
        for protocol, numbers in protocols.items():
            for dimension, groups in numbers["slices"].items():
                known = {
                    g: row["balanced_accuracy"] for g, row in groups.items() if row["balanced_accuracy"] is not None
                }
                if len(known) > 1:
                    found[f"{benchmark}/{protocol}/{dimension}"] = group_statistics(known)
    return found
