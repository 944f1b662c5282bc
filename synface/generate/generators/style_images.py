"""Pictures of an images table, drawn by key: as conditions of a ControlNet, as styles in a denoiser's space."""

from collections.abc import Sequence

import numpy as np
import torch

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.models.autoencoder import Codec
from synface.store import artifact, images, tables

STYLE_STREAM = "style"
CONTROL_STREAM = "control"


class DrawnImages:
    """The first pictures of an images table, kept encoded (some KB each), so that any of them is at hand.

    Args:
        uri: of the table.
        count: how many at most, from its beginning.
        size: of the pictures, pixels.
        option: that named the table, for messages.
        stream: of the draws.

    Raises:
        InputError: no finished images table stands there, or an empty one; later a picture that is damaged or of
            another size.
    """

    def __init__(self, uri: str, count: int, size: int, option: str, stream: str):
        self._uri, self._size, self._option, self._stream = uri, size, option, stream
        self._data: list[bytes | None] = []
        artifact.require(uri, "images")
        for entry in tables.listed_files(uri):
            if len(self._data) >= count:
                break
            table = tables.parse_parquet(tables.read_listed(uri, entry), f"{uri}/{entry.path}")
            found = table["image"].to_pylist()
            self._data += [image and image["bytes"] for image in found[: count - len(self._data)]]
        if not self._data:
            raise InputError(f"{option} {uri}: the table holds no pictures")

    def draw(self, seed: int, keys: Sequence[tuple[rng.KeyPart, ...]]) -> np.ndarray:
        """Numbers of pictures, uniform, one per key, int64 [n]."""
        return np.array([rng.generator(seed, *key, self._stream).integers(0, len(self._data)) for key in keys])

    def picture(self, number: int) -> np.ndarray:
        """uint8 [size, size, 3]."""
        picture = images.decode(self._data[number] or b"", f"{self._option} {self._uri}, row {number}")
        if picture.shape[:2] != (self._size, self._size):
            raise InputError(
                f"{self._option} {self._uri}, row {number}: has {picture.shape[1]}x{picture.shape[0]} pixels, the "
                f"generator takes {self._size}x{self._size}"
            )
        return picture


class StyleImages(DrawnImages):
    """Pictures that lend their style, as clean samples."""

    def __init__(self, uri: str, count: int, size: int):
        super().__init__(uri, count, size, "dcface.style_images", STYLE_STREAM)

    def samples(
        self, number_n: np.ndarray, autoencoder: Codec | None, micro_batch: int, device: str = "cpu"
    ) -> np.ndarray:
        """Clean samples float32 [n, c, h, w] (latents, or pixels in [-1, 1]) of at most `micro_batch` pictures."""
        pictures = np.zeros((micro_batch, self._size, self._size, 3), np.uint8)
        for row, number in enumerate(number_n):
            pictures[row] = self.picture(int(number))
        x = crops.to_network(pictures)
        if autoencoder is None:
            return x[: len(number_n)]
        with torch.inference_mode():
            pixels = torch.from_numpy(x).to(device).contiguous(memory_format=torch.channels_last)
            return autoencoder.encode(pixels)[: len(number_n)].float().cpu().numpy()


def check_size(uri: str, size: int, option: str) -> None:
    """InputError unless a finished images table of pictures of that size stands there (where it says its size)."""
    found = artifact.require(uri, "images").numbers.get("image_size", size)
    if found != size:
        raise InputError(f"{option} {uri}: of {found} pixels, the generator takes {size}; give pictures of that size")
