"""Augmentation of face crops: keyed draws, and one pass over the pixels.

The augmentation of image i in epoch e depends on ``(seed, e, i)`` alone. Random numbers come from the
counter-based Philox4x32-10 (Salmon et al., SC 2011), computed for a whole batch at once: the key is the
seed's, the counter is (block, epoch, image). The kernel then reads each uint8 crop once and writes network
input, images independent of each other.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np

from synface.core import crops
from synface.core.rng import derived_seed

#: ITU-R BT.601 luma, as the field's colour jitter uses
LUMA = np.array([0.299, 0.587, 0.114])
#: uniforms that one image takes, in this order
DRAWS = (
    "flip", "zoom", "shift_y", "shift_x", "angle", "brightness", "contrast", "saturation", "hue", "grey",
    "erase", "erase_area", "erase_aspect", "erase_y", "erase_x", "low_resolution", "resolution", "noise", "spare",
    "noise_key", "shear_x", "shear_y", "stretch",
)  # fmt: skip


class AugmentationSettings(Protocol):
    """What `draw` reads (``train.config.Augmentation``)."""

    flip: float
    crop_scale: tuple[float, float]
    shift: float
    rotation: float
    shear: float
    stretch: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey: float
    erasing: float
    erasing_area: tuple[float, float]
    low_resolution: float
    resolution: tuple[float, float]
    noise: float


@dataclass(frozen=True)
class Draws:
    """One row per image; the kernel's input.

    Attributes:
        affine: float64 [n, 2, 3], output pixel (x, y, 1) to source pixel (x, y).
        colour: float64 [n, 3, 3] on RGB, and `grey` float64 [n] times the image's mean luma is added.
        box: int64 [n, 4], erased rows and columns (y0, y1, x0, x1); empty: none.
        side: int64 [n], pixels a side that survive a loss of resolution; the crop's own side: none lost.
        noise: float64 [n], standard deviation in grey levels; `key` uint64 [n] of its numbers.
    """

    affine: np.ndarray
    colour: np.ndarray
    grey: np.ndarray
    box: np.ndarray
    side: np.ndarray
    noise: np.ndarray
    key: np.ndarray


def philox(counter_n4: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: uint32 counters [n, 4] to random uint32 [n, 4]."""
    c0, c1, c2, c3 = (counter_n4[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = (np.uint64(k) for k in key)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], 1).astype(np.uint32)


def uniforms(seed: int, epoch: int, index_n: np.ndarray, count: int) -> np.ndarray:
    """Uniform [0, 1) float64 [n, count]; row i depends on ``(seed, epoch, index_n[i])`` alone."""
    key = derived_seed(seed, "augment")
    blocks = -(-count // 4)
    index = np.asarray(index_n, np.uint64)
    counter = np.empty((len(index), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = np.uint32(epoch)
    counter[..., 2] = (index & np.uint64(0xFFFFFFFF)).astype(np.uint32)[:, None]
    counter[..., 3] = (index >> np.uint64(32)).astype(np.uint32)[:, None]
    words = philox(counter.reshape(-1, 4), (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF))
    return words.reshape(len(index), -1)[:, :count] * 2.0**-32


def draw(settings: AugmentationSettings, seed: int, epoch: int, index_n: np.ndarray, size: int) -> Draws:
    """The augmentations of the images `index_n` (their numbers in the data set) in one epoch."""
    u: dict[str, np.ndarray] = dict(zip(DRAWS, uniforms(seed, epoch, index_n, len(DRAWS)).T, strict=True))
    box = erasing_boxes(settings, u, size)
    lost = u["low_resolution"] < settings.low_resolution
    share = between(u["resolution"], settings.resolution)
    return Draws(
        affine=affine(settings, u, size),
        **colour(settings, u),
        box=box,
        side=np.where(lost, np.clip(np.rint(share * size), 2, size), size).astype(np.int64),
        noise=settings.noise * 255 * u["noise"],
        key=(u["noise_key"] * 2.0**32).astype(np.uint64),
    )


def between(u_n: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Uniforms in [0, 1) moved to `limits`."""
    return limits[0] + u_n * (limits[1] - limits[0])


def affine(settings: AugmentationSettings, u: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Mirror, crop of area `crop_scale` at a random place, shift, rotation and warp about the centre, [n, 2, 3].

    The warp comes before the rotation: ``[[a, a tan x], [tan(y) / a, 1 / a]]`` with x and y up to `shear` degrees and
    a log-uniform in ``[1 / (1 + stretch), 1 + stretch]``.
    """
    zoom = np.sqrt(between(u["zoom"], settings.crop_scale))
    angle = np.deg2rad(settings.rotation) * (2 * u["angle"] - 1)
    sign = np.where(u["flip"] < settings.flip, -1.0, 1.0)
    free = (1 - zoom) / 2 * size + settings.shift * size  # how far the crop's centre may move
    centre = (size - 1) / 2
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.stack([cos * sign, -sin, sin * sign, cos], 1).reshape(-1, 2, 2)
    if settings.shear or settings.stretch:  # else the bits stay what they were without them
        x, y = (np.tan(np.deg2rad(settings.shear) * (2 * u[name] - 1)) for name in ("shear_x", "shear_y"))
        a = (1 + settings.stretch) ** (2 * u["stretch"] - 1)
        linear = linear @ np.stack([a, a * x, y / a, 1 / a], 1).reshape(-1, 2, 2)
    moved = np.stack([(2 * u["shift_x"] - 1) * free, (2 * u["shift_y"] - 1) * free], 1) + centre
    return np.concatenate([linear, (moved - linear.sum(2) * centre)[:, :, None]], 2)


def colour(settings: AugmentationSettings, u: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brightness, contrast about the mean luma, saturation and hue as one linear map per image.

    ``out = H S (c b x + (1 - c) b g)`` with g the image's mean luma; S and H keep grey, so the offset is
    ``(1 - c) b g``. Hue turns about the grey axis by up to ``hue`` of a full circle.
    """
    brightness, contrast, saturation = (
        1 + getattr(settings, name) * (2 * u[name] - 1) for name in ("brightness", "contrast", "saturation")
    )
    saturation = np.where(u["grey"] < settings.grey, 0.0, saturation)
    to_grey = np.broadcast_to(LUMA, (3, 3))
    s = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * to_grey
    matrix = rotation_about_grey(2 * math.pi * settings.hue * (2 * u["hue"] - 1)) @ s
    return {"colour": (contrast * brightness)[:, None, None] * matrix, "grey": (1 - contrast) * brightness}


def rotation_about_grey(angle_n: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] of RGB about (1, 1, 1) (Rodrigues)."""
    cos, sin = np.cos(angle_n)[:, None, None], np.sin(angle_n)[:, None, None]
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return cos * np.eye(3) + sin * cross + (1 - cos) / 3


def erasing_boxes(settings: AugmentationSettings, u: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Random erasing (Zhong et al., AAAI 2020): area share `erasing_area`, aspect log-uniform in [0.3, 3.3]."""
    area = between(u["erase_area"], settings.erasing_area) * size * size
    aspect = np.exp(between(u["erase_aspect"], (math.log(0.3), math.log(1 / 0.3))))
    height = np.clip(np.rint(np.sqrt(area * aspect)), 1, size)
    width = np.clip(np.rint(np.sqrt(area / aspect)), 1, size)
    top = np.floor(u["erase_y"] * (size - height + 1))
    left = np.floor(u["erase_x"] * (size - width + 1))
    boxes = np.stack([top, top + height, left, left + width], 1).astype(np.int64)
    boxes[u["erase"] >= settings.erasing] = 0
    return boxes


def apply(images_nhwc: np.ndarray, draws: Draws) -> np.ndarray:
    """uint8 [n, s, s, 3] to network input float32 [n, s, s, 3] in [-1, 1] (channels last)."""
    out = np.empty(images_nhwc.shape, np.float32)
    _augment(images_nhwc, draws.affine, draws.colour, draws.grey, draws.box, draws.side, draws.noise, draws.key, out)
    return out


def plain(images_nhwc: np.ndarray) -> np.ndarray:
    """Network input without augmentation, float32 [n, s, s, 3]."""
    return (images_nhwc.astype(np.float32) - np.float32(crops.PIXEL_MEAN)) / np.float32(crops.PIXEL_SCALE)


@numba.njit(nogil=True, cache=True)
def _augment(images, affine, colour, grey, box, side, noise, key, out):  # pragma: no cover (compiled)
    count, size = images.shape[0], images.shape[1]
    work = np.empty((size, size, 3), np.float32)
    words = np.zeros(size * size + size + 1, np.uint32)  # a row more: the right and lower neighbours of the last pixel
    lines = np.empty((5, size), np.float32)
    for i in range(count):
        _pack(images[i], words)
        _resample(words, affine[i], colour[i], grey[i] * _mean_luma(images[i]), lines, work)
        if side[i] < size:
            _lose_resolution(work, side[i])
        if noise[i] > 0:
            _add_noise(work, np.float32(noise[i]), key[i])
        _finish(work, box[i], out[i])


@numba.njit(nogil=True, cache=True)
def _mean_luma(image):  # pragma: no cover (compiled)
    red = green = blue = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red += image[y, x, 0]
            green += image[y, x, 1]
            blue += image[y, x, 2]
    return (0.299 * red + 0.587 * green + 0.114 * blue) / (image.shape[0] * image.shape[1])


@numba.njit(nogil=True, cache=True)
def _pack(image, words):  # pragma: no cover (compiled)
    """A pixel's three bytes in one word, so that one look gets all of them."""
    size = image.shape[0]
    for y in range(size):
        for x in range(size):
            red, green, blue = np.uint32(image[y, x, 0]), np.uint32(image[y, x, 1]), np.uint32(image[y, x, 2])
            words[y * size + x] = red | (green << np.uint32(8)) | (blue << np.uint32(16))


@numba.njit(nogil=True, cache=True)
def _resample(words, affine, colour, offset, lines, work):  # pragma: no cover (compiled)
    """Bilinear, the border repeated; then the colour map.

    Row by row in three plain loops and single precision throughout: so the compiler makes vector instructions of them,
    which give the same bits on every processor (nothing is fused).
    """
    size = work.shape[0]
    place = np.empty(size, np.uint32)
    shift_x, shift_y, red, green, blue = lines[0], lines[1], lines[2], lines[3], lines[4]
    a, m = affine.astype(np.float32), colour.astype(np.float32)
    for y in range(size):
        _sources(a[0, 0], a[0, 1] * np.float32(y) + a[0, 2], a[1, 0], a[1, 1] * np.float32(y) + a[1, 2],
                 place, shift_x, shift_y)  # fmt: skip
        _blend(words, np.uint32(size), place, shift_x, shift_y, red, green, blue)
        _mix(m, np.float32(offset), red, green, blue, work[y].reshape(-1))


@numba.njit(nogil=True, cache=True)
def _sources(step_x, start_x, step_y, start_y, place, shift_x, shift_y):  # pragma: no cover (compiled)
    """For one row of output pixels: the word of the upper left neighbour, and how far beyond it the source lies."""
    size = place.size
    last = np.float32(size - 1)
    for x in range(size):
        sx = min(max(step_x * np.float32(x) + start_x, np.float32(0)), last)
        sy = min(max(step_y * np.float32(x) + start_y, np.float32(0)), last)
        x0, y0 = np.int32(sx), np.int32(sy)
        shift_x[x] = sx - np.float32(x0)
        shift_y[x] = sy - np.float32(y0)
        place[x] = np.uint32(np.int32(y0 * size) + x0)


@numba.njit(nogil=True, cache=True)
def _blend(words, stride, place, shift_x, shift_y, red, green, blue):  # pragma: no cover (compiled)
    """Bilinear mean of four neighbours; beyond the last column and row the weight is zero."""
    one, byte = np.uint32(1), np.uint32(255)
    for x in range(place.size):
        i = place[x]
        p, q = words[i], words[np.uint32(i + one)]
        s, t = words[np.uint32(i + stride)], words[np.uint32(i + stride + one)]
        fx, fy = shift_x[x], shift_y[x]
        gx, gy = np.float32(1) - fx, np.float32(1) - fy
        w00, w01, w10, w11 = gy * gx, gy * fx, fy * gx, fy * fx
        red[x] = (
            w00 * np.float32(np.int32(p & byte)) + w01 * np.float32(np.int32(q & byte))
            + w10 * np.float32(np.int32(s & byte)) + w11 * np.float32(np.int32(t & byte))
        )  # fmt: skip
        eight, sixteen = np.uint32(8), np.uint32(16)
        green[x] = (
            w00 * np.float32(np.int32((p >> eight) & byte)) + w01 * np.float32(np.int32((q >> eight) & byte))
            + w10 * np.float32(np.int32((s >> eight) & byte)) + w11 * np.float32(np.int32((t >> eight) & byte))
        )  # fmt: skip
        blue[x] = (
            w00 * np.float32(np.int32(p >> sixteen)) + w01 * np.float32(np.int32(q >> sixteen))
            + w10 * np.float32(np.int32(s >> sixteen)) + w11 * np.float32(np.int32(t >> sixteen))
        )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _mix(m, add, red, green, blue, row):  # pragma: no cover (compiled)
    """The colour map of a row, channels interleaved."""
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]  # by name: else they are loaded again for every pixel
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    for x in range(red.size):
        row[3 * x] = m00 * red[x] + m01 * green[x] + m02 * blue[x] + add
        row[3 * x + 1] = m10 * red[x] + m11 * green[x] + m12 * blue[x] + add
        row[3 * x + 2] = m20 * red[x] + m21 * green[x] + m22 * blue[x] + add


@numba.njit(nogil=True, cache=True)
def _lose_resolution(work, side):  # pragma: no cover (compiled)
    """Down to side x side by averaging whole pixels, up again bilinearly."""
    size = work.shape[0]
    small = np.zeros((side, side, 3), np.float32)
    weight = np.zeros((side, side), np.float32)
    for y in range(size):
        for x in range(size):
            v, u = y * side // size, x * side // size
            weight[v, u] += 1
            for c in range(3):
                small[v, u, c] += work[y, x, c]
    for y in range(size):
        for x in range(size):
            sy = min(max((y + 0.5) * side / size - 0.5, 0.0), side - 1.0)
            sx = min(max((x + 0.5) * side / size - 0.5, 0.0), side - 1.0)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
            fy, fx = sy - y0, sx - x0
            for c in range(3):
                top = (1 - fx) * small[y0, x0, c] / weight[y0, x0] + fx * small[y0, x1, c] / weight[y0, x1]
                bottom = (1 - fx) * small[y1, x0, c] / weight[y1, x0] + fx * small[y1, x1, c] / weight[y1, x1]
                work[y, x, c] = (1 - fy) * top + fy * bottom


@numba.njit(nogil=True, cache=True)
def _hash(value):  # pragma: no cover (compiled)
    """splitmix64's finaliser (Steele et al., OOPSLA 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _add_noise(work, noise, key):  # pragma: no cover (compiled)
    """A sum of four uniforms of variance one times `noise`, keyed by the place."""
    state = np.uint64(key) << np.uint64(32)
    scale = np.float32(1.7320508 / 65536.0)  # four uint16: variance 65536**2 / 3
    values = work.reshape(-1)
    for i in range(values.size):
        word = _hash((state + np.uint64(i + 1)) * np.uint64(0x9E3779B97F4A7C15))
        total = (
            np.int64(word & np.uint64(0xFFFF))
            + np.int64((word >> np.uint64(16)) & np.uint64(0xFFFF))
            + np.int64((word >> np.uint64(32)) & np.uint64(0xFFFF))
            + np.int64(word >> np.uint64(48))
        )
        values[i] += noise * scale * np.float32(total - 131070)


@numba.njit(nogil=True, cache=True)
def _finish(work, box, out):  # pragma: no cover (compiled)
    """Clipping, scaling to [-1, 1], erasing to mid-grey."""
    values, scaled = work.reshape(-1), out.reshape(-1)
    for i in range(values.size):
        value = min(max(values[i], np.float32(0)), np.float32(255))
        scaled[i] = (value - np.float32(127.5)) / np.float32(127.5)
    for y in range(box[0], box[1]):
        for x in range(box[2], box[3]):
            for c in range(3):
                out[y, x, c] = np.float32(0)
