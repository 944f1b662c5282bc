"""A star-shaped grid around the head: where hair grows, what hair lies on, what hats and masks fit to.

Rays from a fixed centre inside the head hit the base mesh at the same triangle for everyone, so a person's
shell is a gather of their vertices. Row 0 is the lowest elevation, the last row the crown; column 0 looks
forward, columns run towards the person's left.
"""

import functools
from dataclasses import dataclass

import numpy as np

from synface.models.heads import raster
from synface.models.heads.assets import Assets, load_assets
from synface.models.heads.kernel import kernel

ROWS, COLUMNS = 40, 72
CENTRE = np.array([0.0, 7.35, 0.35])
LOWEST, HIGHEST = -1.0, np.pi / 2


@dataclass(frozen=True)
class ShellGrid:
    """The identity-independent part: ray directions, hit triangles (vertex numbers) and weights."""

    direction: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    canonical: np.ndarray
    triangles: np.ndarray


@kernel
def _cast(centre, direction_n3, vertices_v3, triangles_t3, corner_n3, weight_n3):
    """Farthest hit of each ray (Moller-Trumbore); misses keep corner -1."""
    for n in range(direction_n3.shape[0]):
        d = direction_n3[n]
        best = 0.0
        for t in range(triangles_t3.shape[0]):
            a, b, c = triangles_t3[t, 0], triangles_t3[t, 1], triangles_t3[t, 2]
            e1 = vertices_v3[b] - vertices_v3[a]
            e2 = vertices_v3[c] - vertices_v3[a]
            px, py, pz = d[1] * e2[2] - d[2] * e2[1], d[2] * e2[0] - d[0] * e2[2], d[0] * e2[1] - d[1] * e2[0]
            det = e1[0] * px + e1[1] * py + e1[2] * pz
            if abs(det) < 1e-12:
                continue
            s = centre - vertices_v3[a]
            u = (s[0] * px + s[1] * py + s[2] * pz) / det
            if u < -1e-6 or u > 1.000001:
                continue
            qx, qy, qz = s[1] * e1[2] - s[2] * e1[1], s[2] * e1[0] - s[0] * e1[2], s[0] * e1[1] - s[1] * e1[0]
            v = (d[0] * qx + d[1] * qy + d[2] * qz) / det
            if v < -1e-6 or u + v > 1.000001:
                continue
            distance = (e2[0] * qx + e2[1] * qy + e2[2] * qz) / det
            if distance > best:
                best = distance
                corner_n3[n, 0], corner_n3[n, 1], corner_n3[n, 2] = a, b, c
                weight_n3[n, 0], weight_n3[n, 1], weight_n3[n, 2] = 1 - u - v, u, v


@functools.cache
def shell_grid() -> ShellGrid:
    """The grid on the base mesh (built once per process, some tens of milliseconds)."""
    assets: Assets = load_assets()
    elevation = np.linspace(LOWEST, HIGHEST - 1e-3, ROWS)
    azimuth = np.arange(COLUMNS) * (2 * np.pi / COLUMNS)
    el, az = np.meshgrid(elevation, azimuth, indexing="ij")
    direction = np.stack([np.cos(el) * np.sin(az), np.sin(el), np.cos(el) * np.cos(az)], -1)
    skin = assets.triangles[assets.material == raster.SKIN]
    low = assets.base[skin][:, :, 1].min(1) > 5.6
    corners = np.full((ROWS * COLUMNS, 3), -1, np.int32)
    weights = np.zeros((ROWS * COLUMNS, 3))
    _cast(CENTRE, direction.reshape(-1, 3), assets.base.astype(np.float64), skin[low], corners, weights)
    corners, weights = corners.reshape(ROWS, COLUMNS, 3), weights.reshape(ROWS, COLUMNS, 3)
    for row in range(ROWS - 2, -1, -1):  # rays that leave through the cut neck take the hit above them
        missed = corners[row, :, 0] < 0
        corners[row, missed], weights[row, missed] = corners[row + 1, missed], weights[row + 1, missed]
    return ShellGrid(
        direction=direction.astype(np.float32),
        corners=corners,
        weights=weights.astype(np.float32),
        canonical=(assets.base[corners] * weights[..., None]).sum(2).astype(np.float32),
        triangles=grid_triangles(ROWS, COLUMNS, closed=True),
    )


def grid_triangles(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles (int32) of a row-major grid; `closed` joins the last column to the first."""
    last = columns if closed else columns - 1
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(last), indexing="ij")
    a = (row * columns + column).ravel()
    b = (row * columns + (column + 1) % columns).ravel()
    return np.concatenate([np.stack([a, b, b + columns], 1), np.stack([a, b + columns, a + columns], 1)]).astype(
        np.int32
    )


@kernel
def _gather(vertices_v3, corners_hw3, weights_hw3, out_hw3):
    for i in range(out_hw3.shape[0]):
        for j in range(out_hw3.shape[1]):
            a, b, c = corners_hw3[i, j, 0], corners_hw3[i, j, 1], corners_hw3[i, j, 2]
            u, v, w = weights_hw3[i, j, 0], weights_hw3[i, j, 1], weights_hw3[i, j, 2]
            for k in range(3):
                out_hw3[i, j, k] = vertices_v3[a, k] * u + vertices_v3[b, k] * v + vertices_v3[c, k] * w


def shell_points(vertices_v3: np.ndarray) -> np.ndarray:
    """A person's shell, float32 [ROWS, COLUMNS, 3]: the outermost skin along each ray of the base head."""
    grid = shell_grid()
    out = np.empty((ROWS, COLUMNS, 3), np.float32)
    _gather(vertices_v3, grid.corners, grid.weights, out)
    return out


def shell_radius(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre [3], radius float32 [ROWS, COLUMNS]) of the star-shaped hull used for collisions.

    The centre moves with the head; the radius along each ray is that of the person's shell point [ROWS, COLUMNS, 3].
    """
    shift = points[-1].mean(0) - shell_grid().canonical[-1].mean(0)
    centre = (CENTRE + shift * 0.5).astype(np.float32)
    radius = np.sqrt(((points - centre) ** 2).sum(-1))
    elevation = np.linspace(LOWEST, HIGHEST, ROWS)
    limit = np.interp(elevation, [-0.5, -0.2, 0.0], [0.75, 1.0, 3.0])[:, None]  # the shoulders are not the head's
    side = np.abs(shell_grid().direction[..., 0])
    rows = (elevation > 0.3) & (elevation < 0.7)
    width = np.abs(points[rows, :, 0] - centre[0]).max()  # above the ears, which hair passes over
    limit = np.minimum(limit, np.where(elevation[:, None] < 0.35, width * 1.02 / np.maximum(side, 0.2), 9.0))
    return centre, np.minimum(radius, limit).astype(np.float32)


@kernel
def radius_at(x, y, z, radius_hw):
    """Bilinear hull radius in the direction (x, y, z) from the centre."""
    rows, columns = radius_hw.shape
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    el = np.arcsin(min(1.0, max(-1.0, y / length)))
    az = np.arctan2(x, z)
    if az < 0:
        az += 2 * np.pi
    row = (el + 1.0) / (np.pi / 2 + 1.0) * (rows - 1)
    column = az / (2 * np.pi) * columns
    row = min(rows - 1.001, max(0.0, row))
    i, j = int(row), int(column)
    u, v = row - i, column - j
    j0, j1 = j % columns, (j + 1) % columns
    upper = radius_hw[i, j0] * (1 - v) + radius_hw[i, j1] * v
    lower = radius_hw[i + 1, j0] * (1 - v) + radius_hw[i + 1, j1] * v
    return upper * (1 - u) + lower * u
