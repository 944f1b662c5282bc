"""Encoded images: pixels to bytes and back. Equal pixels and options give equal bytes (same Pillow build)."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from synface.core import crops
from synface.core.errors import InputError, unknown_name
from synface.store import provenance

#: format -> file suffix
IMAGE_FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
#: refuse to decode anything larger: a face crop is at most a few megapixels, and a damaged header claims any size
MAX_PIXELS = 16 << 20


def encode(pixels_hwc: np.ndarray, image_format: str, quality: int, source_type: str) -> bytes:
    """uint8 [h, w, 3] RGB as a marked image file.

    JPEG keeps full colour resolution (4:4:4): at 64 pixels halved chroma visibly bleeds over lips and eyes.
    PNG is lossless and ignores `quality`; WebP is lossy.
    """
    if pixels_hwc.dtype != np.uint8 or pixels_hwc.ndim != 3 or pixels_hwc.shape[2] != 3:
        raise ValueError(f"expected uint8 [h, w, 3], got {pixels_hwc.dtype} {list(pixels_hwc.shape)}")
    image = Image.fromarray(np.ascontiguousarray(pixels_hwc))
    sink = io.BytesIO()
    if image_format == "jpeg":
        image.save(sink, "JPEG", quality=quality, subsampling=0)
        return provenance.mark_jpeg(sink.getvalue(), source_type)
    if image_format == "png":
        image.save(sink, "PNG", compress_level=6)
        return provenance.mark_png(sink.getvalue(), source_type)
    if image_format == "webp":
        image.save(sink, "WEBP", quality=quality, method=4, xmp=provenance.xmp_packet(source_type))
        return sink.getvalue()
    raise unknown_name("image format", image_format, IMAGE_FORMATS)


def decode(data: bytes, where: str = "image") -> np.ndarray:
    """An encoded image as uint8 [h, w, 3] RGB.

    Raises:
        InputError: truncated, damaged, not an image, or absurdly large.
    """
    pixels = _decode_jpeg(data)
    if pixels is not None:
        return pixels
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{where}: {image.width}x{image.height} pixels, allowed {MAX_PIXELS}")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a readable image ({error})") from error


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """Pixels of a whole YCbCr JPEG; None: anything else, which Pillow reads or refuses.

    The same libjpeg-turbo as Pillow's, with the same options, so the same pixels, in half the time: a batch of small
    crops is mostly Pillow's own overhead.
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "YCbCr" or int(height) * int(width) > MAX_PIXELS:
            return None
        return simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:  # damaged, or a warning
        return None


def align(pixels_hwc: np.ndarray, landmarks_52: np.ndarray, size: int) -> np.ndarray:
    """The square crop in which five landmarks lie on the ArcFace template: uint8 [size, size, 3].

    Similarity transform by least squares of distances in the crop (insightface's `norm_crop`; the fit of the template
    to the landmarks, in the image, is another one and enlarges a profile), bilinear, black outside. The field's
    scripts do the same with OpenCV, which rounds the weights to 1/32: grey values may differ by a few levels.

    Args:
        pixels_hwc: uint8 RGB.
        landmarks_52: eyes (image left, image right), nose tip, mouth corners (left, right) as x, y; pixel centres are
            whole numbers, as detectors give them.
        size: side of the crop.

    Raises:
        InputError: landmarks that are not finite, or coincide, or of which no turn and scale makes a face.
    """
    points = np.asarray(landmarks_52, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all() or np.ptp(points, 0).max() == 0:
        raise InputError(f"landmarks {points.tolist()}: expected five different points x, y")
    target = crops.template(size)
    forward = crops.similarity_transform(points, target)
    # the share of the template that the landmarks explain: 1 for a face from the front, 0.87 at a yaw of 65 degrees
    share = np.hypot(*forward[:, 0]) * np.linalg.norm(points - points.mean(0))
    if share < 1e-6 * np.linalg.norm(target - target.mean(0)):
        raise InputError(f"landmarks {points.tolist()}: no turn and scale of them resembles a face")
    back = crops.inverse(forward)
    # Pillow's pixel centres lie at halves, and the black rim moves the image by one
    shift = back[:, 2] + 1.5 - 0.5 * back[:, :2].sum(1)
    place = (*back[0, :2], shift[0], *back[1, :2], shift[1])
    height, width = pixels_hwc.shape[:2]
    rimmed = np.zeros((3, height + 2, width + 2), np.float32)  # whole numbers would be cut, not rounded
    rimmed[:, 1:-1, 1:-1] = pixels_hwc.transpose(2, 0, 1)
    bands = [
        Image.fromarray(band).transform((size, size), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
        for band in rimmed
    ]
    return np.rint(np.stack([np.asarray(band) for band in bands], -1)).astype(np.uint8)


def face_crop(pixels_hwc: np.ndarray, size: int, landmarks_52: np.ndarray | None = None) -> np.ndarray:
    """The ArcFace crop of a large face image: uint8 [size, size, 3].

    As `align`, but the image is first reduced by the whole number that leaves it just larger than the crop: `align`
    alone looks at four pixels of the sixteen that 512 -> 112 pixels leave for one, and aliases.

    Args:
        pixels_hwc: uint8 RGB.
        size: side of the crop.
        landmarks_52: as for `align`; None: where FFHQ's alignment puts them, in an image of any size.

    Raises:
        InputError: as `align`.
    """
    if landmarks_52 is None:
        landmarks_52 = (crops.FFHQ_TEMPLATE + 0.5) * (pixels_hwc.shape[1] / crops.FFHQ_SIZE) - 0.5
    points = np.asarray(landmarks_52, np.float64)
    factor = 1
    if points.shape == (5, 2) and np.isfinite(points).all() and np.ptp(points, 0).max() > 0:  # else align says why not
        scale = np.hypot(*crops.similarity_transform(points, crops.template(size))[:, 0])
        factor = max(1, int(min(1 / max(scale, 1e-9), *pixels_hwc.shape[:2])))
    if factor > 1:
        pixels_hwc = np.asarray(Image.fromarray(pixels_hwc).reduce(factor))
        points = (points + 0.5) / factor - 0.5
    return align(pixels_hwc, points, size)


def suffix_of(data: bytes) -> str:
    """The file suffix that an encoded image's first bytes ask for."""
    if data[:2] == b"\xff\xd8":
        return "jpg"
    if data[:4] == b"\x89PNG":
        return "png"
    return "webp" if data[8:12] == b"WEBP" else "bmp" if data[:2] == b"BM" else "bin"
