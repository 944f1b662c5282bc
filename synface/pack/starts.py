"""Where a packing starts: random points, rows of a gallery, or rows of a code."""

import numpy as np

from synface.core import rng, sphere
from synface.pack.codes import Code

JITTER = 1e-3
# (n / d, max cosine * sqrt(d)) that about 100 passes reach from random points; see docs/packing.md
SOLVED = [(2, 0.1), (3.9, 0.55), (9.4, 0.99), (15.6, 1.2), (19.5, 1.3), (31, 1.51), (39, 1.62), (78, 1.87), (300, 2.5)]


def random_start(n: int, d: int, seed: int) -> np.ndarray:
    """Keyed points uniform on the sphere, float32 [n, d]."""
    return sphere.uniform(rng.generator(seed, "pack", "start"), n, d)


def gallery_start(gallery_md: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Rows of the gallery in keyed order, none twice before all were taken, float32 [n, d].

    Each is moved by about `JITTER`: two equal rows would feel equal forces and stay together for ever.
    """
    rows = [rng.permutation(len(gallery_md), seed, "pack", "rows", r) for r in range(-(-n // len(gallery_md)))]
    return jittered(gallery_md[np.concatenate(rows)[:n]], seed)


def jittered(x_nd: np.ndarray, seed: int) -> np.ndarray:
    """Each row moved by a keyed Gaussian of norm about `JITTER` and renormalised, float32."""
    noise_nd = rng.generator(seed, "pack", "jitter").standard_normal(x_nd.shape)
    return sphere.normalize(x_nd + noise_nd * (JITTER / np.sqrt(x_nd.shape[1]))).astype(np.float32)


def code_pays(code: Code, n: int) -> bool:
    """Whether a solve from n rows of a code ends lower than one from random points.

    A solve from random points ends at about f(n/d) / sqrt(d) (measured, `SOLVED`); one from a code at the code
    itself: of shortened codes no better neighbour was found. A code that attains a bound of few points (simplex,
    cross-polytope) always pays.
    """
    if n <= 2 * code.dim:
        return True
    ratios, quality = zip(*SOLVED, strict=True)
    solved = float(np.interp(np.log(n / code.dim), np.log(ratios), quality)) / np.sqrt(code.dim)
    return code.max_cosine <= solved
