"""`synface pack`: plan -> execute -> commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from synface.ops.cluster import versions
from synface.pack import bounds, problem
from synface.pack.config import PackConfig
from synface.pack.solvers import MOVERS, SOLVERS
from synface.store import artifact
from synface.store.tables import write_identities


def plan(config: PackConfig) -> dict[str, Any]:
    """Sizes, bound and cost, without any work; every fault of the input is found here."""
    given = problem.read(config)
    n, d = config.num_identities, given.dim
    moving = config.solver in MOVERS
    return {
        "num_identities": n,
        "dim": d,
        "bound": bounds.best(n, d),
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "passes": config.passes if moving else None,
        "flops_per_pass": 3 * n * n * d if moving else None,
        "memory_bytes": problem.memory_bytes(config, given),
    }


def run(config: PackConfig) -> dict[str, Any]:
    """Pack, write the identities table, and return its numbers; a finished one answers at once."""
    given = problem.read(config)
    opened = artifact.open_output(config)
    if opened.finished is not None:
        return {"uri": config.output, "cached": True, **opened.finished.numbers}
    with threads(config.numerics.threads):
        outcome = SOLVERS[config.solver](config, given)
    files = [write_identities(config.output, outcome.table)]
    artifact.commit(config, opened, "identities", files, outcome.numbers, versions())
    return {"uri": config.output, "cached": False, **outcome.numbers}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """`count` threads for matrix products within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
