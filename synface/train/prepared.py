"""What the generator's training needs of every image, made once: E_id's embedding and, where it has some, latents.

The images are divided into parts of fixed size. A part is a file beside the checkpoints, made by whichever worker
it falls to and read by all: the numbers depend neither on the number of workers nor on interruptions.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from synface.core import crops
from synface.models.autoencoder import Codec
from synface.models.embedding import Embedder
from synface.ops.progress import Progress
from synface.store import uri as uris
from synface.train.average_loop import Place
from synface.train.data import ImageSource

#: images of a part, and of a forward pass through E_id and the encoder (padded: a fixed size, for equal bits)
PART = 2048
MICRO_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """Row i belongs to image i of the catalogue."""

    embedding_nd: np.ndarray  # float32, unit
    latent_nchw: np.ndarray | None  # float16, standardised; None: the denoiser works on pixels


def encode(autoencoder: Codec, images_nhwc: np.ndarray, device: str) -> np.ndarray:
    """Standardised latents float16 [n, c, h, w] of uint8 RGB images, in padded micro-batches."""
    parts = []
    batch = np.zeros((MICRO_BATCH, *images_nhwc.shape[1:]), np.uint8)
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), MICRO_BATCH):
            rows = images_nhwc[start : start + MICRO_BATCH]
            batch[: len(rows)] = rows
            x = torch.from_numpy(crops.to_network(batch)).to(device).contiguous(memory_format=torch.channels_last)
            parts.append(autoencoder.encode(x)[: len(rows)].half().cpu().numpy())
    return np.concatenate(parts)


def part_name(number: int) -> str:
    """File of a part."""
    return f"prepared-{number:05d}.npz"


def make_part(rows: range, source: ImageSource, embedder: Embedder, autoencoder: Codec | None, device: str) -> bytes:
    """The file of some images: ``embedding`` and, with an autoencoder, ``latent``."""
    images = source.take(np.arange(rows.start, rows.stop))
    arrays = {"embedding": embedder.embed(images)}
    if autoencoder is not None:
        arrays["latent"] = encode(autoencoder, images, device)
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def load_part(folder: str, number: int) -> dict[str, np.ndarray] | None:
    """A part's arrays; None where there is no such file, or not a whole one."""
    place = uris.join(folder, part_name(number))
    if not uris.exists(place):
        return None
    try:
        with np.load(io.BytesIO(uris.read_bytes(place)), allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}
    except (ValueError, KeyError, OSError, EOFError):
        return None


def prepare(
    folder: str,
    count: int,
    source: ImageSource,
    embedder: Embedder,
    autoencoder: Codec | None,
    place: Place,
    wait: Callable[[], None],
) -> Prepared:
    """Make the parts that are missing, each on its worker, then read all of them.

    Args:
        folder: of the training's checkpoints.
        count: images in the catalogue.
        source: their pixels.
        embedder: E_id.
        autoencoder: frozen, on the place's device; None for pixels.
        place: this worker.
        wait: a barrier between the workers.
    """
    parts = [range(start, min(start + PART, count)) for start in range(0, count, PART)]
    own = range(place.rank, len(parts), place.world)
    progress = Progress("train: prepare", sum(len(parts[i]) for i in own), "images")
    for number in own:
        if load_part(folder, number) is None:
            data = make_part(parts[number], source, embedder, autoencoder, place.device)
            uris.write_bytes(uris.join(folder, part_name(number)), data)
        progress.advance(len(parts[number]))
    wait()
    found = [load_part(folder, number) for number in range(len(parts))]
    whole = [part for part in found if part is not None]
    if len(whole) < len(parts):
        raise ValueError(f"{folder}: {len(parts) - len(whole)} prepared parts are gone")
    latent = np.concatenate([part["latent"] for part in whole]) if autoencoder is not None else None
    return Prepared(np.concatenate([part["embedding"] for part in whole]), latent)
