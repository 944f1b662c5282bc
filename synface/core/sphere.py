"""Geometry of the unit hypersphere. Arrays are [n, d] float32 or float64 with rows of unit norm."""

import numpy as np


def normalize(x_nd: np.ndarray) -> np.ndarray:
    """Rows scaled to unit Euclidean norm. ValueError for a zero or non-finite row."""
    norm_n = np.linalg.norm(x_nd, axis=-1, keepdims=True)
    bad = ~(np.isfinite(norm_n) & (norm_n > 0))
    if bad.any():
        raise ValueError(f"row {int(np.flatnonzero(bad.ravel())[0])} has norm 0 or is not finite")
    return x_nd / norm_n


def uniform(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """N points uniform on the sphere in R^d, float32 [n, d] (a normalised Gaussian)."""
    return normalize(rng.standard_normal((n, d))).astype(np.float32)


def nearest_cosine(
    x_nd: np.ndarray, y_md: np.ndarray | None = None, tile: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of x the largest cosine to a row of y, and its index; memory O(n + tile**2).

    Without y: to another row of x itself (the diagonal excluded). Returns float32 [n], int64 [n].
    """
    other = x_nd if y_md is None else y_md
    best = np.full(len(x_nd), -np.inf, np.float32)
    index = np.zeros(len(x_nd), np.int64)
    for a in range(0, len(x_nd), tile):
        rows = x_nd[a : a + tile]
        for b in range(0, len(other), tile):
            cos = rows @ other[b : b + tile].T
            if y_md is None and a == b:
                np.fill_diagonal(cos, -np.inf)
            arg = cos.argmax(1)
            value = cos[np.arange(len(rows)), arg]
            better = value > best[a : a + tile]
            best[a : a + tile][better] = value[better]
            index[a : a + tile][better] = arg[better] + b
    return best, index


def effective_dimension(x_nd: np.ndarray, explained: float = 0.9) -> int:
    """How many principal directions of the (uncentred) rows hold `explained` of their energy."""
    energy = np.linalg.eigvalsh(x_nd.T.astype(np.float64) @ x_nd)[::-1]
    return int(np.searchsorted(np.cumsum(energy) / energy.sum(), explained) + 1)


def unique_rows(x_nd: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy choice of rows whose pairwise cosines all stay below `threshold`: ascending row numbers, int64 [k].

    CemiFace filters its inquiry images so (pairwise below 0.3 by its recognizer; arXiv 2409.18876, section 4). Row
    0 is kept, each later row if it is below the threshold to every row kept before it. Cost n k d.
    """
    kept_kd = np.empty_like(x_nd)
    kept: list[int] = []
    for row, x_d in enumerate(x_nd):
        if not kept or float((kept_kd[: len(kept)] @ x_d).max()) < threshold:
            kept_kd[len(kept)] = x_d
            kept.append(row)
    return np.array(kept, np.int64)
