"""A packing's inputs, read and checked before any work; what it costs."""

from dataclasses import dataclass

import numpy as np
import psutil
import pyarrow as pa
import torch

from synface.core import sphere
from synface.core.errors import InputError
from synface.pack import bounds, codes
from synface.pack.config import ITEM_BYTES, PackConfig
from synface.store import artifact
from synface.store.schemas import embeddings, metadata_of
from synface.store.tables import listed_files, parse_parquet, read_identities, read_listed

COPIES = 4  # rows, gradient, momentum, and the start
FAR = 1e-4
ROC_FILE = "data/roc.parquet"
OWN_KEYS = ("schema_version", "synface_table")


@dataclass(frozen=True)
class Problem:
    """The checked inputs of one packing; tables that were not asked for are None."""

    dim: int
    gallery: pa.Table | None
    pool: pa.Table | None
    start: pa.Table | None
    keep: pa.Table | None
    band: tuple[float, float] | None = None

    @property
    def source(self) -> pa.Table | None:
        """The table whose embedding space the result lives in."""
        return next((t for t in (self.pool, self.gallery, self.start, self.keep) if t is not None), None)

    @property
    def metadata(self) -> dict[str, str]:
        """Embedder, weights and crop of that space."""
        if self.source is None:
            return {}
        return {k: v for k, v in metadata_of(self.source.schema).items() if k not in OWN_KEYS}


def read(config: PackConfig) -> Problem:
    """Read and check every input.

    Raises:
        InputError: dimensions that differ, not enough rows or memory, a target below the bound.
    """
    dim = config.dim
    tables: dict[str, pa.Table | None] = {}
    for name in ("gallery", "pool", "start", "keep"):
        uri = getattr(config, name)
        tables[name] = table = None if uri is None else read_identities(uri, dim)
        if table is not None and dim is None:
            dim = table["embedding"].type.list_size
    assert dim is not None
    if dim < 2:
        raise InputError(f"dim: a packing needs at least 2 dimensions, the input has {dim}")
    problem = Problem(dim, tables["gallery"], tables["pool"], tables["start"], tables["keep"], _band(config))
    _check_counts(config, problem)
    _check_target(config, dim)
    check_memory(config, problem, psutil.virtual_memory().available)
    return problem


def _band(config: PackConfig) -> tuple[float, float] | None:
    """Least and largest cosine to the nearest gallery row; None where neither is asked for."""
    high = config.tau_hi if config.scorer is None else impostor_threshold(config.scorer)
    if config.tau_lo is None and high is None:
        return None
    low, high = (-1.0 if config.tau_lo is None else config.tau_lo), (1.0 if high is None else high)
    if low > high:
        raise InputError(
            f"tau_lo = {low}: above tau_hi = {high:.4f}, the threshold of scorer {config.scorer}; lower it"
        )
    return low, high


def impostor_threshold(evaluation: str) -> float:
    """The lowest cosine at which an evaluation's recognizer accepts no more than one impostor pair in 10,000.

    The lowest over its benchmarks: a point below it is another person to each of them.
    """
    artifact.require(evaluation, "evaluation")
    entry = next((f for f in listed_files(evaluation) if f.path == ROC_FILE), None)
    if entry is None:
        raise InputError(f"scorer {evaluation}: has no {ROC_FILE}; give the output of `synface evaluate`, or tau_hi")
    roc = parse_parquet(read_listed(evaluation, entry), f"{evaluation}/{ROC_FILE}")
    strict = [r["threshold"] for r in roc.to_pylist() if r["far"] <= FAR and r["threshold"] is not None]
    if not strict:
        raise InputError(f"scorer {evaluation}: no threshold keeps FAR at {FAR:g}; give tau_hi")
    return min(strict)


def _check_counts(config: PackConfig, problem: Problem) -> None:
    n = config.num_identities
    if problem.pool is not None and n > problem.pool.num_rows:
        raise InputError(
            f"num_identities = {n}: the pool {config.pool} has only {problem.pool.num_rows} rows; "
            "ask for at most that many, or enlarge the pool"
        )
    kept = 0 if problem.keep is None else problem.keep.num_rows
    if kept >= n:
        raise InputError(f"keep {config.keep}: has {kept} rows already; num_identities = {n} must be more (the total)")
    if problem.start is not None and problem.start.num_rows != n - kept:
        raise InputError(
            f"start {config.start}: has {problem.start.num_rows} rows, {n - kept} points are to be placed; "
            "they must be equal"
        )
    if config.how.workers > n - kept:
        raise InputError(
            f"how.workers = {config.how.workers}: {n - kept} points are to be placed; at most one worker a point"
        )
    if config.numerics.device == "cuda" and config.how.workers == 1 and not torch.cuda.is_available():
        raise InputError("numerics.device = cuda: no GPU is visible to this process; use cpu, or workers of a cluster")
    if config.solver == "code" or config.initial == "code":
        code = codes.best_code(n, problem.dim)
        if code is None:
            largest = max(c.size for c in codes.known_codes(problem.dim))
            raise InputError(
                f"num_identities = {n}: no known code has so many points in {problem.dim} dimensions (at most "
                f"{largest}); use solver lse with initial random"
            )


def _check_target(config: PackConfig, dim: int) -> None:
    bound = bounds.best(config.num_identities, dim)
    for name in ("target_cosine", "max_cosine"):
        asked = getattr(config, name)
        if asked is not None and asked < bound:
            raise InputError(
                f"{name} = {asked}: below the bound {bound:.6f}; no {config.num_identities} points in {dim} "
                f"dimensions have all cosines below that: ask for more than {bound:.6f}, or for fewer identities"
            )


def memory_bytes(config: PackConfig, problem: Problem) -> int:
    """Peak bytes of the solver above the interpreter: O((n + gallery or pool) d + tile^2)."""
    item = ITEM_BYTES[config.numerics.dtype]
    given = sum(t.num_rows for t in (problem.gallery, problem.pool, problem.start, problem.keep) if t is not None)
    own = 0 if problem.pool is not None else COPIES * config.num_identities
    return item * ((own + 2 * given) * problem.dim + 4 * config.numerics.tile**2)


def check_memory(config: PackConfig, problem: Problem, available: int) -> None:
    """InputError, with the number that would fit, where the packing needs more than is available."""
    needed = memory_bytes(config, problem)
    if needed <= available:
        return
    per_row = ITEM_BYTES[config.numerics.dtype] * problem.dim * COPIES
    fits = config.num_identities - -(-(needed - available) // per_row)
    advice = f"at most num_identities = {fits} fit" if fits >= 2 else "not even two identities fit beside the inputs"
    raise InputError(
        f"num_identities = {config.num_identities}: {problem.dim} dimensions need {needed / 1e9:.1f} GB, "
        f"{available / 1e9:.1f} GB are free; {advice}"
    )


def effective_dimension(problem: Problem) -> int | None:
    """Directions that hold 90 % of the pool's or the gallery's energy; None without either."""
    table = problem.pool if problem.pool is not None else problem.gallery
    return None if table is None else sphere.effective_dimension(embeddings(table))


def rows(table: pa.Table) -> np.ndarray:
    """A table's embeddings, renormalised in float64, as float32 [n, d]."""
    return sphere.normalize(embeddings(table).astype(np.float64)).astype(np.float32)
