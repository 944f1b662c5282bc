"""Value noise from one fixed table, for textures: cheap, tileable and the same everywhere."""

import functools

import numba
import numpy as np

from synface.core.rng import generator

SIZE = 256


@functools.cache
def noise_table() -> np.ndarray:
    """Standard normal float32 [SIZE, SIZE]; every texture reads it at its own offset."""
    return generator("heads", "noise table").standard_normal((SIZE, SIZE), dtype=np.float32)


@numba.njit(cache=True, nogil=True)
def noise(table, x, y):
    """Smooth noise at (x, y), about unit variance at lattice points; period SIZE."""
    fx, fy = np.floor(x), np.floor(y)
    u, v = x - fx, y - fy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    i, j = int(fx) & 255, int(fy) & 255
    i1, j1 = (i + 1) & 255, (j + 1) & 255
    return (table[j, i] * (1 - u) + table[j, i1] * u) * (1 - v) + (table[j1, i] * (1 - u) + table[j1, i1] * u) * v


@numba.njit(cache=True, nogil=True)
def smoothstep(a, b, x):
    """0 below a, 1 above b, smooth between; a > b turns it round."""
    t = (x - a) / (b - a)
    t = min(1.0, max(0.0, t))
    return t * t * (3 - 2 * t)
