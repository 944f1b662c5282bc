"""Rate and memory of a pass, and work to the quality of the published algorithms; CPU seconds, one thread.

    python benchmarks/pack_speed.py --rate 4096x512
    python benchmarks/pack_speed.py --memory 10000x512
    python benchmarks/pack_speed.py --work 2000x512 [--gallery]
    python benchmarks/pack_speed.py --work 10000x512 --tuning 100
    python benchmarks/pack_speed.py --long 10000x512 --steps 30000 [--gallery]    # Algorithm 1, after --work

Ratios are of times measured in turns in one process. Results: benchmarks/results/pack_*.json.
"""

import argparse
import json
import os
import statistics
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from pack_quality import face_like

from common import write_result
from synface.pack import baselines, energy, gallery, solver, starts
from synface.pack.gallery import Gallery

PASS_UNITS = 3
RATES = (1e-2, 1e-3, 1e-4)
RESULTS = Path(__file__).parent / "results"


def pass_rate(n: int, d: int, tile: int = energy.TILE, rounds: int = 12) -> dict:
    """CPU seconds of the products of a pass alone (a Gram tile and two products back), over those of a pass.

    Two ratios of interleaved rounds: of the medians of each, and of the quickest (other processes only slow down).
    """
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    cos_ab, out_ad, pull_nd = torch.empty(tile, tile), torch.empty(tile, d), torch.zeros(n, d)

    def products() -> None:
        for a in range(0, n - tile + 1, tile):
            for b in range(a, n - tile + 1, tile):
                x_ad, y_bd = x_nd[a : a + tile], x_nd[b : b + tile]
                torch.mm(x_ad, y_bd.T, out=cos_ab)
                torch.mm(cos_ab, y_bd, out=out_ad)
                if a != b:
                    torch.mm(cos_ab.T, x_ad, out=out_ad)

    def whole() -> None:
        energy.block_energy(x_nd, sharpness=40.0, shift=0.3, tile=tile, pull_nd=pull_nd)

    plain, ours = [], []
    with energy.flushed_denormals():
        for _ in range(rounds):
            for function, seconds in ((products, plain), (whole, ours)):
                began = time.process_time()
                function()
                seconds.append(time.process_time() - began)
    return {
        "case": f"rate-{n}x{d}",
        "tile": tile,
        "rounds": rounds,
        "products_s": min(plain),
        "pass_s": min(ours),
        "rate_of_quickest": min(plain) / min(ours),
        "rate_of_medians": statistics.median(plain) / statistics.median(ours),
        "load_average": os.getloadavg()[0],
    }


def peak_memory(n: int, d: int, passes: int = 2) -> dict:
    """Peak resident memory of a solve above that of the interpreter with torch and the first rows, in MB (10^6)."""
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    energy.block_energy(x_nd[:2048].clone(), sharpness=40.0, shift=0.3)  # what the products' library keeps for itself
    process = psutil.Process()
    before = process.memory_info().rss
    peak = Peak(process)
    with peak:
        solver.solve(x_nd, solver.default_schedule(d, passes))
    above = (peak.bytes - before) / 1e6
    return {
        "case": f"memory-{n}x{d}",
        "peak_mb_above_start": above,
        "bound_mb": (16 * n * d + 16 * energy.TILE**2) / 1e6,
    }


class Peak(threading.Thread):
    """The largest resident memory seen while the block runs, looked at every 2 ms."""

    def __init__(self, process: psutil.Process):
        super().__init__(daemon=True)
        self.process, self.bytes, self.over = process, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.bytes = max(self.bytes, self.process.memory_info().rss)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def gallery_of(n: int, d: int) -> tuple[torch.Tensor, Gallery]:
    """Points and four times as many gallery rows of one face-like manifold, alpha as published.

    The points start as rows of the gallery, as HyperFace's and those of `synface pack` do.
    """
    rows_md = face_like(4 * n, d, 64, 2)
    return torch.from_numpy(starts.gallery_start(rows_md.numpy(), n, 0)), Gallery(rows_md, 0.5)


def loss_of(x_nd: torch.Tensor, near: Gallery | None) -> tuple[float, ...]:
    """Max cosine, and the gallery distance where there is a gallery."""
    largest = energy.max_cosine(x_nd)
    return (largest,) if near is None else (largest, gallery.distance(near, x_nd))


@dataclass(frozen=True)
class Work:
    """What is compared: the start, the gallery, steps of the baselines, and of their tuning."""

    x_nd: torch.Tensor
    near: Gallery | None
    steps: int
    tuning: int

    def descend(self, name: str, steps: int, rate: float, **more: Any) -> torch.Tensor:
        """The rows after so many steps of a baseline."""
        options = {"batch": self.batch, "seed": 0} if name == "algorithm2" else {"refresh": 10}
        return getattr(baselines, name)(self.x_nd, steps, rate, gallery=self.near, **options, **more).x_nd

    @property
    def batch(self) -> int:
        return max(len(self.x_nd) // 4, 2)

    def units(self, name: str) -> float:
        """n^2 d operations of a step."""
        return (self.batch / len(self.x_nd)) ** 2 if name == "algorithm2" else 1.0

    def objective(self, reached: tuple[float, ...]) -> float:
        """The published loss, but for a constant."""
        return reached[0] + (0.5 * reached[1] if self.near else 0.0)


def work_ratio(n: int, d: int, work: Work, names: list[str]) -> dict:
    """The quality Q that the best of the baselines reaches in its steps, each learning rate tuned; the work of ours to
    Q, on every term; and the work of each baseline to Q, or so much without reaching it.

    Work counts n^2 d operations: a step of Algorithm 1 and of the per-row maximum 1, of Algorithm 2 its batch's share,
    a pass of ours 3; gallery look-ups, in every tenth step or pass of all but Algorithm 2, are not counted.
    """
    found = {}
    for name in names:
        began = time.process_time()
        tried = {r: loss_of(work.descend(name, work.tuning, r), work.near) for r in RATES}
        rate = min(tried, key=lambda r: work.objective(tried[r]))
        reached = tried[rate]
        if work.tuning < work.steps:
            reached = loss_of(work.descend(name, work.steps, rate), work.near)
        found[name] = {"learning_rate": rate, "tried": tried, "steps": work.steps, "reached": reached}
        found[name]["cpu_seconds"] = time.process_time() - began
        print(name, found[name], flush=True)
    best = min(found, key=lambda name: work.objective(found[name]["reached"]))
    quality = found[best]["reached"]
    ours = to_the_same(work, quality)
    for name, one in found.items():
        one["work"] = one["steps"] * work.units(name)
        one["at_quality"] = all(a <= b for a, b in zip(one["reached"], quality, strict=True))
        if ours["passes"]:
            one["ratio_or_more"] = one["work"] / (PASS_UNITS * ours["passes"])
    return {"case": work_name(n, d, work.near), "best": best, "ours": ours, "baselines": found}


def long_descent(n: int, d: int, work: Work, rate: float) -> dict:
    """Algorithm 1 for longer: the step at which it reaches the quality that `work_ratio` wrote, else all its steps."""
    case = work_name(n, d, work.near)
    written = json.loads((RESULTS / f"pack_{case}.json").read_text())
    quality = tuple(written["baselines"][written["best"]]["reached"])
    first, began, curve = [], time.process_time(), {}

    def look(step: int, largest: float) -> None:
        if largest <= quality[0] and not first:
            first.append(step)
        if step % (work.steps // 20 or 1) == 0:
            curve[step] = round(largest, 5)
            print(f"algorithm1 {step} {largest:.4f} {time.process_time() - began:.0f} CPU s", flush=True)

    reached = loss_of(work.descend("algorithm1", work.steps, rate, on_step=look), work.near)
    steps = first[0] if first else work.steps
    return {
        "case": f"{case}-long",
        "learning_rate": rate,
        "steps": steps,
        "quality": quality,
        "reached": reached,
        "at_quality": bool(first),
        "max_cosine_at_step": curve,
        "ratio_or_more": steps / (PASS_UNITS * written["ours"]["passes"]),
        "cpu_seconds": time.process_time() - began,
    }


def work_name(n: int, d: int, near: Gallery | None) -> str:
    return f"work-{n}x{d}{'-gallery' if near else ''}"


def to_the_same(work: Work, quality: tuple[float, ...]) -> dict:
    """The shortest schedule of ours that is at least as good on every term.

    Near a gallery with the published alpha or with less, which moves the end along the curve of the two terms.
    """
    d, kind = work.x_nd.shape[1], solver.kind_of_start(work.x_nd)
    galleries = [None] if work.near is None else [replace(work.near, alpha=a) for a in (0.5, 0.35)]
    for passes in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 25, 30, 40, 60, 100, 150):
        for near in galleries:
            began = time.process_time()
            solution = solver.solve(work.x_nd, solver.default_schedule(d, passes, kind), gallery=near)
            reached = loss_of(solution.x_nd, near)
            print(f"ours {passes} {reached} of {quality}", flush=True)
            if all(a <= b for a, b in zip(reached, quality, strict=True)):
                own = {} if near is None else {"alpha": near.alpha}
                return {"passes": passes, "reached": reached, "cpu_seconds": time.process_time() - began, **own}
    return {"passes": None}


def size(text: str) -> tuple[int, int]:
    n, d = text.split("x")
    return int(n), int(d)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=size, help="n x d, e.g. 4096x512")
    parser.add_argument("--tile", type=int, default=energy.TILE, help="edge of a Gram tile, for --rate")
    parser.add_argument("--memory", type=size, help="n x d, e.g. 10000x512")
    parser.add_argument("--work", type=size, help="n x d, e.g. 2000x512")
    parser.add_argument("--gallery", action="store_true", help="--work with the published gallery term")
    parser.add_argument("--baselines", default="algorithm1,algorithm2,row_max", help="of --work, a comma list")
    parser.add_argument("--steps", type=int, default=1000, help="of the baselines")
    parser.add_argument("--tuning", type=int, help="steps for which their learning rates are tried; default: all")
    parser.add_argument("--long", type=size, help="n x d, e.g. 2000x512, after --work")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of --long: larger ones end higher")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [pass_rate(*options.rate, tile=options.tile)] if options.rate else []
    results += [peak_memory(*options.memory)] if options.memory else []
    if options.work or options.long:
        n, d = options.work or options.long
        x_nd, near = gallery_of(n, d) if options.gallery else (torch.from_numpy(starts.random_start(n, d, 0)), None)
        work = Work(x_nd, near, options.steps, options.tuning or options.steps)
        if options.work:
            results.append(work_ratio(n, d, work, options.baselines.split(",")))
        else:
            results.append(long_descent(n, d, work, options.learning_rate))
    for result in results:
        write_result(f"pack_{result['case']}", result)


if __name__ == "__main__":
    main()
