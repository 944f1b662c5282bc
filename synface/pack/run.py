"""`synface pack`: plan -> execute -> commit."""

from typing import Any

from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.pack import bounds, checkpoint, problem
from synface.pack.config import PackConfig
from synface.pack.drive import Place
from synface.pack.points import CURVE, MOVERS, planned_cost
from synface.pack.result import EXPLAINED
from synface.pack.shard import threads
from synface.pack.solvers import SOLVERS
from synface.store import artifact, cost
from synface.store import uri as uris
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
        "workers": config.how.workers,
        **(planned_cost(config, d) if config.solver == "lse" else {}),
        "memory_bytes": problem.memory_bytes(config, given),
        "estimate": estimate(config, d),
    }


def estimate(config: PackConfig, dim: int) -> dict[str, Any]:
    """Hours, requests and bytes of a fresh run without a gallery (`store.cost`): 3 n^2 d operations a pass."""
    n, numerics, how = config.num_identities, config.numerics, config.how
    gpu = numerics.device == "cuda"
    own = None if gpu or numerics.threads != 2 else cost.MEASURED_PACK_FLOPS
    rate = cost.rate_of(how.rate, own, "measured on two cores of a Xeon at 2.5 GHz, n = 4,096, d = 512")
    amount = 3 * n * n * dim * config.passes if config.solver in MOVERS else None
    traffic = cost.written(4 * n * dim)
    if config.solver == "lse":
        # rows and momentum, a part of each worker and the marker
        part = cost.written(-(-8 * n * dim // how.workers))
        saved = (config.passes - 1) // how.checkpoint_passes
        traffic += (part * how.workers + cost.Traffic(put=1)) * saved
    cpus = float(1 if gpu else how.cpus_per_worker or numerics.threads)
    return cost.estimate(amount, "operations", rate, cpus, float(gpu), traffic, workers=how.workers)


def run(config: PackConfig) -> dict[str, Any]:
    """Pack, write the identities table, and return its numbers; a finished one answers at once.

    A solve that was killed or stopped continues from its last checkpoint, on as many workers as are asked now.
    """
    given = problem.read(config)
    opened = artifact.open_output(config)
    if opened.finished is not None:
        return {"uri": config.output, "cached": True, "workers": config.how.workers, **opened.finished.numbers}
    place = Place(config.output, opened.config_hash, config.how.checkpoint_passes)
    with threads(config.numerics.threads):
        outcome = SOLVERS[config.solver](config, given, place)
    files = [write_identities(config.output, outcome.table)]
    artifact.commit(config, opened, "identities", files, outcome.numbers, versions())
    checkpoint.remove(config.output)
    uris.delete_file(uris.join(config.output, CURVE))
    warn_of_leaving(outcome.numbers)
    return {"uri": config.output, "cached": False, **outcome.facts, **outcome.numbers}


def warn_of_leaving(numbers: dict[str, Any]) -> None:
    """Say so where a packing left what a generator can render (measured: such identities come out more alike)."""
    outside = numbers.get("energy_outside_subspace", 0.0)
    if outside > 2 * (1 - EXPLAINED):
        say(
            f"pack: warning: {outside:.0%} of the points' energy lies outside the {numbers['effective_dimension']} "
            f"directions that hold {EXPLAINED:.0%} of the gallery's: a generator may not render that, and identities "
            f"far apart as asked may come out alike. Safer: --subspace {EXPLAINED}, --solver subset, or `synface "
            "closed-loop`; and judge by --verify-realised"
        )
