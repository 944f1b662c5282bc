"""Where a packing starts: random points, or rows of a gallery."""

import numpy as np

from synface.core import rng, sphere

JITTER = 1e-3


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
