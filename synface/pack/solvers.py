"""The solvers of `synface pack` by name: checked inputs in, an identities table and its numbers out."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from synface.core.errors import InputError
from synface.ops.progress import Progress
from synface.pack import codes, problem, subset
from synface.pack.config import PackConfig
from synface.pack.drive import Place
from synface.pack.points import MOVERS, pack_points
from synface.pack.problem import Problem
from synface.pack.result import Outcome, outcome, packed_ids
from synface.pack.spaces import tensor
from synface.store.schemas import embeddings


def pack_code(config: PackConfig, given: Problem, place: Place) -> Outcome:
    """Rows of the best known code, turned by a keyed rotation."""
    code = codes.best_code(config.num_identities, given.dim)
    assert code is not None  # checked by problem.read
    index = codes.subset_index(code, config.num_identities, config.seed)
    x_nd = torch.from_numpy(codes.points(code, index, codes.rotation(given.dim, config.seed)))
    ids, sources, seeds = packed_ids(config, given, len(x_nd))
    numbers = {"code": code.name, "code_size": code.size, "code_max_cosine": code.max_cosine, "passes": 0}
    return outcome(config, given, ids, sources, seeds, x_nd, numbers, {})


def pack_subset(config: PackConfig, given: Problem, place: Place) -> Outcome:
    """Far-apart members of the pool, in the pool's order, with their ids, sources and seeds."""
    assert given.pool is not None
    pool_nd = tensor(config, problem.rows(given.pool))
    progress = Progress("pack", config.num_identities, "chosen", interval=config.how.progress_seconds)
    chosen = subset.dispersed(
        pool_nd,
        config.num_identities,
        ceiling=config.max_cosine,
        passes=config.swap_passes,
        on_step=progress.advance_or_stop,
    )
    if len(chosen.index_k) < config.num_identities:
        raise InputError(
            f"max_cosine = {config.max_cosine}: of the {len(pool_nd)} pool members only {len(chosen.index_k)} "
            f"were found with no pair above it, {config.num_identities} were asked; raise max_cosine, lower "
            "num_identities, or enlarge the pool (nothing was written)"
        )
    index_k = np.sort(chosen.index_k.numpy())
    part = given.pool.take(pa.array(index_k))
    names, sources, seeds = (part[c].to_pylist() for c in ("identity_id", "source", "seed"))
    numbers = {"passes": config.swap_passes, "pool_size": len(pool_nd)}
    x_kd = torch.from_numpy(embeddings(given.pool)[index_k])  # the pool's very bits
    return outcome(config, given, names, sources, seeds, x_kd, numbers, {})


SOLVERS: dict[str, Callable[[PackConfig, Problem, Place], Outcome]] = {
    "subset": pack_subset,
    "code": pack_code,
    **dict.fromkeys(MOVERS, pack_points),
}
