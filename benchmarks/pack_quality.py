"""Max cosines that the packing reaches, case by case; results in benchmarks/results/pack_quality_<case>.json.

    python benchmarks/pack_quality.py --cases 2000x512,1000x64

Times are CPU seconds of this process (comparable on a busy machine), the solver single-threaded.
"""

import argparse
import math
import resource
import time

import numpy as np
import torch

from common import write_result
from synface.pack import bounds, codes, energy, gallery, solver, starts
from synface.pack.gallery import Gallery


def random_case(n: int, d: int, passes: int, seed: int = 0) -> dict:
    x_nd = torch.from_numpy(starts.random_start(n, d, seed))
    return measured(n, d, "random", x_nd, solver.default_schedule(d, passes))


def code_case(n: int, d: int, passes: int, seed: int = 0) -> dict:
    code = codes.best_code(n, d)
    assert code is not None
    rows = codes.points(code, codes.subset_index(code, n, seed), codes.rotation(d, seed))
    return measured(n, d, code.name, torch.from_numpy(rows), solver.default_schedule(d, passes, "packed"))


def measured(n: int, d: int, start: str, x_nd: torch.Tensor, schedule: solver.Schedule) -> dict:
    trace: list[float] = []
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    solution = solver.solve(x_nd, schedule, on_pass=lambda report: trace.append(report.largest))
    return {
        "case": f"{n}x{d}",
        "start": start,
        "passes": solution.passes,
        "start_max_cosine": trace[0],
        "max_cosine": solution.max_cosine,
        "bound": bounds.best(n, d),
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "mean_nearest_cosine": float(energy.nearest_cosines(solution.x_nd)[0].mean()),
        "cpu_seconds": time.process_time() - began,
        "peak_mb_above_start": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "max_cosine_at_pass": {k: trace[k] for k in (10, 20, 30, 40, 60, 100, 150) if k < len(trace)},
    }


def face_like(n: int, d: int, latent: int, seed: int) -> torch.Tensor:
    """Unit rows on a curved `latent`-dimensional manifold: sin of a random linear map of Gaussians, mapped to R^d."""
    maps = torch.Generator().manual_seed(12345)
    first = torch.randn(latent, 256, generator=maps) / math.sqrt(latent)
    second = torch.randn(256, d, generator=maps)
    z_nl = torch.randn(n, latent, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(torch.sin(z_nl @ first) @ second, dim=1)


def gallery_case(
    passes: int, alpha: float, seed: int, band: tuple[float, float] | None = None, start: str = "manifold"
) -> dict:
    """2,000 points from a manifold of 64 dimensions in R^512, kept near 8,000 gallery points of the same manifold.

    They start as points of the manifold, as they are or `whitened`, or, as `synface pack` does, each from a gallery
    row of its own (`rows`; those that share a row stay close under a band). The loss that is stated has the published
    alpha = 0.5, whatever the solve's own.
    """
    n, d = 2000, 512
    near = Gallery(face_like(8000, d, 64, 2 * seed + 2), alpha, band=band)
    x_nd = face_like(n, d, 64, 2 * seed + 1)
    if start == "rows":
        x_nd = torch.from_numpy(starts.gallery_start(near.rows_md.numpy(), n, seed))
    began = time.process_time()
    first = (energy.max_cosine(x_nd), gallery.distance(near, x_nd))
    if start == "whitened":
        x_nd = gallery.whitened(x_nd, near.rows_md)
    solution = solver.solve(x_nd, solver.default_schedule(d, passes, "manifold"), gallery=near)
    far = gallery.distance(near, solution.x_nd)
    return {
        "case": "gallery-2000x512",
        "alpha": alpha,
        "band": band,
        "start_points": start,
        "seed": seed,
        "passes": passes,
        "start": {"max_cosine": first[0], "gallery_distance": first[1]},
        "max_cosine": solution.max_cosine,
        "gallery_distance": far,
        "published_loss": gallery.published_loss(solution.max_cosine, far, 0.5),
        "cpu_seconds": time.process_time() - began,
    }


def trade_off_case(passes: int = 200, seed: int = 0) -> dict:
    """Max cosine against gallery distance: over alpha without a band, and over tau_lo with the band alone."""
    curve = [gallery_case(passes, alpha, seed, start="rows") for alpha in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)]
    banded = [gallery_case(passes, 0.0, seed, (low, 0.97), "rows") for low in (0.6, 0.7, 0.8, 0.85, 0.9)]
    return {"case": "trade-off-2000x512", "over_alpha": curve, "over_tau_lo": banded}


def exact_code_case(n: int, d: int, rows: int | None = None) -> dict:
    """N points of a code, tile by tile: every pair, or `rows` of them against all the others."""
    code = codes.best_code(n, d)
    assert code is not None
    index = codes.subset_index(code, n, 0)
    began, largest = time.process_time(), -2.0
    if rows is None:
        largest = energy.max_cosine(torch.from_numpy(codes.points(code, index)))
        return code_result(n, d, code, n, largest, time.process_time() - began)
    probe = np.sort(np.random.default_rng(0).choice(n, rows, replace=False))
    x_rd = torch.from_numpy(codes.points(code, index[probe]))
    for a in range(0, n, 8192):
        cos_rb = x_rd @ torch.from_numpy(codes.points(code, index[a : a + 8192])).T
        at = np.flatnonzero((probe >= a) & (probe < a + 8192))
        cos_rb[at, probe[at] - a] = -2.0
        largest = max(largest, float(cos_rb.max()))
    return code_result(n, d, code, rows, largest, time.process_time() - began)


def code_result(n: int, d: int, code: codes.Code, rows: int, largest: float, seconds: float) -> dict:
    return {
        "case": f"code-{n}x{d}",
        "code": code.name,
        "size": code.size,
        "rows_checked": rows,
        "max_cosine": largest,
        "stated": code.max_cosine,
        "bound": bounds.best(n, d),
        "cpu_seconds": seconds,
    }


CASES = {
    "1000x64": lambda: random_case(1000, 64, 320),
    "1000x64-code": lambda: code_case(1000, 64, 100),
    "2000x128": lambda: random_case(2000, 128, 200),
    "2000x128-code": lambda: code_case(2000, 128, 100),
    "2000x512": lambda: random_case(2000, 512, 60),
    "2000x512-long": lambda: random_case(2000, 512, 200),
    "10000x512": lambda: random_case(10_000, 512, 60),
    "10000x512-long": lambda: random_case(10_000, 512, 200),
    "10000x128-code": lambda: code_case(10_000, 128, 60),
    "10000x256-code": lambda: exact_code_case(10_000, 256),
    "10000x512-code": lambda: exact_code_case(10_000, 512),
    "30000x512-code": lambda: exact_code_case(30_000, 512),
    "50000x512-code": lambda: exact_code_case(50_000, 512),
    "525312x512-code": lambda: exact_code_case(525_312, 512, rows=512),
    "1000000x512-code": lambda: exact_code_case(1_000_000, 512, rows=512),
    "gallery": lambda: gallery_case(200, 0.5, 0),
    **{f"gallery-{s}": lambda s=s: gallery_case(400, 0.5, s, start="whitened") for s in range(3)},
    **{f"gallery-nearer-{s}": lambda s=s: gallery_case(400, 0.62, s, start="whitened") for s in range(3)},
    **{f"gallery-rows-{s}": lambda s=s: gallery_case(400, 0.5, s, start="rows") for s in range(3)},
    "trade-off": trade_off_case,
    **{f"gallery-band-{s}": lambda s=s: gallery_case(400, 0.0, s, (0.8245, 0.97), "rows") for s in range(3)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="1000x64,2000x512", help=f"comma list of {', '.join(CASES)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.cases.split(","):
        write_result(f"pack_quality_{name}", {"name": name, **CASES[name]()})


if __name__ == "__main__":
    main()
