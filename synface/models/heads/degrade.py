"""From linear light to a damaged 8-bit picture: tone curve, blur, low resolution, noise, block compression."""

import functools

import numpy as np

from synface.core.rng import generator
from synface.models.heads.kernel import kernel
from synface.models.heads.variation import Quality

#: the luminance and chrominance tables of the JPEG standard (ITU T.81, annex K)
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float64,
)  # fmt: skip
_CHROMA = np.full((8, 8), 99.0)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_DCT = np.array(
    [[np.sqrt((2 if k else 1) / 8) * np.cos((2 * n + 1) * k * np.pi / 16) for n in range(8)] for k in range(8)]
)


@functools.cache
def tone_curve() -> np.ndarray:
    """Display value of linear light, float64 [1025], over the square root of the light in 0..2."""
    v = np.linspace(0, 2, 1025) ** 2
    v = v * (1 + 0.20 * v) / (1 + 0.60 * v * np.sqrt(v))
    return np.minimum(1.0, np.maximum.accumulate(v)) ** (1 / 2.2)


@kernel
def develop(linear_hw3, factor, gain, contrast, saturation, warmth, curve, out_hw3):
    """Box-average factor x factor samples, tone-map and encode: float32 out in 0..1 (display values)."""
    size = out_hw3.shape[0]
    pixel = np.empty(3)
    for y in range(size):
        for x in range(size):
            for k in range(3):
                total = 0.0
                for j in range(factor):
                    for i in range(factor):
                        total += min(4.0, linear_hw3[y * factor + j, x * factor + i, k])
                pixel[k] = max(0.0, total / (factor * factor) * gain)
            pixel[0] *= 1 + warmth
            pixel[2] *= 1 - warmth
            grey = 0.3 * pixel[0] + 0.59 * pixel[1] + 0.11 * pixel[2]
            for k in range(3):
                place = min(1023.999, 512.0 * np.sqrt(max(0.0, grey + (pixel[k] - grey) * saturation)))
                i = int(place)
                v = curve[i] + (curve[i + 1] - curve[i]) * (place - i)
                out_hw3[y, x, k] = min(1.0, max(0.0, 0.45 + (v - 0.45) * contrast))


@kernel
def gaussian_blur(image_hw3, sigma, out_hw3):
    """Separable Gaussian with mirrored borders; `out` may not be the input."""
    size = image_hw3.shape[0]
    reach = int(3 * sigma + 0.999)
    weights = np.empty(2 * reach + 1)
    for k in range(2 * reach + 1):
        weights[k] = np.exp(-0.5 * ((k - reach) / sigma) ** 2)
    weights /= weights.sum()
    rows = np.empty_like(image_hw3)
    for y in range(size):
        for x in range(size):
            for c in range(3):
                total = 0.0
                for k in range(2 * reach + 1):
                    i = abs(x + k - reach)
                    i = min(i, 2 * (size - 1) - i)
                    total += weights[k] * image_hw3[y, max(0, i), c]
                rows[y, x, c] = total
    for y in range(size):
        for x in range(size):
            for c in range(3):
                total = 0.0
                for k in range(2 * reach + 1):
                    i = abs(y + k - reach)
                    i = min(i, 2 * (size - 1) - i)
                    total += weights[k] * rows[max(0, i), x, c]
                out_hw3[y, x, c] = total


@kernel
def resize(image_hw3, out_hw3):
    """Area average when shrinking, bilinear when enlarging (square pictures)."""
    source, target = image_hw3.shape[0], out_hw3.shape[0]
    scale = source / target
    for y in range(target):
        for x in range(target):
            for c in range(3):
                if scale > 1:
                    total, count = 0.0, 0
                    for j in range(int(y * scale), max(int(y * scale) + 1, int((y + 1) * scale))):
                        for i in range(int(x * scale), max(int(x * scale) + 1, int((x + 1) * scale))):
                            total += image_hw3[min(j, source - 1), min(i, source - 1), c]
                            count += 1
                    out_hw3[y, x, c] = total / count
                else:
                    sy = min(source - 1.0, max(0.0, (y + 0.5) * scale - 0.5))
                    sx = min(source - 1.0, max(0.0, (x + 0.5) * scale - 0.5))
                    j, i = int(sy), int(sx)
                    v, u = sy - j, sx - i
                    j1, i1 = min(j + 1, source - 1), min(i + 1, source - 1)
                    upper = image_hw3[j, i, c] * (1 - u) + image_hw3[j, i1, c] * u
                    lower = image_hw3[j1, i, c] * (1 - u) + image_hw3[j1, i1, c] * u
                    out_hw3[y, x, c] = upper * (1 - v) + lower * v


@kernel
def block_compress(image_hw3, luma_88, chroma_88, dct_88):
    """Quantise the 8x8 DCT of Y, Cb, Cr in place, with chroma at half resolution when the size allows it.

    The blocking and ringing of baseline JPEG without its entropy coding; values are 0..255.
    """
    size = image_hw3.shape[0]
    padded = (size + 15) // 16 * 16
    ycc = np.empty((3, padded, padded))
    for y in range(padded):
        for x in range(padded):
            r = image_hw3[min(y, size - 1), min(x, size - 1), 0]
            g = image_hw3[min(y, size - 1), min(x, size - 1), 1]
            b = image_hw3[min(y, size - 1), min(x, size - 1), 2]
            ycc[0, y, x] = 0.299 * r + 0.587 * g + 0.114 * b - 128
            ycc[1, y, x] = -0.168736 * r - 0.331264 * g + 0.5 * b
            ycc[2, y, x] = 0.5 * r - 0.418688 * g - 0.081312 * b
    half = padded // 2
    block, part = np.empty((8, 8)), np.empty((8, 8))
    for channel in range(3):
        side = padded if channel == 0 else half
        plane = np.empty((side, side))
        for y in range(side):
            for x in range(side):
                if channel == 0:
                    plane[y, x] = ycc[0, y, x]
                else:
                    s = ycc[channel, 2 * y, 2 * x] + ycc[channel, 2 * y, 2 * x + 1]
                    plane[y, x] = (s + ycc[channel, 2 * y + 1, 2 * x] + ycc[channel, 2 * y + 1, 2 * x + 1]) / 4
        table = luma_88 if channel == 0 else chroma_88
        for by in range(0, side, 8):
            for bx in range(0, side, 8):
                for i in range(8):
                    for j in range(8):
                        s = 0.0
                        for k in range(8):
                            s += dct_88[i, k] * plane[by + k, bx + j]
                        part[i, j] = s
                for i in range(8):
                    for j in range(8):
                        s = 0.0
                        for k in range(8):
                            s += part[i, k] * dct_88[j, k]
                        block[i, j] = np.rint(s / table[i, j]) * table[i, j]
                for i in range(8):
                    for j in range(8):
                        s = 0.0
                        for k in range(8):
                            s += dct_88[k, i] * block[k, j]
                        part[i, j] = s
                for i in range(8):
                    for j in range(8):
                        s = 0.0
                        for k in range(8):
                            s += part[i, k] * dct_88[k, j]
                        plane[by + i, bx + j] = s
        for y in range(padded):
            for x in range(padded):
                ycc[channel, y, x] = plane[y, x] if channel == 0 else plane[y // 2, x // 2]
    for y in range(size):
        for x in range(size):
            luma, cb, cr = ycc[0, y, x] + 128, ycc[1, y, x], ycc[2, y, x]
            image_hw3[y, x, 0] = luma + 1.402 * cr
            image_hw3[y, x, 1] = luma - 0.344136 * cb - 0.714136 * cr
            image_hw3[y, x, 2] = luma + 1.772 * cb


@kernel
def add_grain(image_hw3, grain_hw4, amount):
    """Add sensor noise in place: shot noise, mostly common to the three colours. All in float32."""
    common, own = np.float32(0.8), np.float32(0.6)
    for y in range(image_hw3.shape[0]):
        for x in range(image_hw3.shape[1]):
            shared = common * grain_hw4[y, x, 3]
            for k in range(3):
                value = image_hw3[y, x, k]
                shot = np.sqrt(max(value, np.float32(4)) / np.float32(128))
                image_hw3[y, x, k] = value + amount * shot * (shared + own * grain_hw4[y, x, k])


@kernel
def to_bytes(image_hw3, out_hw3):
    """Round values of 0..255, clipped, to uint8 (halves to even)."""
    for y in range(image_hw3.shape[0]):
        for x in range(image_hw3.shape[1]):
            for k in range(3):
                value = min(np.float32(255), max(np.float32(0), image_hw3[y, x, k]))
                out_hw3[y, x, k] = np.uint8(np.rint(value))


def quantisation(quality: int) -> tuple[np.ndarray, np.ndarray]:
    """The two tables at a quality 1..100, by the usual scaling of the IJG library."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = (np.clip(np.floor((t * scale + 50) / 100), 1, 255) for t in (_LUMA, _CHROMA))
    luma, chroma = tables
    return luma, chroma


def finish(linear_hw3: np.ndarray, supersampling: int, quality: Quality, seed: int) -> np.ndarray:
    """The final picture, uint8 [size, size, 3], from supersampled linear light.

    Order: sensor exposure and tone, lens blur, lost resolution, sensor noise, compression.
    """
    size = linear_hw3.shape[0] // supersampling
    scale = size / 112
    image = np.empty((size, size, 3), np.float32)
    gain = float(2.0**quality.exposure)
    develop(linear_hw3, supersampling, gain, quality.contrast, quality.saturation, quality.warmth, tone_curve(), image)
    if quality.blur * scale > 0.05:
        blurred = np.empty_like(image)
        gaussian_blur(image, float(quality.blur * scale), blurred)
        image = blurred
    if quality.resolution < 1:
        small = np.empty((max(8, round(size * quality.resolution)),) * 2 + (3,), np.float32)
        resize(image, small)
        resize(small, image)
    image *= 255
    if quality.noise > 0:
        r = generator("heads", "noise", seed)
        grain = r.standard_normal((size, size, 4), dtype=np.float32)
        add_grain(image, grain, np.float32(quality.noise))
    if quality.jpeg < 100:
        np.clip(image, 0, 255, out=image)
        block_compress(image, *quantisation(quality.jpeg), _DCT)
    out = np.empty(image.shape, np.uint8)
    to_bytes(image, out)
    return out
