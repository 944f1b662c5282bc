"""The kernels that grow hair cards: centre lines from roots, then ribbons around them."""

from typing import NamedTuple

import numpy as np

from synface.models.heads.kernel import kernel
from synface.models.heads.noise import smoothstep
from synface.models.heads.shell import radius_at

COMBS = ("down", "back", "side", "forward", "up", "out")
DOWN, BACK, SIDE, FORWARD, UP, OUT = range(6)
#: kinds of cards: combed with the style, over the forehead, of a pony tail, wound into a bun
COMBED_CARD, FRINGE_CARD, TAIL_CARD, BUN_CARD = 0.0, 1.0, 2.0, 3.0


class Growth(NamedTuple):
    """What the growing kernel needs."""

    comb: int
    lift: float
    gravity: float
    curl: float
    frizz: float
    part: float
    face_width: float
    brow_y: float
    adhere: float
    sweep: float
    gather: int


@kernel
def _comb(g, x, y, z, front, spread):
    """The style's direction (not a unit vector) at a point relative to the hull's centre."""
    side = 1.0 if x > g.part else -1.0
    if g.comb == DOWN:
        return 0.9 * x, -0.6, 0.9 * z
    if g.comb == BACK:
        return 0.25 * x, 0.25 * front, -1.0
    if g.comb == SIDE:
        return side, -0.45, -0.25 - 0.45 * front
    if g.comb == FORWARD:
        return 0.35 * x + 0.2 * side, -0.1, 1.0
    if g.comb == UP:
        return 0.3 * x, 0.7 * front, 0.2 - 0.9 * (1 - front)
    return x + spread, y, z


@kernel
def grow(g, roots_n3, normals_n3, length_n, fringe_n, random_nk, centre, radius_hw, points_nk3):
    """Integrate every card's centre line into points [n, steps + 1, 3].

    Each step turns the direction towards the comb, then towards the ground; what would leave the head is held
    back by `adhere` and what would enter it is pushed out. Hair that is no fringe stays off the face.
    """
    steps = points_nk3.shape[1] - 1
    for n in range(roots_n3.shape[0]):
        px, py, pz = roots_n3[n, 0], roots_n3[n, 1], roots_n3[n, 2]
        nx, ny, nz = normals_n3[n, 0], normals_n3[n, 1], normals_n3[n, 2]
        rx, ry, rz = px - centre[0], py - centre[1], pz - centre[2]
        front = smoothstep(0.45, 0.95, rz)
        crown = smoothstep(0.15, 0.6, ry)
        cx, cy, cz = _comb(g, rx, ry, rz, front, random_nk[n, 1] - 0.5)
        if fringe_n[n] == BUN_CARD:
            cx, cy, cz = ny - 0.3 * nz, 0.2 * nz - nx, 0.3 * nx - 0.2 * ny
        elif fringe_n[n] == TAIL_CARD:
            cx, cy, cz = 0.0, -1.0, -0.25
        elif fringe_n[n] > 0:
            cx, cy, cz = 0.5 * rx + g.sweep, -0.5, 0.9
        elif g.comb != OUT:
            if g.gather > 0:
                cx, cy, cz = -1.1 * rx, 0.42 - ry, -0.85 - rz
            else:
                cx, cy, cz = cx * crown, cy * crown - (1 - crown), cz * crown - 0.35 * (1 - crown)
        cx += (random_nk[n, 0] - 0.5) * 0.35
        cy += (random_nk[n, 1] - 0.5) * 0.25
        cz += (random_nk[n, 2] - 0.5) * 0.35
        along = cx * nx + cy * ny + cz * nz
        if g.comb != OUT:
            cx, cy, cz = cx - along * nx, cy - along * ny, cz - along * nz
        norm = np.sqrt(cx * cx + cy * cy + cz * cz) + 1e-6
        cx, cy, cz = cx / norm, cy / norm, cz / norm
        lift = g.lift * (0.6 + 0.8 * random_nk[n, 3]) * (0.15 + 0.85 * crown if g.comb != OUT else 0.7 + 0.3 * crown)
        dx, dy, dz = (
            nx * lift + cx * (1 - 0.6 * lift),
            ny * lift + cy * (1 - 0.6 * lift),
            nz * lift + cz * (1 - 0.6 * lift),
        )
        step = length_n[n] / steps
        margin = 0.015 + (0.03 + 0.05 * g.lift) * random_nk[n, 4]
        phase = random_nk[n, 5] * 6.28
        fall = 0.0
        points_nk3[n, 0, 0], points_nk3[n, 0, 1], points_nk3[n, 0, 2] = px, py, pz
        for k in range(1, steps + 1):
            fall = min(1.0, fall + (g.gravity if fringe_n[n] != TAIL_CARD else 0.8) * step * 3.0)
            if g.gravity > 0.45:
                fall = max(fall, 1.0 - smoothstep(0.15, 0.65, py - centre[1]))
            keep = 0.55
            dx = keep * dx + (1 - keep) * cx * (1 - fall) + g.frizz * (random_nk[n, 6 + 3 * k] - 0.5)
            dy = (
                keep * dy
                + (1 - keep) * cy * (1 - fall)
                + g.frizz * (random_nk[n, 7 + 3 * k] - 0.5)
                - (1 - keep) * fall
            )
            dz = keep * dz + (1 - keep) * cz * (1 - fall) + g.frizz * (random_nk[n, 8 + 3 * k] - 0.5)
            qx, qy, qz = px - centre[0], py - centre[1], pz - centre[2]
            distance = np.sqrt(qx * qx + qy * qy + qz * qz) + 1e-6
            ox, oy, oz = qx / distance, qy / distance, qz / distance
            leaving = dx * ox + dy * oy + dz * oz
            if leaving > 0 and qy > -0.3:
                hold = g.adhere * leaving * min(1.0, 0.4 + 0.3 * k)
                dx, dy, dz = dx - hold * ox, dy - hold * oy, dz - hold * oz
            if fringe_n[n] <= 0 and pz > centre[2] + 0.40 and py < g.brow_y + 0.22:
                wide = g.face_width * (0.95 + 0.2 * random_nk[n, 4])
                if abs(px) < wide:
                    away = 1.0 if px >= 0 else -1.0
                    px += away * 0.35 * (wide - abs(px))
                    dx += away * 0.9
                    dz -= 0.4
            norm = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6
            dx, dy, dz = dx / norm, dy / norm, dz / norm
            px, py, pz = px + dx * step, py + dy * step, pz + dz * step
            qx, qy, qz = px - centre[0], py - centre[1], pz - centre[2]
            distance = np.sqrt(qx * qx + qy * qy + qz * qz) + 1e-6
            hull = radius_at(qx, qy, qz, radius_hw) + margin * min(1.0, 0.3 + k / 3.0)
            if qy > -0.65 and distance < hull:
                scale = hull / distance
                px, py, pz = centre[0] + qx * scale, centre[1] + qy * scale, centre[2] + qz * scale
                dx, dy, dz = px - points_nk3[n, k - 1, 0], py - points_nk3[n, k - 1, 1], pz - points_nk3[n, k - 1, 2]
                norm = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6
                dx, dy, dz = dx / norm, dy / norm, dz / norm
            turn = phase + k * 2.1
            swing = g.curl * min(1.0, k / 2.0)
            points_nk3[n, k, 0] = px + swing * np.cos(turn)
            points_nk3[n, k, 1] = py + swing * np.sin(turn * 1.3)
            points_nk3[n, k, 2] = pz + swing * np.sin(turn)


@kernel
def ribbons(points_nk3, width_n, centre, vertices_v3, normals_v3, tangents_v3):
    """Two vertices per point, spread across the card in the plane of the head's surface."""
    count, length, _ = points_nk3.shape
    for n in range(count):
        for k in range(length):
            a, b = max(0, k - 1), min(length - 1, k + 1)
            tx = points_nk3[n, b, 0] - points_nk3[n, a, 0]
            ty = points_nk3[n, b, 1] - points_nk3[n, a, 1]
            tz = points_nk3[n, b, 2] - points_nk3[n, a, 2]
            norm = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-6
            tx, ty, tz = tx / norm, ty / norm, tz / norm
            px, py, pz = points_nk3[n, k, 0], points_nk3[n, k, 1], points_nk3[n, k, 2]
            ox, oy, oz = px - centre[0], 0.6 * (py - centre[1]) * (1.0 if py > centre[1] else 0.3), pz - centre[2]
            sx, sy, sz = ty * oz - tz * oy, tz * ox - tx * oz, tx * oy - ty * ox
            norm = np.sqrt(sx * sx + sy * sy + sz * sz) + 1e-6
            half = 0.5 * width_n[n] / norm
            nx, ny, nz = sy * tz - sz * ty, sz * tx - sx * tz, sx * ty - sy * tx
            length_n = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
            if nx * ox + ny * oy + nz * oz < 0:
                length_n = -length_n
            for e in range(2):
                i = (n * length + k) * 2 + e
                sign = 2.0 * e - 1.0
                vertices_v3[i, 0] = px + sign * half * sx
                vertices_v3[i, 1] = py + sign * half * sy
                vertices_v3[i, 2] = pz + sign * half * sz
                normals_v3[i, 0] = nx / length_n + sign * 0.3 * sx / norm
                normals_v3[i, 1] = ny / length_n + sign * 0.3 * sy / norm
                normals_v3[i, 2] = nz / length_n + sign * 0.3 * sz / norm
                tangents_v3[i, 0], tangents_v3[i, 1], tangents_v3[i, 2] = tx, ty, tz


def card_triangles(count: int, length: int) -> np.ndarray:
    """Triangles (int32) of `count` ribbons of `length` points with two vertices each."""
    k = (np.arange(count)[:, None] * length + np.arange(length - 1)[None]).ravel() * 2
    return np.concatenate([np.stack([k, k + 1, k + 3], 1), np.stack([k, k + 3, k + 2], 1)]).astype(np.int32)
