"""Rate and memory of a pass, and work to the quality of the published algorithms; CPU seconds, one thread.

    python benchmarks/pack_speed.py --rate 4096x512
    python benchmarks/pack_speed.py --memory 10000x512
    python benchmarks/pack_speed.py --work 2000x512 [--gallery] [--baselines algorithm1] [--steps 1000]

Ratios are of times measured in turns in one process. Results: benchmarks/results/pack_*.json.
"""

import argparse
import os
import statistics
import threading
import time

import psutil
import torch
from pack_quality import face_like

from common import write_result
from synface.pack import baselines, energy, gallery, solver, starts
from synface.pack.gallery import Gallery

PASS_UNITS = 3
RATES = (1e-2, 1e-3, 1e-4)


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
    """Points and four times as many gallery rows of one face-like manifold, alpha as published."""
    return face_like(n, d, 64, 1), Gallery(face_like(4 * n, d, 64, 2), 0.5)


def loss_of(x_nd: torch.Tensor, near: Gallery | None) -> tuple[float, ...]:
    """Max cosine, and the gallery distance where there is a gallery."""
    largest = energy.max_cosine(x_nd)
    return (largest,) if near is None else (largest, gallery.distance(near, x_nd))


def work_ratio(n: int, d: int, steps: int, with_gallery: bool, names: list[str]) -> dict:
    """Steps of each baseline (learning rate tuned) and passes of ours to the same quality, on every term.

    Work counts n^2 d operations: a step of Algorithm 1 and of the per-row maximum 1, of Algorithm 2 its batch's
    share, a pass of ours 3; gallery look-ups (equal for all, every tenth pass for ours) are not counted.
    """
    x_nd, near = gallery_of(n, d) if with_gallery else (torch.from_numpy(starts.random_start(n, d, 0)), None)
    batch = max(n // 4, 2)
    descents = {
        "algorithm1": (baselines.algorithm1, {}, 1.0),
        "algorithm2": (baselines.algorithm2, {"batch": batch, "seed": 0}, (batch / n) ** 2),
        "row_max": (baselines.row_max, {}, 1.0),
    }
    found = {}
    for name in names:
        descend, options, units = descents[name]
        tried = []
        for rate in RATES:
            began = time.process_time()
            reached = loss_of(descend(x_nd, steps, rate, gallery=near, **options).x_nd, near)
            objective = reached[0] + (0.5 * reached[1] if near else 0.0)
            tried.append({"objective": objective, "reached": reached, "learning_rate": rate})
            tried[-1]["cpu_seconds"] = time.process_time() - began
        best = min(tried, key=lambda t: t["objective"])
        found[name] = {**best, "tried": tried} | to_the_same(x_nd, near, best["reached"], steps * units)
    return {"case": f"work-{n}x{d}{'-gallery' if near else ''}", "steps": steps, "baselines": found}


def to_the_same(x_nd: torch.Tensor, near: Gallery | None, reached: tuple[float, ...], work: float) -> dict:
    """The shortest schedule of ours that is at least as good on every term, and how much less work that is."""
    d = x_nd.shape[1]
    kind = solver.kind_of_start(x_nd)
    for passes in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100, 150):
        began = time.process_time()
        ours = loss_of(solver.solve(x_nd, solver.default_schedule(d, passes, kind), gallery=near).x_nd, near)
        if all(a <= b for a, b in zip(ours, reached, strict=True)):
            seconds = time.process_time() - began
            return {
                "passes": passes,
                "ours": ours,
                "ours_cpu_seconds": seconds,
                "work_ratio": work / (PASS_UNITS * passes),
            }
    return {"passes": None, "work_ratio": None}


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [pass_rate(*options.rate, tile=options.tile)] if options.rate else []
    results += [peak_memory(*options.memory)] if options.memory else []
    if options.work:
        names = options.baselines.split(",")
        results.append(work_ratio(*options.work, options.steps, options.gallery, names))
    for result in results:
        write_result(f"pack_{result['case']}", result)


if __name__ == "__main__":
    main()
