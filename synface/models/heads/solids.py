"""Building blocks of accessories: tubes, ellipsoids, boxes, discs and patches of the head's shell."""

from dataclasses import dataclass

import numpy as np

from synface.models.heads.shell import COLUMNS, ROWS, grid_triangles, shell_grid


@dataclass
class Part:
    """A piece of geometry of one material: vertices [n, 3] (dm), triangles, alpha [n] (< 0 is cut), pattern [n, 2]."""

    vertices: np.ndarray
    triangles: np.ndarray
    alpha: np.ndarray
    pattern: np.ndarray


def _part(vertices: np.ndarray, triangles: np.ndarray, alpha: np.ndarray | None = None) -> Part:
    vertices = np.ascontiguousarray(vertices, np.float32)
    alpha = np.ones(len(vertices), np.float32) if alpha is None else alpha.astype(np.float32).ravel()
    return Part(vertices, triangles.astype(np.int32), alpha, vertices[:, :2].copy())


def tube(path: np.ndarray, radius: float | np.ndarray, closed: bool = False, sides: int = 6) -> Part:
    """A tube along path [n, 3]; `radius` may vary along it."""
    n = len(path)
    ahead = np.roll(path, -1, 0) if closed else np.vstack([path[1:], path[-1:]])
    behind = np.roll(path, 1, 0) if closed else np.vstack([path[:1], path[:-1]])
    tangent = ahead - behind
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    helper = np.where(np.abs(tangent[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(helper, tangent)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(tangent, first)
    angle = np.arange(sides) * 2 * np.pi / sides
    r = np.broadcast_to(np.asarray(radius, float), (n,))[:, None, None]
    ring = np.cos(angle)[:, None] * first[:, None] + np.sin(angle)[:, None] * second[:, None]
    vertices = (path[:, None] + r * ring).reshape(-1, 3)
    triangles = grid_triangles(n, sides, closed=True)
    if closed:
        last = np.arange(sides) + (n - 1) * sides
        k = np.arange(sides)
        nxt = (k + 1) % sides
        joint = np.concatenate([np.stack([last, last[nxt], nxt], 1), np.stack([last, nxt, k], 1)])
        triangles = np.concatenate([triangles, joint])
    return _part(vertices, triangles)


def ellipsoid(centre: np.ndarray, radii: np.ndarray, sides: int = 14) -> Part:
    """An axis-aligned ellipsoid."""
    rows = sides // 2 + 1
    el = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    az = (np.arange(sides) * 2 * np.pi / sides)[None]
    unit = np.stack([np.cos(el) * np.sin(az), np.sin(el) + 0 * az, np.cos(el) * np.cos(az)], -1)
    return _part((unit * radii).reshape(-1, 3) + centre, grid_triangles(rows, sides, closed=True))


def box(centre: np.ndarray, half: np.ndarray, turn: np.ndarray) -> Part:
    """A box with its own vertices per side (sharp edges), turned by a rotation [3, 3]."""
    vertices, triangles = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            corners = np.zeros((4, 3))
            corners[:, axis] = sign
            corners[:, u] = np.array([-1, 1, 1, -1]) * sign
            corners[:, v] = [-1, -1, 1, 1]
            k = 4 * len(vertices)
            vertices.append(corners)
            triangles += [[k, k + 1, k + 2], [k, k + 2, k + 3]]
    points = np.concatenate(vertices) * half
    return _part(points @ turn.T + centre, np.array(triangles))


def outline(centre: np.ndarray, width: float, height: float, power: float, bow: float, count: int = 28) -> np.ndarray:
    """A superellipse [count, 3] facing forward; the outer side lies `bow` farther back (away from x = 0)."""
    a = np.arange(count) * 2 * np.pi / count
    x = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** (2 / power) * width
    y = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** (2 / power) * height
    out = np.stack([x, y, -bow * np.maximum(0, x * np.sign(centre[0]) / width) ** 2], 1)
    return out + centre


def disc(rim: np.ndarray) -> Part:
    """A fan that fills a closed outline [n, 3]."""
    n = len(rim)
    k = np.arange(n)
    triangles = np.stack([np.full(n, n), k, (k + 1) % n], 1)
    return _part(np.vstack([rim, rim.mean(0)]), triangles)


def shell_part(points: np.ndarray, offset: np.ndarray | float, alpha: np.ndarray) -> Part:
    """The part of a person's shell [ROWS, COLUMNS, 3] with alpha > 0, pushed out along its rays (dm)."""
    grid = shell_grid()
    shift = np.broadcast_to(np.asarray(offset, float), (ROWS, COLUMNS))[..., None]
    part = _part((points + shift * grid.direction).reshape(-1, 3), grid.triangles, alpha)
    kept = part.triangles[part.alpha[part.triangles].max(1) > 0]
    part.triangles = kept
    part.pattern = grid.canonical.reshape(-1, 3)[:, :2].copy()
    return part


def brim(points: np.ndarray, row_of: np.ndarray, columns: np.ndarray, reach: np.ndarray, drop: float) -> Part:
    """A visor or brim: from the shell at (row_of, columns) outwards by `reach` (dm, per column)."""
    start = points[row_of, columns % COLUMNS]
    outward = shell_grid().direction[row_of, columns % COLUMNS] * [1, 0, 1]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    steps = np.linspace(0.0, 1.0, 4)[:, None, None]
    vertices = (
        start + outward * (0.06 + steps * reach[:, None]) + np.array([0, -1.0, 0]) * drop * steps**1.5 * reach[:, None]
    )
    return _part(vertices.reshape(-1, 3), grid_triangles(4, len(columns), closed=False))


def smooth(points: np.ndarray, rounds: int) -> np.ndarray:
    """A shell smoothed along rows and columns, so that cloth spans hollows."""
    for _ in range(rounds):
        points = (np.roll(points, 1, 1) + 2 * points + np.roll(points, -1, 1)) / 4
        inner = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
        points = np.concatenate([points[:1], inner, points[-1:]])
    return points
