"""Solvers that move points: the log-sum-exp continuation on any number of workers, and the published algorithms."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synface.ops.progress import Progress
from synface.pack import baselines, bounds, distributed, drive, energy, problem, result, solver
from synface.pack.config import ITEM_BYTES, PackConfig
from synface.pack.drive import Crew, Driven, LocalCrew, Place
from synface.pack.exchange import cost
from synface.pack.gallery import Gallery
from synface.pack.problem import Problem
from synface.pack.result import Outcome
from synface.pack.solver import Task
from synface.pack.spaces import Space, Start, space_of, start_points, tensor
from synface.store import uri as uris
from synface.store.schemas import embeddings

#: finished points of the trade-off curve, kept until the packing is
CURVE = "_synface/trade_off.json"


def pack_points(config: PackConfig, given: Problem, place: Place) -> Outcome:
    """Points of a solver that moves them: lse, algorithm1, algorithm2, row_max."""
    faces_md = None if given.gallery is None else tensor(config, problem.rows(given.gallery))
    space = space_of(config, given.dim, faces_md)
    near = None
    if faces_md is not None:
        near = Gallery(space.inside(faces_md), config.alpha, config.gallery_refresh, given.band)
    begin = start_points(config, given, space, None if near is None else near.rows_md)
    if config.solver != "lse":
        y_ne, numbers = move_baseline(config, near, begin)
        return _outcome(config, given, space, faces_md, y_ne, {"start": begin.name, **numbers}, {}, None)
    kept_me = None if given.keep is None else space.inside(tensor(config, problem.rows(given.keep)))
    task = Task(
        solver.default_schedule(space.dim, config.passes, begin.kind),
        near,
        kept_me,
        config.target_cosine,
        config.max_seconds,
        config.numerics.tile,
        config.numerics.early,
    )
    curve = [_trade_off(config, given, space, task, begin, place, a) for a in config.trade_off]
    with open_crew(config, task, len(begin.x_nd)) as crew:
        driven, y_ne = move_lse(config, task, crew, space, begin, place)
        numbers = {"start": begin.name, "passes": driven.passes, "stopped_by": driven.reason}
        if curve:
            numbers["trade_off"] = curve
        facts = {
            "workers": crew.workers,
            "work": {
                "flops_per_worker_pass": 6 * space.dim * driven.pairs_per_pass,
                "bytes_per_worker_pass": ITEM_BYTES[config.numerics.dtype] * driven.floats_per_pass,
                "replaced_workers": driven.replaced,
                "resumed_at_pass": driven.resumed_at,
            },
        }
        return _outcome(config, given, space, faces_md, y_ne, numbers, facts, crew)


@contextlib.contextmanager
def open_crew(config: PackConfig, task: Task, rows: int) -> Iterator[Crew]:
    """Who computes a task: this process, or Ray actors."""
    several = config.how.workers > 1
    crew = distributed.RayCrew(config, task, rows) if several else LocalCrew(task, config.numerics.device)
    try:
        yield crew
    finally:
        crew.close()


def move_lse(
    config: PackConfig, task: Task, crew: Crew, space: Space, begin: Start, place: Place
) -> tuple[Driven, Tensor]:
    """Log-sum-exp continuation; the start itself where that is already as good (an optimum, an earlier packing).

    A code that `initial auto` chose is taken as it is: no solve was seen to get below one (`docs/packing.md`).
    """
    # with a gallery or kept rows, more than the moving rows' own cosines counts
    packed = begin.kind == "packed" and task.gallery is None and task.fixed_md is None
    enough = bounds.best(len(begin.x_nd), space.dim) + 1e-6 if packed else -2.0
    if packed and begin.code and config.initial == "auto":
        enough = 2.0 if config.target_cosine is None else config.target_cosine
    how = config.how
    driven = drive.drive(
        crew,
        begin.x_nd,
        config.passes,
        place,
        enough=enough,
        progress_seconds=how.progress_seconds,
        restarts=how.restarts,
    )
    return driven, begin.x_nd if packed and driven.first < driven.largest else driven.x_nd


def _trade_off(
    config: PackConfig, given: Problem, space: Space, task: Task, begin: Start, place: Place, alpha: float
) -> dict[str, float]:
    """A point of the curve max cosine against gallery distance: the same task with another weight alpha."""
    assert task.gallery is not None and given.gallery is not None
    name = f"{place.config_hash} alpha {alpha!r}"
    kept = {} if place.output is None else _curve_so_far(place.output)
    if name in kept:
        return kept[name]
    task = replace(task, gallery=replace(task.gallery, alpha=alpha))
    own = replace(place, config_hash=name)
    with open_crew(config, task, len(begin.x_nd)) as crew:
        _, y_ne = move_lse(config, task, crew, space, begin, own)
        x_nd = _with_kept(given, space.lifted(y_ne)).float()
        faces_md = torch.from_numpy(problem.rows(given.gallery))
        far = float((1.0 - drive.measure(crew, x_nd, faces_md).double()).mean())
        point = {"alpha": alpha, "max_cosine": float(drive.measure(crew, x_nd).max()), "gallery_distance": far}
    if place.output is not None:
        text = json.dumps({**kept, name: point})
        uris.write_bytes(uris.join(place.output, CURVE), text.encode())
    return point


def _curve_so_far(output: str) -> dict[str, dict[str, float]]:
    place = uris.join(output, CURVE)
    try:
        return json.loads(uris.read_bytes(place)) if uris.exists(place) else {}
    except ValueError:
        return {}


def _with_kept(given: Problem, x_nd: Tensor) -> Tensor:
    """The kept rows, in their very bits, before the new ones."""
    return x_nd if given.keep is None else torch.cat([torch.from_numpy(embeddings(given.keep)).to(x_nd.dtype), x_nd])


def _outcome(
    config: PackConfig,
    given: Problem,
    space: Space,
    faces_md: Tensor | None,
    y_ne: Tensor,
    numbers: dict[str, Any],
    facts: dict[str, Any],
    crew: Crew | None,
) -> Outcome:
    """Lifted, measured (by the crew, where there is one) and named."""
    x_nd = space.lifted(y_ne)
    ids, sources, seeds = result.packed_ids(config, given, len(x_nd))
    x_nd = _with_kept(given, x_nd)
    columns: dict[str, np.ndarray] = {}
    if given.keep is not None:
        numbers["kept"] = given.keep.num_rows
    if faces_md is not None:
        tile = config.numerics.tile
        nearer = (
            energy.nearest_cosines(x_nd, faces_md, tile)[0] if crew is None else drive.measure(crew, x_nd, faces_md)
        )
        columns["gallery_cosine"] = nearer.float().numpy()
        numbers |= result.gallery_numbers(config, given.band, x_nd, faces_md, nearer)
    nearest = None if crew is None else lambda rows_nd: drive.measure(crew, rows_nd)
    return result.outcome(config, given, ids, sources, seeds, x_nd, numbers, columns, nearest, facts)


def move_baseline(config: PackConfig, near: Gallery | None, begin: Start) -> tuple[Tensor, dict[str, Any]]:
    """HyperFace's algorithms, and the per-row maximum."""
    progress = Progress("pack", config.passes, "steps", interval=config.how.progress_seconds)
    options: dict[str, Any] = {"gallery": near, "tile": config.numerics.tile}
    options["on_step"] = lambda step, largest: progress.advance_or_stop(1, f"max cosine {largest:.4f}")
    if config.solver == "algorithm2":
        options |= {"batch": config.batch, "seed": config.seed}
    descend = {"algorithm1": baselines.algorithm1, "algorithm2": baselines.algorithm2, "row_max": baselines.row_max}
    descent = descend[config.solver](begin.x_nd, config.passes, config.learning_rate, **options)
    return descent.x_nd, {"passes": config.passes, "stopped_by": "passes", "learning_rate": config.learning_rate}


MOVERS = ("lse", "algorithm1", "algorithm2", "row_max")


def planned_cost(config: PackConfig, dim: int) -> dict[str, int]:
    """What a pass costs the busiest worker, before any is made."""
    found = cost(config.num_identities, dim, config.how.workers)
    item = ITEM_BYTES[config.numerics.dtype]
    return {"flops_per_worker_pass": 6 * dim * found.pairs, "bytes_per_worker_pass": item * found.floats}
