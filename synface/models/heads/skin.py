"""The skin texture of one person: colour, wrinkles, moles, brows and beard in cylinder coordinates.

Texel (row, column) lies at height y = TOP - (row + 0.5) * HEIGHT / size and at the azimuth
(column + 0.5) / size * 2 * SPAN - SPAN around a vertical axis. Channels: linear RGB, beard coverage, gloss.
Painting uses the base head's position of each texel, so marks follow every morph.
"""

import functools
from typing import NamedTuple

import numpy as np

from synface.core.rng import generator
from synface.models.heads import raster
from synface.models.heads.assets import load_assets
from synface.models.heads.identity import Identity, grey
from synface.models.heads.kernel import kernel
from synface.models.heads.noise import between, lattice, noise_table, smoothstep

TOP, HEIGHT = 8.5, 3.0
SPAN, AXIS_Z = 2.0, 0.35
CHANNELS = 5


class Paint(NamedTuple):
    """What the painting kernel needs, all floats."""

    red: float
    green: float
    blue: float
    offset_x: float
    offset_y: float
    mottle: float
    freckles: float
    redness: float
    eye_shadow: float
    wrinkles: float
    pores: float
    gloss: float
    stubble: float
    jaw: float
    moustache: float
    chin: float
    line: float


def texture_coordinates(points: np.ndarray) -> np.ndarray:
    """Column and row in 0..1 of base-head points [..., 3] (dm)."""
    column = (np.arctan2(points[..., 0], points[..., 2] - AXIS_Z) + SPAN) / (2 * SPAN)
    return np.stack([column, (TOP - points[..., 1]) / HEIGHT], -1).astype(np.float32)


@functools.cache
def canonical_map(size: int) -> np.ndarray:
    """Base-head position at each texel, float32 [size, size, 3] (holes hold the nearest hit of their row)."""
    assets = load_assets()
    base = assets.base
    points = np.empty_like(base)
    points[:, :2] = texture_coordinates(base) * size
    points[:, 2] = np.hypot(base[:, 0], base[:, 2] - AXIS_Z)
    skin = assets.triangles[assets.material == raster.SKIN]
    spread = np.ptp(points[skin][:, :, 0], axis=1) < size / 2
    skin = skin[spread]
    depth, triangle, weights = raster.empty_buffers(size, size)
    material = np.full(len(skin), raster.TEETH, np.int8)
    raster.rasterize(points, skin, material, np.ones(len(base), np.float32), base, depth, triangle, weights)
    out = (base[skin[triangle]] * weights[..., None]).sum(2)
    for row in range(size):
        hit = np.flatnonzero(triangle[row] >= 0)
        if len(hit):
            holes = np.flatnonzero(triangle[row] < 0)
            out[row, holes] = out[row, hit[np.clip(np.searchsorted(hit, holes), 0, len(hit) - 1)]]
    return np.ascontiguousarray(out, np.float32)


@kernel
def beard_region(p, x, y, z, wobble):
    """Coverage 0..1 of facial hair at a base-head position."""
    ax = abs(x)
    if y <= 6.02 or z <= 0.35:
        return 0.0
    low = smoothstep(6.02, 6.25, y)
    front = smoothstep(0.35, 0.65, z)
    line = 6.86 - 0.10 * p.line + 0.06 * wobble - 0.55 * smoothstep(0.55, 0.15, ax)
    jaw = max(smoothstep(line, line - 0.16, y), smoothstep(0.60, 0.74, ax) * smoothstep(7.10, 6.90, y)) * low * front
    jaw *= smoothstep(0.42, 0.60, z)
    lip, chin = 0.0, 0.0
    if ax < 0.38 and z > 0.8:
        lip = smoothstep(6.90, 6.86, y) * smoothstep(6.62, 6.72, y)
        lip *= smoothstep(0.38, 0.29, ax) * smoothstep(1.0, 1.2, z)
        chin = smoothstep(0.33, 0.22, ax) * smoothstep(6.62, 6.50, y) * low * smoothstep(0.8, 1.0, z)
    return min(1.0, max(p.jaw * jaw, max(p.moustache * lip, p.chin * chin)))


@kernel
def _beard_cover(p, points_n4, out_n):
    for i in range(points_n4.shape[0]):
        out_n[i] = beard_region(p, points_n4[i, 0], points_n4[i, 1], points_n4[i, 2], points_n4[i, 3])


@kernel
def _wrinkle(x, y, wobble):
    """Depth 0..1 of forehead lines, crow's feet, nasolabial folds and frown lines."""
    ax = abs(x)
    lines, feet, fold, frown, bag = 0.0, 0.0, 0.0, 0.0, 0.0
    if 7.58 < y < 7.95 and ax < 0.55:
        lines = smoothstep(0.72, 1.0, np.sin(y * 46.0 + 2.5 * wobble + 2.0 * ax)) * smoothstep(7.58, 7.66, y)
        lines *= smoothstep(7.95, 7.85, y) * smoothstep(0.55, 0.30, ax)
    if 0.50 < ax < 0.72 and abs(y - 7.27) < 0.16:
        feet = smoothstep(0.7, 1.0, np.sin(np.arctan2(y - 7.27, ax - 0.40) * 9.0 + wobble))
        feet *= smoothstep(0.50, 0.55, ax) * smoothstep(0.72, 0.62, ax) * smoothstep(0.16, 0.08, abs(y - 7.27))
    if 6.52 < y < 7.0:
        fold_x = 0.17 + 0.20 * smoothstep(6.98, 6.55, y) + 0.01 * wobble
        fold = smoothstep(0.035, 0.0, abs(ax - fold_x)) * smoothstep(6.52, 6.64, y) * smoothstep(7.0, 6.88, y)
    if 7.38 < y < 7.62:
        frown = smoothstep(0.016, 0.0, abs(ax - 0.055 - 0.01 * wobble))
        frown *= smoothstep(7.38, 7.44, y) * smoothstep(7.62, 7.54, y)
    if abs(ax - 0.30) < 0.16:
        bag = smoothstep(0.022, 0.0, abs(y - 7.13 + 0.10 * (ax - 0.30) ** 2 / 0.03))
        bag *= smoothstep(0.16, 0.10, abs(ax - 0.30))
    return min(1.0, 0.8 * lines + 0.7 * feet + fold + 0.6 * frown + 0.6 * bag)


@functools.cache
def face_masks(size: int) -> np.ndarray:
    """Where skin differs, float32 [size, size, 6]: front, flush, eye shadow, lids, oily parts, freckles."""
    x, y, z = canonical_map(size).astype(np.float64).transpose(2, 0, 1)
    ax = np.abs(x)

    def ramp(a: float, b: float, v: np.ndarray) -> np.ndarray:
        t = np.clip((v - a) / (b - a), 0, 1)
        return t * t * (3 - 2 * t)

    front = ramp(0.80, 1.15, z)
    flush = np.exp(-((ax - 0.42) ** 2 + (y - 6.95) ** 2) / 0.045) + 0.9 * np.exp(-(x * x + (y - 6.95) ** 2) / 0.014)
    masks = [
        front,
        flush * front + 0.35 * ramp(0.7, 0.85, ax),
        np.exp(-((ax - 0.30) ** 2 / 0.03 + (y - 7.15) ** 2 / 0.007)) * front,
        np.exp(-((ax - 0.31) ** 2 / 0.03 + (y - 7.33) ** 2 / 0.004)) * front,
        front
        * (np.exp(-(x * x / 0.02 + (y - 7.0) ** 2 / 0.12)) + 0.7 * np.exp(-(x * x / 0.12 + (y - 7.75) ** 2 / 0.04))),
        ramp(0.55, 0.2, np.abs(y - 7.05)) * front,
    ]
    return np.ascontiguousarray(np.stack(masks, -1), np.float32)


@kernel
def paint_skin(p, canonical_hw3, masks_hw6, table, moles_m3, out_hwc):
    """Fill the texture: colour with mottling, freckles, flush, shadows, wrinkles, moles, stubble and pores."""
    size = out_hwc.shape[0]
    columns, weights = np.empty((3, size), np.int64), np.empty((3, size))
    for column in range(size):  # three scales of noise, looked up once per column and once per row
        s = (column + 0.5) / size * 3.0
        columns[0, column], weights[0, column] = lattice(s * 60 + p.offset_x)
        columns[1, column], weights[1, column] = lattice(s * 18 + p.offset_y)
        columns[2, column], weights[2, column] = lattice(s * 5 + p.offset_x)
    for row in range(size):
        t = (row + 0.5) / size * 3.0
        fine_row, fine_weight = lattice(t * 60 + p.offset_y)
        middle_row, middle_weight = lattice(t * 18 + p.offset_x)
        coarse_row, coarse_weight = lattice(t * 5 - p.offset_y)
        pore_row = table[int(t * 120 + p.offset_y) & 255]
        for column in range(size):
            front, flush, dark = masks_hw6[row, column, 0], masks_hw6[row, column, 1], masks_hw6[row, column, 2]
            s = (column + 0.5) / size * 3.0
            fine = between(table, columns[0, column], weights[0, column], fine_row, fine_weight)
            middle = between(table, columns[1, column], weights[1, column], middle_row, middle_weight)
            coarse = between(table, columns[2, column], weights[2, column], coarse_row, coarse_weight)
            pore = pore_row[int(s * 120 + p.offset_x) & 255]
            shade = 1 + p.mottle * (0.035 * coarse + 0.025 * middle + 0.02 * fine) + 0.03 * p.pores * pore * front
            freckle, wrinkle, shadow = 0.0, 0.0, 0.0
            if p.freckles > 0.0 and masks_hw6[row, column, 5] > 0.0:
                spots = smoothstep(1.0, 1.7, fine + 0.5 * middle) * masks_hw6[row, column, 5]
                freckle = min(1.0, p.freckles * 0.45 * spots)
            x, y, z = canonical_hw3[row, column, 0], canonical_hw3[row, column, 1], canonical_hw3[row, column, 2]
            if p.wrinkles > 0.02 and front > 0.0:
                wrinkle = p.wrinkles * _wrinkle(x, y, coarse) * front
                shade *= 1 - 0.16 * wrinkle
            if p.stubble > 0.0 and z > 0.3 and y < 7.12:
                shadow = p.stubble * beard_region(p, x, y, z, middle)
            flush = p.redness * (flush + 0.15 * coarse)
            dark = p.eye_shadow * dark
            lid = 0.25 * masks_hw6[row, column, 3]
            red = p.red * shade * (1 + 0.10 * flush) * (1 - 0.28 * dark - 0.12 * lid) * (1 - 0.45 * freckle)
            green = p.green * shade * (1 - 0.20 * flush) * (1 - 0.36 * dark - 0.18 * lid) * (1 - 0.75 * freckle)
            blue = p.blue * shade * (1 - 0.14 * flush) * (1 - 0.30 * dark - 0.14 * lid) * (1 - 0.85 * freckle)
            out_hwc[row, column, 0] = red * (1 - 0.30 * shadow)
            out_hwc[row, column, 1] = green * (1 - 0.22 * shadow)
            out_hwc[row, column, 2] = blue * (1 - 0.14 * shadow)
            out_hwc[row, column, 3] = 0.0
            shine = 0.55 + 0.6 * masks_hw6[row, column, 4] + 0.12 * fine
            out_hwc[row, column, 4] = p.gloss * shine * (1 - 0.5 * wrinkle)
    for m in range(moles_m3.shape[0]):
        radius = moles_m3[m, 2]
        for row in range(size):
            y = TOP - (row + 0.5) / size * HEIGHT
            if abs(y - moles_m3[m, 1]) > 3 * radius:
                continue
            for column in range(size):
                dx = canonical_hw3[row, column, 0] - moles_m3[m, 0]
                if canonical_hw3[row, column, 2] < 0.6 or abs(dx) > 3 * radius:
                    continue
                dy = canonical_hw3[row, column, 1] - moles_m3[m, 1]
                fade = 1 - 0.75 * np.exp(-(((dx * dx + dy * dy) / (radius * radius)) ** 2))
                for k in range(3):
                    out_hwc[row, column, k] *= fade if k == 0 else fade * (0.9 + 0.1 * fade)


@kernel
def paint_strokes(strokes_s6, colour, channel, canonical_hw3, out_hwc):
    """Draw hairs (x, y, dx, dy, width, strength in dm on the base head) into RGB, or into one channel.

    `channel` < 0 blends the colour in; otherwise coverage is raised in that channel.
    """
    size = out_hwc.shape[0]
    texel = HEIGHT / size
    for s in range(strokes_s6.shape[0]):
        x, y, dx, dy = strokes_s6[s, 0], strokes_s6[s, 1], strokes_s6[s, 2], strokes_s6[s, 3]
        width, strength = max(strokes_s6[s, 4], 0.45 * texel), strokes_s6[s, 5]
        strength *= min(1.0, strokes_s6[s, 4] / width)
        row_of = int((TOP - y) / texel)
        if row_of < 1 or row_of >= size - 1:
            continue
        low, high = 0, size - 1  # the base head's x grows with the column on the visible side
        while high - low > 1:
            mid = (low + high) // 2
            if canonical_hw3[row_of, mid, 0] < x:
                low = mid
            else:
                high = mid
        slope = canonical_hw3[row_of, min(size - 1, low + 3), 0] - canonical_hw3[row_of, max(0, low - 3), 0]
        across = max(0.25 * texel, slope / 6.0)
        reach = int((abs(dx) + width * 2) / across) + 1
        rise = int((abs(dy) + width * 2) / texel) + 1
        norm = dx * dx + dy * dy + 1e-12
        for row in range(max(0, row_of - rise), min(size, row_of + rise + 1)):
            for column in range(max(0, low - reach), min(size, low + reach + 1)):
                px = (column - low) * across
                py = (row_of - row) * texel
                along = min(1.0, max(0.0, (px * dx + py * dy) / norm))
                ex, ey = px - along * dx, py - along * dy
                cover = smoothstep(1.6, 0.4, np.sqrt(ex * ex + ey * ey) / (width * (1 - 0.6 * along))) * strength
                if channel >= 0:
                    out_hwc[row, column, channel] = max(out_hwc[row, column, channel], cover)
                else:
                    for k in range(3):
                        out_hwc[row, column, k] += (colour[k] - out_hwc[row, column, k]) * cover


def brow_strokes(identity: Identity, r: np.random.Generator) -> np.ndarray:
    """Hairs of both brows, float64 [n, 6] as `paint_strokes` takes them."""
    b = identity.brows
    count = int(60 + 150 * b.density + 900 * b.thickness)
    u = r.random((2, count)) ** 0.9
    side = np.array([[1.0], [-1.0]])
    taper = np.sin(np.clip(u * 0.86 + 0.16, 0, 1) * np.pi) ** 0.6
    across = r.uniform(-1, 1, (2, count)) * b.thickness * (0.35 + 0.65 * taper) * (1.0 - 0.45 * u)
    x = b.inner + (b.outer - b.inner) * u
    y = 7.475 + b.height + b.arch * (np.sin(u * 2.6 + 0.45) - 0.3) + b.slope * u + across
    lean = np.interp(u, [0, 0.25, 0.7, 1.0], [1.45, 0.85, 0.25, -0.35]) + r.normal(0, 0.2, (2, count))
    length = r.uniform(0.045, 0.085, (2, count)) * (0.55 + b.thickness / 0.09)
    width = r.uniform(0.0022, 0.0045, (2, count))
    strength = r.uniform(0.35, 0.9, (2, count)) * np.interp(u, [0, 0.12, 0.85, 1], [0.55, 1, 1, 0.5])
    return np.stack([side * x, y, side * length * np.cos(lean), length * np.sin(lean), width, strength], -1).reshape(
        -1, 6
    )


def beard_strokes(p: Paint, r: np.random.Generator) -> np.ndarray:
    """Short hairs where the beard grows, float64 [n, 6]."""
    count = 5200
    x, y = r.uniform(-0.85, 0.85, count), r.uniform(6.05, 7.1, count)
    size = 96
    canonical = canonical_map(size)[:, size // 8 : -size // 8]
    row = np.clip(((TOP - y) / HEIGHT * size).astype(int), 0, size - 1)
    column = (canonical[row, :, 0] < x[:, None]).sum(1)
    z = canonical[row, np.clip(column, 0, canonical.shape[1] - 1), 2]
    keep = r.random(count)
    cover = np.empty(count)
    _beard_cover(p, np.stack([x, y, z, r.normal(0, 0.6, count)], 1), cover)
    mask = cover > 0.25 * keep + 0.02
    lean = np.where(abs(x) < 0.3, r.normal(0, 0.35, count), np.sign(x) * 0.3 + r.normal(0, 0.3, count))
    length = r.uniform(0.02, 0.06, count) * (0.5 + cover)
    strokes = np.stack(
        [
            x,
            y,
            length * np.sin(lean),
            -length * np.cos(lean),
            r.uniform(0.0035, 0.0065, count),
            (0.25 + 0.75 * cover) * r.uniform(0.5, 1, count),
        ],
        -1,
    )
    return strokes[mask]


def wrinkle_amount(identity: Identity) -> float:
    """0 (smooth) .. about 1.6 (very old), from age and the person's disposition."""
    return float(identity.skin.wrinkles * np.clip((identity.age - 26) / 42, 0, 1.3))


def bake_skin(identity: Identity, size: int) -> np.ndarray:
    """The person's texture, float32 [size, size, CHANNELS], at the identity's age."""
    r = generator("heads", "skin", identity.domain, identity.seed)
    skin, beard = identity.skin, identity.beard
    old = wrinkle_amount(identity)
    paint = Paint(
        *skin.colour,
        offset_x=float(r.uniform(0, 200)),
        offset_y=float(r.uniform(0, 200)),
        mottle=skin.mottle * (1 + 0.7 * old),
        freckles=skin.freckles + 0.12 * old,
        redness=skin.redness,
        eye_shadow=min(1.0, skin.eye_shadow * (0.6 + 0.5 * old)),
        wrinkles=old,
        pores=skin.pores,
        gloss=skin.gloss,
        stubble=0.8 if identity.male else 0.0,
        jaw=beard.jaw,
        moustache=beard.moustache,
        chin=beard.chin,
        line=beard.line,
    )
    canonical = canonical_map(size)
    out = np.empty((size, size, CHANNELS), np.float32)
    paint_skin(paint, canonical, face_masks(size), noise_table(), np.array(skin.moles, np.float64).reshape(-1, 3), out)
    hair = np.array(identity.hair.colour) * (1 - grey(identity) * 0.6) + 0.3 * grey(identity) * 0.6
    brow = hair * (1.15 - 0.7 * identity.brows.darkness)
    paint_strokes(brow_strokes(identity, r), np.minimum(brow, 0.5 * np.array(skin.colour)), -1, canonical, out)
    if max(beard.jaw, beard.moustache, beard.chin) > 0:
        paint_strokes(beard_strokes(paint, r), hair, 3, canonical, out)
    return out
