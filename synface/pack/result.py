"""What every packing states: its table, and numbers measured on the very rows that are written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from synface.pack import bounds, energy, gallery, problem
from synface.pack.config import PackConfig
from synface.pack.problem import Problem
from synface.store.schemas import identities_table

EXPLAINED = 0.9  # the share of a gallery's energy whose directions are its effective dimension
Nearest = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Outcome:
    """The table that a solver made, its numbers, and facts of this run (workers, work) that do not name it."""

    table: pa.Table
    numbers: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


def packed_ids(config: PackConfig, given: Problem, new: int) -> tuple[list[str], list[str], list[int]]:
    """Ids, sources and seeds: those that are kept, then packed-000000 on, numbered past the kept ones."""
    kept = given.keep
    ids, sources, seeds = (
        ([], [], []) if kept is None else [kept[c].to_pylist() for c in ("identity_id", "source", "seed")]
    )
    taken, number = set(ids), len(ids)
    while len(ids) < new + (0 if kept is None else kept.num_rows):
        name = f"packed-{number:06d}"
        number += 1
        if name not in taken:
            ids.append(name)
    return ids, sources + ["packed"] * new, seeds + [config.seed] * new


def outcome(
    config: PackConfig,
    given: Problem,
    ids: list[str],
    sources: list[str],
    seeds: list[int],
    x_nd: Tensor,
    numbers: dict[str, Any],
    columns: dict[str, np.ndarray],
    nearest: Nearest | None = None,
    facts: dict[str, Any] | None = None,
) -> Outcome:
    """The table, and the numbers that every solver states, measured on the float32 rows that are written."""
    x_nd = x_nd.float()
    n, d = x_nd.shape
    nearest_n = energy.nearest_cosines(x_nd, tile=config.numerics.tile)[0] if nearest is None else nearest(x_nd)
    largest, bound = float(nearest_n.max()), bounds.best(n, d)
    table = identities_table(
        ids, x_nd.numpy(), sources, seeds, given.metadata, nearest_cosine=nearest_n.numpy(), **columns
    )
    stated: dict[str, Any] = {
        "solver": config.solver,
        "num_identities": n,
        "dim": d,
        "max_cosine": largest,
        "bound": bound,
        "gap": largest - bound,
        "mean_nearest_cosine": float(nearest_n.double().mean()),
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "iid_mean_nearest_cosine": bounds.iid_mean_nearest_cosine(n, d),
    }
    effective = problem.effective_dimension(given)
    if effective is not None:
        stated["effective_dimension"] = effective
        stated["bound_at_effective_dimension"] = bounds.best(n, max(effective, 2))
    if "gallery_distance" in numbers:
        stated["published_loss"] = gallery.published_loss(largest, numbers["gallery_distance"], config.alpha)
    return Outcome(table, stated | numbers, {"workers": 1, **(facts or {})})


def gallery_numbers(
    config: PackConfig, band: tuple[float, float] | None, x_nd: Tensor, faces_md: Tensor, cosine_n: Tensor
) -> dict[str, Any]:
    """What a packing with a gallery states about staying near it."""
    basis_de, _ = gallery.principal_directions(faces_md, EXPLAINED)
    numbers: dict[str, Any] = {
        "alpha": config.alpha,
        "gallery_distance": float((1.0 - cosine_n.double()).mean()),
        "energy_outside_subspace": gallery.energy_outside(x_nd, basis_de),
    }
    if band is not None:
        low, high = band
        outside_n = (cosine_n < low - 1e-4) | (cosine_n > high + 1e-4)
        numbers |= {
            "band": [low, high],
            "least_gallery_cosine": float(cosine_n.min()),
            "largest_gallery_cosine": float(cosine_n.max()),
            "outside_band": float(outside_n.double().mean()),
        }
    return numbers
