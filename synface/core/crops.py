"""Crop conventions: the ArcFace five-point template and the similarity transform onto it.

Template and pixel range are those of the field (insightface): 112x112 RGB uint8, (x - 127.5) / 127.5.
Other sizes scale the template about the image's corner.
"""

import numpy as np

#: eyes (image left, image right), nose tip, mouth corners (left, right) as x, y in a 112x112 crop
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
#: the same points where FFHQ's alignment puts them in an image of 512x512 (GFPGAN and facexlib restore with them)
FFHQ_TEMPLATE = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
     [313.08905, 371.15118]]
)  # fmt: skip
FFHQ_SIZE = 512
CROP_SIZE = 112
CROP_CONVENTION = "arcface-five-point"
#: how images are laid on the template: part of the name of what was made by landmarks. 2: least squares in the crop,
#: as in the field's scripts; 1 had it in the image, which enlarges profiles
ALIGNMENT = "2"
COLOUR_ORDER = "RGB"
#: what recognizers' weights may have been trained on; images here are always RGB (`COLOUR_ORDER`)
COLOUR_ORDERS = ("RGB", "BGR")
PIXEL_MEAN = 127.5
PIXEL_SCALE = 127.5


def template(size: int) -> np.ndarray:
    """The five points for a square crop of `size` pixels, float64 [5, 2]."""
    return ARCFACE_TEMPLATE * (size / CROP_SIZE)


def similarity_transform(source_k2: np.ndarray, target_k2: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift, [2, 3], with ``target ~ source @ A[:, :2].T + A[:, 2]``.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991; in the plane without reflection it has this closed form.
    """
    mean_s, mean_t = source_k2.mean(0), target_k2.mean(0)
    s, t = source_k2 - mean_s, target_k2 - mean_t
    energy = (s**2).sum()
    if energy == 0:
        raise ValueError("the source points coincide: no similarity transform exists")
    cos = (s * t).sum() / energy
    sin = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / energy
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, mean_t - linear @ mean_s])


def inverse(forward: np.ndarray) -> np.ndarray:
    """The similarity transform back, [2, 3]; LinAlgError where `forward` maps everything to one point."""
    linear = np.linalg.inv(forward[:, :2])
    return np.column_stack([linear, -linear @ forward[:, 2]])


def to_network(images_nhwc: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    x = (images_nhwc.astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def from_network(x_nchw: np.ndarray) -> np.ndarray:
    """Float [n, 3, h, w] in [-1, 1] to uint8 [n, h, w, 3], rounded and clipped."""
    x = np.rint(np.clip(x_nchw, -1, 1) * PIXEL_SCALE + PIXEL_MEAN).astype(np.uint8)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))
