"""Each solver of `synface pack`: checked inputs in, an identities table and its numbers out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from synface.core.errors import InputError
from synface.ops.progress import Progress
from synface.pack import baselines, bounds, codes, energy, gallery, problem, solver, starts, subset
from synface.pack.config import PackConfig
from synface.pack.gallery import Gallery
from synface.pack.problem import Problem
from synface.store.schemas import embeddings, identities_table

EXPLAINED = 0.9  # the share of a gallery's energy whose directions are its effective dimension


@dataclass(frozen=True)
class Outcome:
    """The table that a solver made, and its numbers."""

    table: pa.Table
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """Where points move: R^d, or coordinates y of x = B y in the gallery's leading directions B [d, e]."""

    dim: int
    basis_de: Tensor | None = None

    def inside(self, x_nd: Tensor) -> Tensor:
        """Coordinates; norms fall by what lies outside, so that inner products with the space stay exact."""
        return x_nd if self.basis_de is None else x_nd @ self.basis_de

    def lifted(self, y_ne: Tensor) -> Tensor:
        """Points of R^d, unit norm."""
        return y_ne if self.basis_de is None else y_ne @ self.basis_de.T


@dataclass(frozen=True)
class Start:
    """Points to start from, of what kind, and their name for the numbers."""

    x_nd: Tensor
    kind: solver.Start
    name: str


def pack_points(config: PackConfig, given: Problem) -> Outcome:
    """Points of a solver that moves them: lse, algorithm1, algorithm2, row_max."""
    faces_md = None if given.gallery is None else tensor(config, problem.rows(given.gallery))
    space = Space(given.dim)
    if config.subspace is not None and faces_md is not None:
        basis_de = gallery.principal_directions(faces_md, config.subspace)
        space = Space(basis_de.shape[1], basis_de)
    if space.dim < 2:
        raise InputError(f"subspace = {config.subspace}: one direction holds that share; ask for a larger share")
    near = None
    if faces_md is not None:
        low, high = config.tau_lo, config.tau_hi
        band = None if low is None and high is None else (-1.0 if low is None else low, 1.0 if high is None else high)
        near = Gallery(space.inside(faces_md), config.alpha, config.gallery_refresh, band)
    begin = start_points(config, given, space)
    y_ne, numbers = MOVERS[config.solver](config, given, space, near, begin)
    columns: dict[str, np.ndarray] = {}
    x_nd = space.lifted(y_ne)
    ids, sources, seeds = packed_ids(config, given, len(x_nd))
    if given.keep is not None:
        x_nd = torch.cat([torch.from_numpy(embeddings(given.keep)).to(x_nd.dtype), x_nd])  # their very bits
        numbers["kept"] = given.keep.num_rows
    if faces_md is not None:
        cosine_n = energy.nearest_cosines(x_nd, faces_md, config.numerics.tile)[0]
        columns["gallery_cosine"] = cosine_n.float().numpy()
        numbers |= gallery_numbers(config, x_nd, faces_md, cosine_n)
    return outcome(config, given, ids, sources, seeds, x_nd, {"start": begin.name, **numbers}, columns)


def move_lse(
    config: PackConfig, given: Problem, space: Space, near: Gallery | None, begin: Start
) -> tuple[Tensor, dict[str, Any]]:
    """Log-sum-exp continuation; the start itself where that is already as good (a code, an optimum)."""
    kept = None if given.keep is None else space.inside(tensor(config, problem.rows(given.keep)))
    # with a gallery or kept rows, more than the moving rows' own cosines counts
    packed = begin.kind == "packed" and near is None and kept is None
    first = energy.max_cosine(begin.x_nd, config.numerics.tile) if packed else 1.0
    if packed and first <= bounds.best(len(begin.x_nd), space.dim) + 1e-6:
        return begin.x_nd, {"passes": 0, "stopped_by": "bound"}
    progress = Progress("pack", config.passes, "passes", interval=config.how.progress_seconds)
    solution = solver.solve(
        begin.x_nd,
        solver.default_schedule(space.dim, config.passes, begin.kind),
        gallery=near,
        fixed_md=kept,
        target_cosine=config.target_cosine,
        max_seconds=config.max_seconds,
        tile=config.numerics.tile,
        on_pass=lambda report: progress.advance(1, f"max cosine {report.largest:.4f}"),
    )
    x_nd = begin.x_nd if packed and first < solution.max_cosine else solution.x_nd
    return x_nd, {"passes": solution.passes, "stopped_by": solution.reason}


def move_baseline(
    config: PackConfig, given: Problem, space: Space, near: Gallery | None, begin: Start
) -> tuple[Tensor, dict[str, Any]]:
    """HyperFace's algorithms, and the per-row maximum."""
    progress = Progress("pack", config.passes, "steps", interval=config.how.progress_seconds)
    options: dict[str, Any] = {"gallery": near, "tile": config.numerics.tile}
    options["on_step"] = lambda step, largest: progress.advance(1, f"max cosine {largest:.4f}")
    if config.solver == "algorithm2":
        options |= {"batch": config.batch, "seed": config.seed}
    descend = {"algorithm1": baselines.algorithm1, "algorithm2": baselines.algorithm2, "row_max": baselines.row_max}
    descent = descend[config.solver](begin.x_nd, config.passes, config.learning_rate, **options)
    return descent.x_nd, {"passes": config.passes, "stopped_by": "passes", "learning_rate": config.learning_rate}


MOVERS: dict[str, Callable[..., tuple[Tensor, dict[str, Any]]]] = {
    "lse": move_lse,
    "algorithm1": move_baseline,
    "algorithm2": move_baseline,
    "row_max": move_baseline,
}


def pack_code(config: PackConfig, given: Problem) -> Outcome:
    """Rows of the best known code, turned by a keyed rotation."""
    code = codes.best_code(config.num_identities, given.dim)
    assert code is not None  # checked by problem.read
    index = codes.subset_index(code, config.num_identities, config.seed)
    x_nd = torch.from_numpy(codes.points(code, index, codes.rotation(given.dim, config.seed)))
    ids, sources, seeds = packed_ids(config, given, len(x_nd))
    numbers = {"code": code.name, "code_size": code.size, "code_max_cosine": code.max_cosine, "passes": 0}
    return outcome(config, given, ids, sources, seeds, x_nd, numbers, {})


def pack_subset(config: PackConfig, given: Problem) -> Outcome:
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
            f"were found with no pair above it, {config.num_identities} were asked; raise max_cosine, lower "
            "num_identities, or enlarge the pool (nothing was written)"
        )
    index_k = np.sort(chosen.index_k.numpy())
    part = given.pool.take(pa.array(index_k))
    names, sources, seeds = (part[c].to_pylist() for c in ("identity_id", "source", "seed"))
    numbers = {"passes": config.swap_passes, "pool_size": len(pool_nd)}
    x_kd = torch.from_numpy(embeddings(given.pool)[index_k])  # the pool's very bits
    return outcome(config, given, names, sources, seeds, x_kd, numbers, {})


SOLVERS: dict[str, Callable[[PackConfig, Problem], Outcome]] = {
    "subset": pack_subset,
    "code": pack_code,
    **dict.fromkeys(MOVERS, pack_points),
}


def start_points(config: PackConfig, given: Problem, space: Space) -> Start:
    """The points a solve starts from, in the space's coordinates."""
    n = config.num_identities - (0 if given.keep is None else given.keep.num_rows)
    if given.start is not None:
        return _start(config, space, problem.rows(given.start), "table")
    if given.gallery is not None and config.initial in ("auto", "gallery"):
        return _start(config, space, starts.gallery_start(problem.rows(given.gallery), n, config.seed), "gallery")
    code = codes.best_code(n, space.dim)
    plain = given.gallery is None and given.keep is None
    if code and (config.initial == "code" or (config.initial == "auto" and plain and starts.code_pays(code, n))):
        turn = codes.rotation(space.dim, config.seed)
        rows = codes.points(code, codes.subset_index(code, n, config.seed), turn)
        return Start(tensor(config, rows), "packed", code.name)
    random = starts.random_start(n, space.dim, config.seed)
    return Start(tensor(config, random), "isotropic", "random")


def _start(config: PackConfig, space: Space, x_nd: np.ndarray, name: str) -> Start:
    y_ne = space.inside(tensor(config, x_nd))
    y_ne = y_ne / y_ne.norm(dim=1, keepdim=True).clamp_(min=1e-12)
    largest = energy.max_cosine(y_ne, config.numerics.tile)
    if largest < 0.5 * bounds.iid_max_cosine(len(y_ne), space.dim):
        return Start(y_ne, "packed", name)
    if largest > 1.0 - starts.JITTER:  # rows that (nearly) coincide feel equal forces
        y_ne = tensor(config, starts.jittered(y_ne.numpy(), config.seed))
    return Start(y_ne, solver.kind_of_start(y_ne), name)


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


def gallery_numbers(config: PackConfig, x_nd: Tensor, faces_md: Tensor, cosine_n: Tensor) -> dict[str, Any]:
    """What a packing with a gallery states about staying near it."""
    far = float((1.0 - cosine_n.double()).mean())
    basis_de = gallery.principal_directions(faces_md, EXPLAINED)
    numbers: dict[str, Any] = {
        "alpha": config.alpha,
        "gallery_distance": far,
        "published_loss": gallery.published_loss(energy.max_cosine(x_nd), far, config.alpha),
        "energy_outside_subspace": gallery.energy_outside(x_nd, basis_de),
    }
    if config.tau_lo is not None or config.tau_hi is not None:
        low = -1.0 if config.tau_lo is None else config.tau_lo
        high = 1.0 if config.tau_hi is None else config.tau_hi
        outside_n = (cosine_n < low - 1e-4) | (cosine_n > high + 1e-4)
        numbers |= {
            "least_gallery_cosine": float(cosine_n.min()),
            "largest_gallery_cosine": float(cosine_n.max()),
            "outside_band": float(outside_n.double().mean()),
        }
    return numbers


def outcome(
    config: PackConfig,
    given: Problem,
    ids: list[str],
    sources: list[str],
    seeds: list[int],
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
    stated: dict[str, Any] = {
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
