"""Style images: pictures of an images table, drawn by key, as clean samples of a denoiser's space."""

from collections.abc import Sequence

import numpy as np
import torch

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.models.autoencoder import Autoencoder
from synface.store import artifact, images, tables

STYLE_STREAM = "style"


class StyleImages:
    """The first pictures of an images table, kept encoded (some KB each), so that any of them is at hand.

    Args:
        uri: of the table.
        count: how many at most, from its beginning.
        size: of the pictures, pixels.

    Raises:
        InputError: no finished images table stands there, or an empty one; later a picture that is damaged or of
            another size.
    """

    def __init__(self, uri: str, count: int, size: int):
        self._uri, self._size = uri, size
        self._data: list[bytes | None] = []
        artifact.require(uri, "images")
        for entry in tables.listed_files(uri):
            if len(self._data) >= count:
                break
            table = tables.parse_parquet(tables.read_listed(uri, entry), f"{uri}/{entry.path}")
            found = table["image"].to_pylist()
            self._data += [image and image["bytes"] for image in found[: count - len(self._data)]]
        if not self._data:
            raise InputError(f"style images {uri}: the table holds no pictures")

    def draw(self, seed: int, keys: Sequence[tuple[rng.KeyPart, ...]]) -> np.ndarray:
        """Numbers of pictures, uniform, one per key, int64 [n]."""
        return np.array([rng.generator(seed, *key, STYLE_STREAM).integers(0, len(self._data)) for key in keys])

    def samples(
        self, number_n: np.ndarray, autoencoder: Autoencoder | None, micro_batch: int, device: str = "cpu"
    ) -> np.ndarray:
        """Clean samples float32 [n, c, h, w] (latents, or pixels in [-1, 1]) of at most `micro_batch` pictures."""
        pictures = np.zeros((micro_batch, self._size, self._size, 3), np.uint8)
        for row, number in enumerate(number_n):
            pictures[row] = self._picture(int(number))
        x = crops.to_network(pictures)
        if autoencoder is None:
            return x[: len(number_n)]
        with torch.inference_mode():
            pixels = torch.from_numpy(x).to(device).contiguous(memory_format=torch.channels_last)
            return autoencoder.encode(pixels)[: len(number_n)].float().cpu().numpy()

    def _picture(self, number: int) -> np.ndarray:
        picture = images.decode(self._data[number] or b"", f"{self._uri}: style image {number}")
        if picture.shape[:2] != (self._size, self._size):
            raise InputError(
                f"{self._uri}: style image {number} has {picture.shape[1]}x{picture.shape[0]} pixels, the generator "
                f"takes {self._size}x{self._size}"
            )
        return picture
