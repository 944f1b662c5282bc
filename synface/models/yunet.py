"""OpenCV's YuNet face detector as a detector of `synface bin`; its weights are the user's ONNX file.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023; weights
``face_detection_yunet_2023mar.onnx`` of the OpenCV Zoo (MIT). ``pip install "synface[detector]"``.
"""

import numpy as np
from PIL import Image

from synface.core.errors import InputError
from synface.store import uri as uris

try:
    import cv2
except ImportError as missing:  # the extra is optional
    raise InputError('YuNet needs OpenCV: pip install "synface[detector]"') from missing

#: larger images are made smaller first: the network finds faces of about 10 to 300 pixels
LONGEST_SIDE = 640
#: least score of a face, and overlap beyond which two boxes are one face: as in the OpenCV Zoo
SCORE, OVERLAP, MOST = 0.6, 0.3, 5000


class YuNet:
    """Five landmarks of the main face of an image.

    Args:
        weights: URI of the ONNX file.

    Raises:
        InputError: no such file, or one that is no such network.
    """

    def __init__(self, weights: str):
        data = np.frombuffer(uris.read_bytes(weights), np.uint8)
        self._weights = weights
        try:
            self._network = cv2.FaceDetectorYN.create(
                "onnx", data, np.zeros(0, np.uint8), (320, 320), SCORE, OVERLAP, MOST
            )
        except cv2.error as error:
            raise InputError(f"{weights}: not a network that OpenCV reads ({_reason(error)})") from error

    def __call__(self, pixels_hwc: np.ndarray) -> np.ndarray | None:
        """Landmarks of uint8 RGB [h, w, 3] as `store.images.align` takes them, float64 [5, 2]; None without a face.

        YuNet gives the person's right eye first, which is the left one in an upright image, as in the template.
        """
        height, width = pixels_hwc.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(pixels_hwc)
        small = np.asarray(image if scale == 1 else image.resize(size, Image.Resampling.BILINEAR))
        self._network.setInputSize(size)
        try:
            _, faces = self._network.detect(np.ascontiguousarray(small[:, :, ::-1]))  # it takes BGR
        except cv2.error as error:
            raise InputError(f"{self._weights}: not a YuNet of 2022 or later ({_reason(error)})") from error
        if faces is None:
            return None
        points = faces[main_face(faces[:, :4], size), 4:14].astype(np.float64).reshape(5, 2)
        factor = np.array([width / size[0], height / size[1]])
        return (points + 0.5) * factor - 0.5  # pixel centres are whole numbers in both images


def main_face(box_n4: np.ndarray, size: tuple[int, int]) -> int:
    """Number of the face that an image is of: the largest area less twice the squared distance from the middle.

    The rule of facenet's alignment script, which the field's folders were made with.

    Args:
        box_n4: left, top, width, height in pixels.
        size: width and height of the image.
    """
    offset_n2 = box_n4[:, :2] + box_n4[:, 2:] / 2 - np.array(size) / 2
    return int(np.argmax(box_n4[:, 2] * box_n4[:, 3] - 2 * (offset_n2**2).sum(1)))


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
