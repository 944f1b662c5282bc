"""Value noise from one fixed table, for textures: cheap, tileable and the same everywhere."""

import functools

import numpy as np

from synface.core.rng import generator
from synface.models.heads.kernel import kernel

SIZE = 256


@functools.cache
def noise_table() -> np.ndarray:
    """Standard normal float32 [SIZE, SIZE]; every texture reads it at its own offset."""
    return generator("heads", "noise table").standard_normal((SIZE, SIZE), dtype=np.float32)


@kernel
def lattice(x):
    """Where x lies in the table: the cell before it, and the smooth weight of the cell after it."""
    before = np.floor(x)
    u = x - before
    return int(before) & 255, u * u * (3 - 2 * u)


@kernel
def between(table, i, u, j, v):
    """The table at column cell i with weight u and row cell j with weight v."""
    i1, j1 = (i + 1) & 255, (j + 1) & 255
    return (table[j, i] * (1 - u) + table[j, i1] * u) * (1 - v) + (table[j1, i] * (1 - u) + table[j1, i1] * u) * v


@kernel
def noise(table, x, y):
    """Smooth noise at (x, y), about unit variance at lattice points; period SIZE."""
    i, u = lattice(x)
    j, v = lattice(y)
    return between(table, i, u, j, v)


@kernel
def smoothstep(a, b, x):
    """0 below a, 1 above b, smooth between; a > b turns it round."""
    t = (x - a) / (b - a)
    t = min(1.0, max(0.0, t))
    return t * t * (3 - 2 * t)
