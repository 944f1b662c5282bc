"""What spot preemptions cost a run, by discrete events: overhead against the checkpoint interval.

``python benchmarks/preemption.py`` simulates a training whose nodes are preempted independently, each after an
exponential time, and a generation whose shards are made again; it draws ``docs/images/preemption.svg`` and writes
``benchmarks/results/preemption.json``. Rates and times are arguments: nobody has measured them on a cloud for
this project.

    python benchmarks/preemption.py --hours-per-preemption 24 --checkpoint 20 --restart 300 --work-hours 24
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from common import write_result
from synface.report.figures import SERIES

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "preemption.svg"
GPUS = (8, 32, 64)
INTERVALS = (60, 120, 240, 480, 960, 1920, 3840)


def simulate(work: float, interval: float, checkpoint: float, restart: float, mtbf: float, rng: Any) -> dict[str, Any]:
    """One run, event by event: work, checkpoints, preemptions, restarts; all in seconds.

    A preemption at any moment throws away what was done since the last whole checkpoint and begins a restart; one
    during a restart begins it again.

    Args:
        work: useful seconds in all.
        interval: useful seconds between two checkpoints; the last part may be shorter.
        checkpoint: seconds to write one.
        restart: seconds from a preemption until work goes on: a new node, its processes, the checkpoint read.
        mtbf: mean seconds between preemptions of any node of the group.
        rng: numpy generator.

    Returns:
        wall seconds; preemptions; seconds lost: work done twice, checkpoints written, restarts.
    """
    clock = done = repeated = written = restarting = 0.0
    preemptions = 0
    next_preemption = rng.exponential(mtbf)
    recovering = False
    while done < work:
        useful = 0.0 if recovering else min(interval, work - done)
        event = restart if recovering else useful + checkpoint
        if clock + event <= next_preemption:
            clock += event
            restarting += event if recovering else 0.0
            written += 0.0 if recovering else checkpoint
            done += useful
            recovering = False
            continue
        lost = next_preemption - clock
        restarting += lost if recovering else 0.0
        repeated += 0.0 if recovering else lost
        clock = next_preemption
        next_preemption = clock + rng.exponential(mtbf)
        preemptions += 1
        recovering = True
    return {
        "wall": clock, "preemptions": preemptions, "repeated": repeated, "checkpoints": written,
        "restarts": restarting,
    }  # fmt: skip


def expected_wall(work: float, interval: float, checkpoint: float, restart: float, mtbf: float) -> float:
    """Mean of `simulate` in closed form, for exponential times (Daly, FGCS 22, 2006).

    A part of s = interval + checkpoint seconds takes M e^(R / M) (e^(s / M) - 1) on average.
    """
    parts, rest = divmod(work, interval)
    lengths = [interval] * int(parts) + ([rest] if rest > 1e-9 else [])
    return mtbf * math.exp(restart / mtbf) * math.fsum(math.expm1((s + checkpoint) / mtbf) for s in lengths)


def young(checkpoint: float, mtbf: float) -> float:
    """Best interval to first order, sqrt(2 C M) (Young, CACM 17, 1974)."""
    return math.sqrt(2 * checkpoint * mtbf)


def daly(checkpoint: float, mtbf: float) -> float:
    """Best interval to higher order (Daly 2006); the mean time itself where C >= 2 M."""
    if checkpoint >= 2 * mtbf:
        return mtbf
    x = math.sqrt(checkpoint / (2 * mtbf))
    return math.sqrt(2 * checkpoint * mtbf) * (1 + x / 3 + x * x / 9) - checkpoint


def best_interval(checkpoint: float, mtbf: float) -> float:
    """Minimum of `expected_wall` per useful second, by ternary search; independent of the restart."""
    low, high = 1e-3 * checkpoint, 100 * (checkpoint + mtbf)
    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if _log_cost(a, checkpoint, mtbf) < _log_cost(b, checkpoint, mtbf) else (a, high)
    return (low + high) / 2


def _log_cost(interval: float, checkpoint: float, mtbf: float) -> float:
    """log((e^x - 1) / interval) with x = (interval + checkpoint) / mtbf, without overflow."""
    x = (interval + checkpoint) / mtbf
    return x + math.log(-math.expm1(-x)) - math.log(interval)


def measured(runs: int, seed: int, *given: float) -> dict[str, float]:
    """Mean overhead of simulated runs, its standard error, and the closed form."""
    rng = np.random.default_rng(seed)
    work = given[0]
    over = np.array([simulate(*given, rng)["wall"] / work - 1 for _ in range(runs)])
    return {
        "overhead": round(float(over.mean()), 5),
        "standard_error": round(float(over.std(ddof=1) / runs**0.5), 5),
        "closed_form": round(expected_wall(*given) / work - 1, 5),
    }


def table(args: argparse.Namespace) -> dict[str, Any]:
    """Overheads of a training for each number of GPUs and interval, and of generation for each shard length."""
    node = 3600 * args.hours_per_preemption
    work = 3600 * args.work_hours
    training = {}
    for gpus in GPUS:
        mtbf = node / gpus
        rows = {
            str(t): measured(args.runs, args.seed, work, t, args.checkpoint, args.restart, mtbf) for t in INTERVALS
        }
        best = {"young": young(args.checkpoint, mtbf), "daly": daly(args.checkpoint, mtbf)}
        best["minimum"] = best_interval(args.checkpoint, mtbf)
        training[str(gpus)] = {"intervals": rows, "best_interval": {k: round(v, 1) for k, v in best.items()}}
    # an actor works alone: its shard is what a checkpoint is to a training, and costs nothing more
    shards = {str(t): measured(args.runs, args.seed, work, t, 0.0, args.restart, node) for t in INTERVALS}
    return {
        "assumed": {
            "hours_per_preemption_of_a_node": args.hours_per_preemption,
            "checkpoint_seconds": args.checkpoint,
            "restart_seconds": args.restart,
            "work_hours": args.work_hours,
            "one_gpu_a_node": True,
        },
        "runs": args.runs,
        "seed": args.seed,
        "training": training,
        "generation_by_shard_seconds": shards,
    }


def draw(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Overhead against interval: lines are the closed form, points the simulated runs."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    work, smooth = 3600 * args.work_hours, np.geomspace(INTERVALS[0], INTERVALS[-1], 100)
    for gpus, colour in zip(GPUS, SERIES, strict=False):
        mtbf = 3600 * args.hours_per_preemption / gpus
        walls = [expected_wall(work, t, args.checkpoint, args.restart, mtbf) for t in smooth]
        axes.plot(smooth, [100 * (w / work - 1) for w in walls], color=colour, label=f"{gpus} GPUs")
        rows = found["training"][str(gpus)]["intervals"]
        means, errors = ([100 * rows[str(t)][k] for t in INTERVALS] for k in ("overhead", "standard_error"))
        axes.errorbar(INTERVALS, means, [2 * e for e in errors], fmt="o", color=colour, markersize=4)
        axes.axvline(daly(args.checkpoint, mtbf), color=colour, linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="seconds of work between checkpoints", ylabel="overhead, %")
    axes.set_title(
        f"One preemption per node in {args.hours_per_preemption:g} h, checkpoint {args.checkpoint:g} s, "
        f"restart {args.restart:g} s: all assumed",
        fontsize=10,
    )
    axes.grid(which="both", alpha=0.3)
    axes.legend(title="points: simulated; dotted: Daly's interval", fontsize=9)
    with mpl.rc_context({"svg.hashsalt": "preemption"}):
        figure.savefig(FIGURE, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours-per-preemption", type=float, default=24.0, help="of one node, mean")
    parser.add_argument("--checkpoint", type=float, default=20.0, help="seconds to write one")
    parser.add_argument("--restart", type=float, default=300.0, help="seconds from a preemption until work goes on")
    parser.add_argument("--work-hours", type=float, default=24.0, help="useful hours of the run")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if min(args.hours_per_preemption, args.work_hours) <= 0 or min(args.checkpoint, args.restart) < 0 or args.runs < 2:
        parser.error("hours must be positive, seconds not negative, and runs at least 2")
    found = table(args)
    draw(found, args)
    write_result("preemption", found)


if __name__ == "__main__":
    main()
