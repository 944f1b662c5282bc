"""Embedding images with a recognizer on one device, bitwise independent of the images beside them.

A convolution gives other last bits at another batch size or thread count. So every forward pass has the
same padded batch: the embedding of an image depends on the image, the weights, the micro-batch, the threads
and the device, never on its neighbours or on how many there are.
"""

import numpy as np
import torch
from torch import nn

from synface.core import crops
from synface.core.errors import InputError
from synface.models import weights


def features_of(
    module: nn.Module, images_nhwc: np.ndarray, micro_batch: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Raw features float32 [n, d] of uint8 RGB images [n, s, s, 3], in padded micro-batches.

    The module must be in evaluation mode.
    """
    parts = []
    batch = np.zeros((micro_batch, *images_nhwc.shape[1:]), np.uint8)
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), micro_batch):
            chunk = images_nhwc[start : start + micro_batch]
            batch[: len(chunk)] = chunk
            x = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float()  # channels last in memory
            x = (x - crops.PIXEL_MEAN) / crops.PIXEL_SCALE
            parts.append(module(x)[: len(chunk)].float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


class Embedder:
    """A recognizer ready to embed.

    Attributes:
        name: the name or URI that it was loaded from.
        sha256: of its weights.
        dim: size of the embedding.
        size: side of the crops that it takes, pixels.
    """

    def __init__(
        self,
        module: nn.Module,
        config: weights.WeightsConfig,
        name: str,
        device: str = "cpu",
        threads: int | None = None,
        micro_batch: int = 64,
    ):
        if micro_batch < 1:
            raise InputError(f"micro_batch = {micro_batch}: at least 1")
        if threads is not None:
            torch.set_num_threads(threads)
        self.name, self.config, self.device, self.micro_batch = name, config, device, micro_batch
        self.sha256, self.dim, self.size = config.sha256, config.embedding_dim, config.input_size
        self._module = module.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @classmethod
    def from_pretrained(
        cls, name_or_uri: str, device: str = "cpu", threads: int | None = None, micro_batch: int = 64
    ) -> "Embedder":
        """Load weights by built-in name, folder or URI.

        Args:
            name_or_uri: see `weights.locate`.
            device: a torch device.
            threads: torch threads of this process; None leaves them. Decides the last bits.
            micro_batch: images a forward pass. Decides the last bits.

        Raises:
            InputError: as `weights.from_pretrained`.
        """
        module, config = weights.from_pretrained(name_or_uri)
        return cls(module, config, name_or_uri, device, threads, micro_batch)

    def features(self, images_nhwc: np.ndarray) -> np.ndarray:
        """Raw features float32 [n, d] of uint8 RGB crops [n, size, size, 3]; their norm carries quality.

        Raises:
            InputError: images of another size, type or layout.
        """
        x = np.asarray(images_nhwc)
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != (self.size, self.size, 3):
            raise InputError(
                f"images {x.dtype} {list(x.shape)} for {self.name}: expected uint8 RGB "
                f"[n, {self.size}, {self.size}, 3]; render or resize the crops to {self.size} pixels"
            )
        if len(x) == 0:
            return np.zeros((0, self.dim), np.float32)
        return features_of(self._module, x, self.micro_batch, self.device)

    def embed(self, images_nhwc: np.ndarray, flip: bool = False) -> np.ndarray:
        """Unit embeddings float32 [n, d].

        With `flip`, the raw features of the image and of its mirror image are added before normalising, as
        the field's verification protocol does.
        """
        x = self.features(images_nhwc)
        if flip:
            x = x + self.features(np.ascontiguousarray(np.asarray(images_nhwc)[:, :, ::-1]))
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        return x / np.maximum(norm, np.finfo(np.float32).tiny)
