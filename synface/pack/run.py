"""`synface pack`: plan -> execute -> commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from synface.core.errors import InputError
from synface.ops.cluster import versions
from synface.ops.progress import Progress
from synface.pack import bounds, energy, gallery, problem, solver, starts, subset
from synface.pack.config import PackConfig
from synface.pack.problem import Problem
from synface.store import artifact
from synface.store.schemas import identities_table
from synface.store.tables import write_identities


@dataclass(frozen=True)
class Outcome:
    """The table that a solver made, and its numbers."""

    table: pa.Table
    numbers: dict[str, Any]


def plan(config: PackConfig) -> dict[str, Any]:
    """Sizes, bound and cost, without any work; every fault of the input is found here."""
    given = problem.read(config)
    n, d = config.num_identities, given.dim
    return {
        "num_identities": n,
        "dim": d,
        "bound": bounds.best(n, d),
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "passes": config.passes if config.solver == "lse" else None,
        "flops_per_pass": 3 * n * n * d if config.solver == "lse" else None,
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


def run_lse(config: PackConfig, given: Problem) -> Outcome:
    """Packed points: log-sum-exp continuation, with the gallery term where a gallery is given."""
    x_nd = tensor(config, start_rows(config, given))
    kind = solver.kind_of_start(x_nd)
    progress = Progress("pack", config.passes, "passes", interval=config.how.progress_seconds)
    near = None
    if given.gallery is not None:
        near = gallery.Gallery(tensor(config, problem.rows(given.gallery)), config.alpha, config.gallery_refresh)
    solution = solver.solve(
        x_nd,
        solver.default_schedule(given.dim, config.passes, kind),
        gallery=near,
        target_cosine=config.target_cosine,
        max_seconds=config.max_seconds,
        tile=config.numerics.tile,
        on_pass=lambda report: progress.advance(1, f"max cosine {report.largest:.4f}"),
    )
    numbers = {"passes": solution.passes, "stopped_by": solution.reason, "start": kind}
    columns = {}
    if near is not None:
        cosine_n = energy.nearest_cosines(solution.x_nd, near.rows_md, config.numerics.tile)[0]
        columns["gallery_cosine"] = cosine_n.float().numpy()
        far = float((1.0 - cosine_n.double()).mean())
        numbers |= {"gallery_distance": far, "alpha": config.alpha}
        numbers["published_loss"] = gallery.published_loss(solution.max_cosine, far, config.alpha)
    ids = [f"packed-{i:06d}" for i in range(config.num_identities)]
    seeds = np.full(len(ids), config.seed)
    return _outcome(config, given, ids, ["packed"] * len(ids), seeds, solution.x_nd, numbers, columns)


def run_subset(config: PackConfig, given: Problem) -> Outcome:
    """Far-apart members of the pool, in the pool's order, with their ids, sources and seeds."""
    assert given.pool is not None
    pool_nd = tensor(config, problem.rows(given.pool))
    progress = Progress("pack", config.num_identities, "chosen", interval=config.how.progress_seconds)
    chosen = subset.dispersed(
        pool_nd,
        config.num_identities,
        ceiling=config.max_cosine,
        passes=config.swap_passes,
        on_step=progress.advance,
    )
    if len(chosen.index_k) < config.num_identities:
        raise InputError(
            f"max_cosine = {config.max_cosine}: of the {len(pool_nd)} pool members only {len(chosen.index_k)} "
            f"were found with no pair above it, {config.num_identities} were asked; raise "
            "max_cosine, lower num_identities, or enlarge the pool (nothing was written)"
        )
    index_k = np.sort(chosen.index_k.numpy())
    part = given.pool.take(pa.array(index_k))
    names, sources, seeds = (part[c].to_pylist() for c in ("identity_id", "source", "seed"))
    numbers = {"passes": config.swap_passes, "pool_size": len(pool_nd)}
    return _outcome(config, given, names, sources, seeds, pool_nd[torch.from_numpy(index_k)], numbers, {})


SOLVERS = {"lse": run_lse, "subset": run_subset}


def start_rows(config: PackConfig, given: Problem) -> np.ndarray:
    """The points a solve starts from, float32 [n, d]."""
    if given.start is not None:
        return starts.jittered(problem.rows(given.start), config.seed)
    if given.gallery is not None and config.initial in ("auto", "gallery"):
        return starts.gallery_start(problem.rows(given.gallery), config.num_identities, config.seed)
    return starts.random_start(config.num_identities, given.dim, config.seed)


def _outcome(
    config: PackConfig,
    given: Problem,
    ids: list[str],
    sources: list[str],
    seeds: Any,
    x_nd: Tensor,
    numbers: dict[str, Any],
    columns: dict[str, np.ndarray],
) -> Outcome:
    """The table, and the numbers that every solver states, measured on the float32 rows that are written."""
    x_nd = x_nd.float()
    n, d = x_nd.shape
    nearest_n = energy.nearest_cosines(x_nd, tile=config.numerics.tile)[0]
    largest, bound = float(nearest_n.max()), bounds.best(n, d)
    table = identities_table(
        ids, x_nd.numpy(), sources, seeds, given.metadata, nearest_cosine=nearest_n.numpy(), **columns
    )
    stated = {
        "solver": config.solver,
        "num_identities": n,
        "dim": d,
        "max_cosine": largest,
        "bound": bound,
        "gap": largest - bound,
        "mean_nearest_cosine": float(nearest_n.double().mean()),
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "workers": 1,
    }
    effective = problem.effective_dimension(given)
    if effective is not None:
        stated["effective_dimension"] = effective
        stated["bound_at_effective_dimension"] = bounds.best(n, max(effective, 2))
    return Outcome(table, stated | numbers)


def tensor(config: PackConfig, x_nd: np.ndarray) -> Tensor:
    """The rows in the configured dtype."""
    return torch.from_numpy(x_nd).to(getattr(torch, config.numerics.dtype))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """`count` threads for matrix products within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
