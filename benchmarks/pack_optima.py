"""How often random starts reach exact optima (gap below 1e-3), with Wilson's interval, and the gap after a polish.

    python benchmarks/pack_optima.py --cases icosahedron,24-cell [--starts 256]

The starts are keyed by (seed, number): always the same. CPU seconds, one thread.
"""

import argparse
import math
import time

import torch

from common import write_result
from synface.pack import small

GOLDEN = (1 + math.sqrt(5)) / 4

#: name -> points, dimension, max cosine of the optimum (or best known), share of starts that must reach it
CASES = {
    "simplex": (9, 8, -1 / 8, 1.0),
    "cross-polytope": (32, 16, 0.0, 1.0),
    "icosahedron": (12, 3, 1 / math.sqrt(5), 1.0),
    "56-in-R7": (56, 7, 1 / 3, 1.0),
    "snub-cube": (24, 3, None, 0.95),
    "600-cell": (120, 4, GOLDEN, 0.6),
    "24-cell": (24, 4, 0.5, 0.2),
    "E8": (240, 8, 0.5, 0.25),
}


def snub_cube() -> float:
    """Max cosine of the snub cube's vertices: even permutations of (1, 1/t, t) with even signs and odd with odd,
    t the tribonacci constant.
    """
    t = (1 + math.cbrt(19 + 3 * math.sqrt(33)) + math.cbrt(19 - 3 * math.sqrt(33))) / 3
    a = (1.0, 1 / t, t)
    rows = []
    for order, parity in (
        ((0, 1, 2), 0),
        ((1, 2, 0), 0),
        ((2, 0, 1), 0),
        ((1, 0, 2), 1),
        ((0, 2, 1), 1),
        ((2, 1, 0), 1),
    ):
        for bits in range(8):
            if bin(bits).count("1") % 2 == parity:
                rows.append([a[k] * (-1 if bits >> i & 1 else 1) for i, k in enumerate(order)])
    x = torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)
    return float((x @ x.T).fill_diagonal_(-2).max())


def case(name: str, starts: int, passes: int, batch: int = 64) -> dict:
    n, d, optimum, wanted = CASES[name]
    optimum = snub_cube() if optimum is None else optimum
    began, found, best = time.process_time(), 0, None
    for first in range(0, starts, batch):
        part = small.recover(n, d, min(batch, starts - first), seed=first // batch, passes=passes)
        found += int((part.max_cosine_r - optimum < 1e-3).sum())
        at = int(part.max_cosine_r.argmin())
        if best is None or part.max_cosine_r[at] < small.largest(best):
            best = part.x_rnd[at]
    low, high = small.wilson(found, starts)
    polished = small.largest(small.polish(best)) - optimum
    return {
        "name": name,
        "points": n,
        "dim": d,
        "optimum": optimum,
        "starts": starts,
        "passes": passes,
        "found": found,
        "share": found / starts,
        "wilson_95": [low, high],
        "must_reach": wanted,
        "gap_after_polish": polished,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"comma list of {', '.join(CASES)}")
    parser.add_argument("--starts", type=int, default=256)
    parser.add_argument("--passes", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.cases.split(","):
        write_result(f"pack_optima_{name}", case(name, options.starts, options.passes))


if __name__ == "__main__":
    main()
