"""The leak search, every sample against every reference image over Ray, against the bare matrix product.

    python benchmarks/leakage.py                    # asked: at least 0.8 of the product's speed
    python benchmarks/leakage.py --rows 500000 --rounds 1    # the real size
    python benchmarks/leakage.py --rows 2000        # a try

The bare product has the search's tiles and type, and as many threads as the machine has cores; it keeps nothing of
what it computes. Rounds alternate, so that a slower machine slows both. At most `--bare-rows` rows are multiplied
bare; rates are compared.
"""

import argparse
import statistics
import time

import numpy as np
import psutil

from common import write_result
from synface.core.sphere import uniform
from synface.evaluate.distributed import nearest_reference
from synface.ops import cluster

DIM, TILE = 512, 2048


def bare(x_nd: np.ndarray, y_md: np.ndarray) -> float:
    """Seconds of the product alone, tile by tile."""
    start = time.perf_counter()
    for a in range(0, len(x_nd), TILE):
        for b in range(0, len(y_md), TILE):
            x_nd[a : a + TILE] @ y_md[b : b + TILE].T
    return time.perf_counter() - start


def largest_worker_gib() -> float:
    """Resident memory of the largest of Ray's workers, shared object store included."""
    workers = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::")]
    return max((p.memory_info().rss for p in workers), default=0) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32_768, help="samples, and as many reference images")
    parser.add_argument("--bare-rows", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    x, y = (uniform(np.random.default_rng(seed), args.rows, DIM) for seed in range(2))
    few = min(args.rows, args.bare_rows)
    cluster.connect()
    nearest_reference(x[:TILE], y[:TILE])  # workers are up
    bare(x[:TILE], y[:TILE])
    bare_rates, rates, largest = [], [], 0.0
    for _ in range(args.rounds):
        bare_rates.append(few**2 / bare(x[:few], y[:few]))
        start = time.perf_counter()
        cosine, index = nearest_reference(x, y)
        rates.append(args.rows**2 / (time.perf_counter() - start))
        largest = max(largest, largest_worker_gib())
    some = np.arange(0, args.rows, max(1, args.rows // 64))
    cos = x[some] @ y.T
    if not (np.array_equal(index[some], cos.argmax(1)) and np.allclose(cosine[some], cos.max(1), atol=1e-6)):
        raise AssertionError("the search did not find the nearest reference images")
    result = {
        "rows": args.rows,
        "dim": DIM,
        "bare_pairs_per_s": [round(r) for r in bare_rates],
        "search_pairs_per_s": [round(r) for r in rates],
        "ratio": round(statistics.median(r / b for r, b in zip(rates, bare_rates, strict=True)), 4),
        "largest_worker_gib": round(largest, 3),
    }
    write_result(f"leakage-{args.rows}", result)


if __name__ == "__main__":
    main()
