"""Rate of a pass against plain matrix products, and work to the quality of the published algorithms.

    python benchmarks/pack_speed.py --rate 4000x512 --work 1000x256 [--output pack_speed.json]

Ratios of CPU times measured in turns in one process, one thread. Work is counted in units of n^2 d operations: a
pass of the log-sum-exp solver is 3, a (tiled, symmetric) step of Algorithm 1 and of the per-row maximum 1.
"""

import argparse
import statistics
import time

import torch

from common import print_line
from synface.pack import baselines, energy, solver, starts

PASS_UNITS = 3
RATES = (1e-2, 1e-3, 1e-4)


def pass_rate(n: int, d: int, tile: int = energy.TILE, rounds: int = 3) -> dict:
    """CPU seconds of the products of a pass alone (a Gram tile and two products back), over those of a pass."""
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    cos_ab, out_ad = torch.empty(tile, tile), torch.empty(tile, d)

    def products() -> None:
        for a in range(0, n - tile + 1, tile):
            for b in range(a, n - tile + 1, tile):
                x_ad, y_bd = x_nd[a : a + tile], x_nd[b : b + tile]
                torch.mm(x_ad, y_bd.T, out=cos_ab)
                torch.mm(cos_ab, y_bd, out=out_ad)
                if a != b:
                    torch.mm(cos_ab.T, x_ad, out=out_ad)

    def whole() -> None:
        energy.block_energy(x_nd, sharpness=40.0, shift=0.3, tile=tile)

    plain, ours = [], []
    with energy.flushed_denormals():
        for _ in range(rounds):
            for function, seconds in ((products, plain), (whole, ours)):
                began = time.process_time()
                function()
                seconds.append(time.process_time() - began)
    ratio = statistics.median(p / o for p, o in zip(plain, ours, strict=True))
    return {"case": f"rate-{n}x{d}", "tile": tile, "products_s": min(plain), "pass_s": min(ours), "rate": ratio}


def work_ratio(n: int, d: int, steps: int = 1000) -> dict:
    """Steps of each baseline (learning rate tuned) and passes of ours to the best quality of any baseline."""
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    found = {}
    for name, descend in (
        ("algorithm1", baselines.algorithm1),
        ("algorithm2", lambda x, s, r: baselines.algorithm2(x, s, r, batch=max(n // 4, 2), seed=0)),
        ("row_max", baselines.row_max),
    ):
        tuned = []
        for rate in RATES:
            began = time.process_time()
            cosine = descend(x_nd, steps, rate).max_cosine
            tuned.append((cosine, rate, time.process_time() - began))
        best = min(tuned)
        found[name] = {"max_cosine": best[0], "learning_rate": best[1], "cpu_seconds": best[2], "tried": tuned}
    passes = {}
    for name, result in found.items():
        for count in (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100):
            began = time.process_time()
            solution = solver.solve(x_nd, solver.default_schedule(d, count), target_cosine=result["max_cosine"])
            if solution.max_cosine <= result["max_cosine"]:
                passes[name] = {
                    "passes": solution.passes,
                    "cpu_seconds": time.process_time() - began,
                    "work_ratio": steps / (PASS_UNITS * max(solution.passes, 1)),
                }
                break
    return {"case": f"work-{n}x{d}", "steps": steps, "baselines": found, "ours_to_the_same": passes}


def size(text: str) -> tuple[int, int]:
    n, d = text.split("x")
    return int(n), int(d)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=size, help="n x d, e.g. 4000x512")
    parser.add_argument("--work", type=size, help="n x d, e.g. 1000x256")
    parser.add_argument("--output", default="", help="JSON lines are appended to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [pass_rate(*options.rate)] if options.rate else []
    results += [work_ratio(*options.work)] if options.work else []
    for result in results:
        print_line(result, options.output)


if __name__ == "__main__":
    main()
