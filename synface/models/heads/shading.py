"""Deferred shading: the colour of each pixel from its triangle, weights, material and the light.

Skin is diffuse with a wrap that is wider in red (light that travels under the skin), two specular lobes and
the mesh's baked occlusion; hair is Kajiya and Kay's strand model; eyes have a rim, fibres, a lid shadow and a
corneal highlight. All colours are linear. The camera looks along -z.
"""

from typing import NamedTuple

import numpy as np

from synface.models.heads.kernel import kernel
from synface.models.heads.noise import noise, smoothstep
from synface.models.heads.raster import EYE, HAIR, LASH, PLAIN, SKIN, TEETH, TONGUE, unit_hash

Rgb = tuple[float, float, float]
#: side of the light's view, dm
SHADOW_EXTENT = 3.4


class Look(NamedTuple):
    """The person's and the picture's constants for the shader (colours are tuples of floats)."""

    lip: Rgb
    hair: Rgb
    iris: Rgb
    cloth: Rgb
    iris_radius: float
    rim: float
    bloodshot: float
    gaze_x: float
    gaze_y: float
    grey: float
    beard: float
    collar: float
    noise_x: float


class Lamp(NamedTuple):
    """The light in camera space: unit directions towards the lamps and linear colours."""

    x: float
    y: float
    z: float
    key: Rgb
    sky: Rgb
    ground: Rgb
    fill_x: float
    fill_y: float
    fill_z: float
    fill: float
    softness: float
    right: Rgb
    up: Rgb
    shadows: bool


@kernel
def _sample(texture_hwc, u, v, out):
    size = texture_hwc.shape[0]
    x = min(size - 1.001, max(0.0, u * size - 0.5))
    y = min(size - 1.001, max(0.0, v * size - 0.5))
    i, j = int(x), int(y)
    a, b = x - i, y - j
    for k in range(5):
        upper = texture_hwc[j, i, k] * (1 - a) + texture_hwc[j, i + 1, k] * a
        lower = texture_hwc[j + 1, i, k] * (1 - a) + texture_hwc[j + 1, i + 1, k] * a
        out[k] = upper * (1 - b) + lower * b


@kernel
def _lit(lamp, shadow_hw, x, y, z):
    """Share 0..1 of the key light that reaches a camera-space point (percentage-closer filter)."""
    size = shadow_hw.shape[0]
    scale = size / SHADOW_EXTENT
    lx = (x * lamp.right[0] + y * lamp.right[1] + z * lamp.right[2]) * scale + size / 2
    ly = (x * lamp.up[0] + y * lamp.up[1] + z * lamp.up[2]) * scale + size / 2
    lz = x * lamp.x + y * lamp.y + z * lamp.z + 0.05
    spacing = 0.7 + 1.1 * lamp.softness
    columns = (int(lx - spacing), int(lx), int(lx + spacing))
    rows = (int(ly - spacing), int(ly), int(ly + spacing))
    hits = 0
    if columns[0] >= 0 and columns[2] < size and rows[0] >= 0 and rows[2] < size:
        for v in rows:
            line = shadow_hw[v]
            hits += (line[columns[0]] < lz) + (line[columns[1]] < lz) + (line[columns[2]] < lz)
        return hits / 9.0
    for v in rows:
        for u in columns:
            if u < 0 or v < 0 or u >= size or v >= size or shadow_hw[v, u] < lz:
                hits += 1
    return hits / 9.0


@kernel
def _eye_colour(look, table, dx, dy, side_x, out):
    """Albedo of the eyeball at an offset (dm) from the iris' centre; returns the pupil-and-iris share."""
    d = np.sqrt(dx * dx + dy * dy)
    radius = look.iris_radius
    iris = smoothstep(radius + 0.004, radius - 0.004, d)
    pupil = smoothstep(radius * 0.44, radius * 0.36, d)
    angle = np.arctan2(dy, dx)
    fibre = 1 + 0.28 * noise(table, angle * 9 + look.noise_x, d * 60)
    ring = 1 - 0.75 * look.rim * smoothstep(radius * 0.72, radius * 0.98, d)
    inner = 1 + 0.45 * smoothstep(radius * 0.75, radius * 0.45, d)
    red = look.bloodshot * 0.35 + 0.30 * smoothstep(0.10, 0.19, abs(side_x))
    white = (0.74, 0.71 * (1 - 0.35 * red), 0.68 * (1 - 0.40 * red))
    for k in range(3):
        c = look.iris[k] * fibre * ring * inner
        out[k] = (white[k] * (1 - iris) + c * iris) * (1 - pupil) + 0.006 * pupil
    return iris


@kernel
def shade(
    triangle_hw, weights_hw3, triangles_t3, material_t, surface_v3, normals_v3, tangents_v3, position_v3,
    lip_v, occlusion_v, texture_hwc, palette_p5, eye_centre_23, look, lamp, shadow_hw, table, backdrop_hw3,
    inverse_23, out_hw3,
):  # fmt: skip
    """Fill `out` (linear RGB) for every pixel of the supersampled picture.

    `triangle_hw` and `weights_hw3` come from `raster.rasterize`. `surface_v3` holds for skin the texture column,
    row and base z; for eyes the base position; for hair across, along, card; for plain parts the palette row and
    pattern coordinates. Normals, tangents and positions are in camera space. A palette row is red, green, blue,
    gloss, pattern. `inverse_23` maps a sample of the picture to backdrop coordinates 0..1.
    """
    size = triangle_hw.shape[0]
    skin = np.empty(5)
    albedo = np.empty(3)
    hx, hy, hz = lamp.x, lamp.y, lamp.z + 1.0
    h = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    hx, hy, hz = hx / h, hy / h, hz / h
    side = backdrop_hw3.shape[0]
    for row in range(size):
        for column in range(size):
            t = triangle_hw[row, column]
            if t < 0:
                u = inverse_23[0, 0] * column + inverse_23[0, 1] * row + inverse_23[0, 2]
                v = inverse_23[1, 0] * column + inverse_23[1, 1] * row + inverse_23[1, 2]
                x = min(side - 1.001, max(0.0, u * side - 0.5))
                y = min(side - 1.001, max(0.0, v * side - 0.5))
                i, j = int(x), int(y)
                a, b = x - i, y - j
                for k in range(3):
                    upper = backdrop_hw3[j, i, k] * (1 - a) + backdrop_hw3[j, i + 1, k] * a
                    lower = backdrop_hw3[j + 1, i, k] * (1 - a) + backdrop_hw3[j + 1, i + 1, k] * a
                    out_hw3[row, column, k] = upper * (1 - b) + lower * b
                continue
            m = material_t[t]
            a, b, c = triangles_t3[t, 0], triangles_t3[t, 1], triangles_t3[t, 2]
            wa, wb, wc = weights_hw3[row, column, 0], weights_hw3[row, column, 1], weights_hw3[row, column, 2]
            s0 = surface_v3[a, 0] * wa + surface_v3[b, 0] * wb + surface_v3[c, 0] * wc
            s1 = surface_v3[a, 1] * wa + surface_v3[b, 1] * wb + surface_v3[c, 1] * wc
            s2 = surface_v3[a, 2] * wa + surface_v3[b, 2] * wb + surface_v3[c, 2] * wc
            nx = normals_v3[a, 0] * wa + normals_v3[b, 0] * wb + normals_v3[c, 0] * wc
            ny = normals_v3[a, 1] * wa + normals_v3[b, 1] * wb + normals_v3[c, 1] * wc
            nz = normals_v3[a, 2] * wa + normals_v3[b, 2] * wb + normals_v3[c, 2] * wc
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            if nz < -0.25 * length:
                length = -length
            nx, ny, nz = nx / length, ny / length, nz / length
            px = position_v3[a, 0] * wa + position_v3[b, 0] * wb + position_v3[c, 0] * wc
            py = position_v3[a, 1] * wa + position_v3[b, 1] * wb + position_v3[c, 1] * wc
            pz = position_v3[a, 2] * wa + position_v3[b, 2] * wb + position_v3[c, 2] * wc
            open_sky = occlusion_v[a] * wa + occlusion_v[b] * wb + occlusion_v[c] * wc
            ndl = nx * lamp.x + ny * lamp.y + nz * lamp.z
            lit = 1.0
            if lamp.shadows and (ndl > -0.35 or m == HAIR):
                lit = _lit(lamp, shadow_hw, px, py, pz)
            ndf = max(0.0, nx * lamp.fill_x + ny * lamp.fill_y + nz * lamp.fill_z) * lamp.fill
            ndh = max(0.0, nx * hx + ny * hy + nz * hz)
            specular, wrap_red, wrap = 0.0, 0.05, 0.05
            if m == SKIN:
                _sample(texture_hwc, s0, s1, skin)
                lip = lip_v[a] * wa + lip_v[b] * wb + lip_v[c] * wc if s2 > 1.15 else 0.0
                y = 8.5 - 3.0 * s1
                cloth = y < look.collar - 0.35 * smoothstep(0.2, 0.9, s2)
                beard = min(1.0, skin[3] * look.beard) * (1 - lip)
                gloss = skin[4]
                for k in range(3):
                    v = skin[k] * (1 - lip) + look.lip[k] * lip
                    albedo[k] = v * (1 - beard) + look.hair[k] * 0.8 * beard
                if cloth:
                    weave = 1 + 0.10 * noise(table, s0 * 700, s1 * 700)
                    for k in range(3):
                        albedo[k] = look.cloth[k] * weave
                else:
                    wrap_red, wrap = 0.34, 0.14
                    edge = (1 - max(0.0, nz)) ** 4
                    specular = (0.06 + 0.09 * lip) * gloss * ndh**14 + (0.10 + 0.10 * lip) * gloss * ndh**48
                    specular = (specular + 0.10 * edge * max(0.0, ndl)) * (1 - 0.8 * beard)
            elif m == EYE:
                e = 0 if s0 > 0 else 1
                ex, ey = s0 - eye_centre_23[e, 0], s1 - eye_centre_23[e, 1]
                _eye_colour(look, table, ex - look.gaze_x * 0.055, ey - look.gaze_y * 0.035, ex, albedo)
                lid = 0.45 + 0.55 * smoothstep(0.085, -0.01, ey)
                open_sky = min(1.0, max(0.35, open_sky)) * lid
                lit = lit * lid
                specular = 1.6 * ndh**180 + 0.12 * ndh**20
                gx, gy = ex - look.gaze_x * 0.05 - 0.022 - 0.02 * lamp.x, ey - look.gaze_y * 0.03 - 0.03
                specular += 0.9 * smoothstep(0.016, 0.008, np.sqrt(gx * gx + gy * gy)) / max(0.3, lit)
            elif m in (TEETH, TONGUE):
                open_sky = min(1.0, max(0.10, (s2 - 0.95) / 0.62))
                lit *= open_sky
                colours = (0.72, 0.66, 0.54) if m == TEETH else (0.50, 0.20, 0.19)
                for k in range(3):
                    albedo[k] = colours[k]
                specular = 0.15 * ndh**30
            elif m == LASH:
                for k in range(3):
                    albedo[k] = min(0.05, look.hair[k] * 0.3)
            elif m == PLAIN:
                p = int(s0 + 0.5)
                pattern = palette_p5[p, 4]
                tone = 1 + 0.12 * pattern * noise(table, s1 * 90, s2 * 90)
                for k in range(3):
                    albedo[k] = palette_p5[p, k] * tone
                specular = palette_p5[p, 3] * (0.5 * ndh**60 + 0.1 * ndh**8)
            else:
                along, card = 0.35, 0
                strand = 0.0
                tx = tangents_v3[a, 0] * wa + tangents_v3[b, 0] * wb + tangents_v3[c, 0] * wc
                ty = tangents_v3[a, 1] * wa + tangents_v3[b, 1] * wb + tangents_v3[c, 1] * wc
                tz = tangents_v3[a, 2] * wa + tangents_v3[b, 2] * wb + tangents_v3[c, 2] * wc
                if m == HAIR:
                    along, card = s1, int(surface_v3[a, 2] + 0.5)
                    strand = unit_hash(card, 17 + int((s0 + 1) * 2.5)) - 0.5
                    strand += 0.5 * noise(table, (s0 + 1) * 9 + card * 3.7, along * 3)
                else:
                    strand = 0.5 * noise(table, s0 * 30, s1 * 30 + s2 * 30) - 0.4
                tone = np.exp(0.55 * strand) * (0.45 + 0.55 * smoothstep(0.0, 0.45, along))
                silver = look.grey if unit_hash(card, 3 + int((s0 + 1) * 2.5)) < 0.25 + look.grey else 0.3 * look.grey
                lt = tx * lamp.x + ty * lamp.y + tz * lamp.z
                ht = tx * hx + ty * hy + tz * hz
                shine = np.sqrt(max(0.0, 1 - ht * ht))
                across = np.sqrt(max(0.0, 1 - lt * lt))
                for k in range(3):
                    albedo[k] = (look.hair[k] * (1 - silver) + 0.42 * silver) * tone
                ndl = 0.55 * max(0.0, ndl + 0.2) / 1.2 + 0.45 * across * max(0.0, 0.4 + 0.6 * ndl)
                specular = (0.05 * shine**60 + 0.25 * albedo[0] * shine**14) * max(0.0, ndl) if m == HAIR else 0.0
                open_sky = 0.55 + 0.45 * along
                wrap_red = wrap = 0.0
            sky = 0.5 + 0.5 * ny
            for k in range(3):
                w = wrap_red if k == 0 else wrap
                diffuse = min(1.0, max(0.0, (ndl + w) / (1 + w)))
                shadow = lit + (1 - lit) * (0.10 if k == 0 and m == SKIN else 0.04)
                ambient = (lamp.sky[k] * sky + lamp.ground[k] * (1 - sky)) * open_sky
                light = lamp.key[k] * (diffuse * shadow * (0.6 + 0.4 * open_sky) + ndf) + ambient
                out_hw3[row, column, k] = albedo[k] * light + specular * lit * lamp.key[k]


@kernel
def blend_lens(triangle_hw, weights_hw3, triangles_t3, surface_v3, normals_v3, palette_p5, lamp, out_hw3):
    """Glass over the shaded picture: a tint of the palette's last column's opacity, and reflections."""
    size = triangle_hw.shape[0]
    for row in range(size):
        for column in range(size):
            t = triangle_hw[row, column]
            if t < 0:
                continue
            a, b, c = triangles_t3[t, 0], triangles_t3[t, 1], triangles_t3[t, 2]
            wa, wb, wc = weights_hw3[row, column, 0], weights_hw3[row, column, 1], weights_hw3[row, column, 2]
            p = int(surface_v3[a, 0] + 0.5)
            u = surface_v3[a, 1] * wa + surface_v3[b, 1] * wb + surface_v3[c, 1] * wc
            v = surface_v3[a, 2] * wa + surface_v3[b, 2] * wb + surface_v3[c, 2] * wc
            opacity, gloss = palette_p5[p, 4], palette_p5[p, 3]
            streak = smoothstep(0.5, 0.9, np.sin(9.0 * (u + 0.7 * v) + 3.0 * lamp.x))
            sheen = gloss * (0.03 + 0.07 * streak * max(0.0, lamp.z))
            for k in range(3):
                tinted = palette_p5[p, k] * (lamp.sky[k] * 0.6 + 0.3 * lamp.key[k])
                under = out_hw3[row, column, k]
                out_hw3[row, column, k] = (
                    under * (1 - opacity) + tinted * opacity + sheen * (lamp.sky[k] + lamp.key[k])
                )
