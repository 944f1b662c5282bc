"""A small z-buffer rasteriser: triangles to nearest-surface maps, and to depth maps for shadows.

Both kernels walk each triangle's bounding box and evaluate barycentric coordinates at pixel centres
(x + 0.5, y + 0.5). Larger z is nearer. No fastmath and no reductions in parallel: the same input gives the
same bytes on every x86-64 machine. The kernels release the GIL.
"""

import numpy as np

from synface.models.heads.kernel import kernel

#: triangle materials; those from SHELL on are discarded where their vertex alpha interpolates below zero
SKIN, EYE, TEETH, TONGUE, LASH = 0, 1, 2, 3, 4
SHELL = 5
SCALP, PLAIN = 5, 6
#: hair cards: ribbons cut into strands by `strand_hole`
HAIR = 7
#: glass, drawn over the finished picture
LENS = 8

#: side of the tiles of the depth buffer that hair cards are tried against first
TILE = 8

_EMPTY_DEPTH = np.float32(-1e9)
_SUBSTRANDS = 5


@kernel
def unit_hash(a: int, b: int) -> float:
    """A fixed pseudo-random number in [0, 1) for a pair of small integers."""
    h = (a * 374761393 + b * 668265263) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@kernel
def strand_hole(across: float, along: float, card: float) -> bool:
    """Whether the point of a hair card lies between its strands or past their ragged ends.

    Args:
        across: -1..1 over the card's width.
        along: 0 at the root, 1 at the tip.
        card: the card's number; each of its strands has its own length.
    """
    place = (across + 1.0) * 0.5 * _SUBSTRANDS
    strand = min(_SUBSTRANDS - 1, max(0, int(place)))
    length = 1.0 - 0.45 * unit_hash(int(card + 0.5), strand)
    if along > length:
        return True
    thickness = 1.15 - 0.95 * (along / length) ** 3
    return abs(place - strand - 0.5) * 2.0 > thickness


@kernel
def _hidden(material, alpha_v, surface_v3, a, b, c, wa, wb, wc):
    if material == HAIR:
        return strand_hole(
            wa * surface_v3[a, 0] + wb * surface_v3[b, 0] + wc * surface_v3[c, 0],
            wa * surface_v3[a, 1] + wb * surface_v3[b, 1] + wc * surface_v3[c, 1],
            surface_v3[a, 2],
        )
    return wa * alpha_v[a] + wb * alpha_v[b] + wc * alpha_v[c] < 0.0


@kernel
def _narrow(start, slope, low, high):
    """The part of columns low..high (relative) where start + column * slope >= 0, one column wider for rounding."""
    if slope > 1e-9:
        low = max(low, int(-start / slope))
    elif slope < -1e-9:
        high = min(high, int(start / -slope + 1.0))
    elif start < -1e-6:
        high = low - 1
    return low, high


@kernel
def _farthest(depth_hw, tiles_hw):
    """The farthest depth of each TILE x TILE tile: what lies behind all of it cannot be seen."""
    height, width = depth_hw.shape
    for j in range(tiles_hw.shape[0]):
        for i in range(tiles_hw.shape[1]):
            farthest = np.float32(1e9)
            for y in range(j * TILE, min(height, (j + 1) * TILE)):
                for x in range(i * TILE, min(width, (i + 1) * TILE)):
                    farthest = min(farthest, depth_hw[y, x])
            tiles_hw[j, i] = farthest


@kernel
def _draw(points_v3, triangles_t3, material_t, alpha_v, surface_v3, shadow, depth_hw, triangle_hw, weights_hw3):
    """Both rasterisers: `shadow` leaves out what casts none and writes the depth alone."""
    height, width = depth_hw.shape
    tiles = np.empty(((height + TILE - 1) // TILE, (width + TILE - 1) // TILE), np.float32)
    occluded = False
    for t in range(triangles_t3.shape[0]):
        m = material_t[t]
        if shadow and (SKIN < m < SHELL or m == LENS):
            continue
        a, b, c = triangles_t3[t, 0], triangles_t3[t, 1], triangles_t3[t, 2]
        x0, y0 = float(points_v3[a, 0]), float(points_v3[a, 1])
        x1, y1 = float(points_v3[b, 0]), float(points_v3[b, 1])
        x2, y2 = float(points_v3[c, 0]), float(points_v3[c, 1])
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-12 or (m in (SKIN, SCALP) and area > 0.0):
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        if left > right or top > bottom:
            continue
        z0 = float(points_v3[a, 2])
        z1, z2 = points_v3[b, 2] - z0, points_v3[c, 2] - z0
        if m == HAIR:  # most cards hang behind the head: look at whole tiles first
            if not occluded:
                _farthest(depth_hw, tiles)
                occluded = True
            near, seen = z0 + max(0.0, z1, z2), False
            for j in range(top // TILE, bottom // TILE + 1):
                for i in range(left // TILE, right // TILE + 1):
                    seen = seen or near > tiles[j, i]
            if not seen:
                continue
        inverse = 1.0 / area
        w1_x, w1_y = (y2 - y0) * inverse, (x0 - x2) * inverse
        w2_x, w2_y = (y0 - y1) * inverse, (x1 - x0) * inverse
        dx = left + 0.5 - x0
        for y in range(top, bottom + 1):
            dy = y + 0.5 - y0
            w1 = dx * w1_x + dy * w1_y
            w2 = dx * w2_x + dy * w2_y
            first, last = 0, right - left
            if last > 3:
                first, last = _narrow(w1, w1_x, first, last)
                first, last = _narrow(w2, w2_x, first, last)
                first, last = _narrow(1.0 - w1 - w2, -w1_x - w2_x, first, last)
            w1 += (first - 1) * w1_x
            w2 += (first - 1) * w2_x
            for x in range(left + first, left + last + 1):
                w1 += w1_x
                w2 += w2_x
                if w1 < 0.0 or w2 < 0.0 or w1 + w2 > 1.0:
                    continue
                z = z0 + w1 * z1 + w2 * z2
                if z <= depth_hw[y, x]:
                    continue
                w0 = 1.0 - w1 - w2
                if m >= SHELL and _hidden(m, alpha_v, surface_v3, a, b, c, w0, w1, w2):
                    continue
                depth_hw[y, x] = z
                if not shadow:
                    triangle_hw[y, x] = t
                    weights_hw3[y, x, 0] = w0
                    weights_hw3[y, x, 1] = w1
                    weights_hw3[y, x, 2] = w2


@kernel
def rasterize(points_v3, triangles_t3, material_t, alpha_v, surface_v3, depth_hw, triangle_hw, weights_hw3):
    """Nearest triangle and barycentric weights at each pixel.

    Args:
        points_v3: float32, x and y in pixels (y down), z (larger is nearer).
        triangles_t3: int32 vertex numbers, counter-clockwise seen from outside (in a y-up world); fastest with
            the solid parts before the hair.
        material_t: int8; SKIN and SCALP are culled when they face away, shells and hair are cut by alpha.
        alpha_v: float32, a shell is kept where it interpolates to >= 0.
        surface_v3: float32, for hair (across, along, card).
        depth_hw: written, like the next two; fill it with -1e9 before.
        triangle_hw: the nearest triangle's number; fill it with -1.
        weights_hw3: its barycentric weights.
    """
    _draw(points_v3, triangles_t3, material_t, alpha_v, surface_v3, False, depth_hw, triangle_hw, weights_hw3)


@kernel
def rasterize_depth(points_v3, triangles_t3, material_t, alpha_v, surface_v3, depth_hw):
    """Nearest depth alone, as `rasterize` (shadow maps); eyes, teeth, tongue, lashes and glass cast nothing."""
    nothing, no_weights = np.empty((0, 0), np.int32), np.empty((0, 0, 3), np.float32)
    _draw(points_v3, triangles_t3, material_t, alpha_v, surface_v3, True, depth_hw, nothing, no_weights)


@kernel
def turn(points_v3, shift_3, rotation_33, out_v3):
    """Write (points - shift) @ rotation.T to `out`, in a fixed order (BLAS sums depend on the machine)."""
    for i in range(points_v3.shape[0]):
        x = points_v3[i, 0] - shift_3[0]
        y = points_v3[i, 1] - shift_3[1]
        z = points_v3[i, 2] - shift_3[2]
        for k in range(3):
            out_v3[i, k] = x * rotation_33[k, 0] + y * rotation_33[k, 1] + z * rotation_33[k, 2]


@kernel
def vertex_normals(vertices_v3, triangles_t3, normals_v3):
    """Area-weighted unit vertex normals into `normals_v3` (overwritten)."""
    normals_v3[:] = 0.0
    for t in range(triangles_t3.shape[0]):
        a, b, c = triangles_t3[t, 0], triangles_t3[t, 1], triangles_t3[t, 2]
        ux = vertices_v3[b, 0] - vertices_v3[a, 0]
        uy = vertices_v3[b, 1] - vertices_v3[a, 1]
        uz = vertices_v3[b, 2] - vertices_v3[a, 2]
        wx = vertices_v3[c, 0] - vertices_v3[a, 0]
        wy = vertices_v3[c, 1] - vertices_v3[a, 1]
        wz = vertices_v3[c, 2] - vertices_v3[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            normals_v3[i, 0] += nx
            normals_v3[i, 1] += ny
            normals_v3[i, 2] += nz
    for i in range(normals_v3.shape[0]):
        x, y, z = normals_v3[i, 0], normals_v3[i, 1], normals_v3[i, 2]
        length = np.sqrt(x * x + y * y + z * z) + 1e-12
        normals_v3[i, 0] = x / length
        normals_v3[i, 1] = y / length
        normals_v3[i, 2] = z / length


@kernel
def perspective(position_v3, distance, plane_v2):
    """Project onto the plane through the origin as a camera at z = distance sees it; y points down."""
    for i in range(position_v3.shape[0]):
        scale = distance / (distance - position_v3[i, 2])
        plane_v2[i, 0] = position_v3[i, 0] * scale
        plane_v2[i, 1] = -position_v3[i, 1] * scale


@kernel
def to_pixels(plane_v2, position_v3, frame_23, points_v3):
    """Apply an affine map [2, 3] to the plane; keep the camera-space depth."""
    for i in range(plane_v2.shape[0]):
        x, y = plane_v2[i, 0], plane_v2[i, 1]
        points_v3[i, 0] = frame_23[0, 0] * x + frame_23[0, 1] * y + frame_23[0, 2]
        points_v3[i, 1] = frame_23[1, 0] * x + frame_23[1, 1] * y + frame_23[1, 2]
        points_v3[i, 2] = position_v3[i, 2]


def empty_buffers(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fresh (depth, triangle, weights) buffers for `rasterize`."""
    depth = np.full((height, width), _EMPTY_DEPTH, np.float32)
    return depth, np.full((height, width), -1, np.int32), np.zeros((height, width, 3), np.float32)


def empty_depth(size: int) -> np.ndarray:
    """A fresh square buffer for `rasterize_depth`."""
    return np.full((size, size), _EMPTY_DEPTH, np.float32)
