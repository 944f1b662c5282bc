"""Looks at a generator during its training: a grid of samples and how far its dial follows. Changes no bit of it.

A network that knows no m is asked for as many samples of each inquiry as the grid has columns.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from synface.core import dial
from synface.models import sampling
from synface.models.autoencoder import Codec
from synface.models.denoisers.unet import Denoiser
from synface.models.embedding import Embedder
from synface.models.sampling import SamplerSettings

#: asked m of a look's columns
GRID = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
SETTINGS = SamplerSettings()
FOLDER = "_synface/samples"
BORDER = 2


@dataclass(frozen=True)
class Look:
    """Samples of some inquiries at every m of `GRID`, with the same noise in a row; or with noise of their own.

    Attributes:
        images: uint8 [inquiries, m, s, s, 3].
        realised_ig: cosine of each sample to its inquiry's embedding.
        mislabelled_g: share of samples nearer to another inquiry, per m.
        asks_m: whether the columns are values of m.
    """

    images: np.ndarray
    realised_ig: np.ndarray
    mislabelled_g: np.ndarray
    asks_m: bool = True

    def numbers(self) -> dict[str, float]:
        """Curves for the log: mean realised similarity and mislabel rate at each m, and the slope over [0, 1]."""
        if not self.asks_m:
            return {"realised": float(self.realised_ig.mean()), "mislabelled": float(self.mislabelled_g.mean())}
        mean_g = self.realised_ig.mean(0)
        named = {f"dial/m_{m:.2f}": float(x) for m, x in zip(GRID, mean_g, strict=True)}
        wrong = {f"mislabelled/m_{m:.2f}": float(x) for m, x in zip(GRID, self.mislabelled_g, strict=True)}
        return {**named, **wrong, "dial/slope": dial.dial_slope(np.array(GRID), self.realised_ig[:, :, None])}

    def text(self) -> str:
        """One line: m -> realised."""
        if not self.asks_m:
            return "realised {realised:.2f}, mislabelled {mislabelled:.2f}".format(**self.numbers())
        pairs = " ".join(f"{m:g}:{x:.2f}" for m, x in zip(GRID, self.realised_ig.mean(0), strict=True))
        return f"dial {pairs} (slope {self.numbers()['dial/slope']:.2f})"


def look(
    denoiser: Denoiser,
    autoencoder: Codec | None,
    embedder: Embedder,
    inquiry_nd: np.ndarray,
    seed: int,
    device: str,
    settings: SamplerSettings = SETTINGS,
    style_nchw: np.ndarray | None = None,
) -> Look:
    """Sample every inquiry at every m, or so many times, and embed what came out.

    Args:
        denoiser: in evaluation mode, on `device`.
        autoencoder: as well; None for pixels.
        embedder: E_id.
        inquiry_nd: unit embeddings.
        seed: of the noise; row i always has the same.
        device: a torch device.
        settings: of the sampler.
        style_nchw: clean samples whose style column j of row i takes, that of row i + j (mode style).
    """
    count, columns = len(inquiry_nd), len(GRID)
    embedding, asks_m = np.repeat(inquiry_nd, columns, 0), denoiser.config.knows_m
    m = np.tile(np.array(GRID, np.float32), count)
    keys: list[sampling.Key] = [
        ("look", row) if asks_m else ("look", row, column) for row in range(count) for column in range(columns)
    ]
    if style_nchw is not None:
        style_nchw = style_nchw[(np.arange(count)[:, None] + np.arange(columns)).ravel() % count]
    samples = sampling.sample(
        denoiser, embedding, m, seed, keys, settings, device=device, style_nchw=style_nchw
    )  # fmt: skip
    images = sampling.to_images(samples, autoencoder, settings.micro_batch, device)
    found = embedder.embed(images)
    realised = np.einsum("nd,nd->n", found, embedding).reshape(count, columns)
    wrong = dial.mislabelled(found, np.repeat(np.arange(count), columns), inquiry_nd).reshape(count, columns)
    size = images.shape[1]
    return Look(images.reshape(count, columns, size, size, 3), realised, wrong.mean(0), asks_m)


def grid_png(pictures: np.ndarray, first_column: np.ndarray | None = None) -> bytes:
    """A PNG of pictures uint8 [rows, columns, s, s, 3], with another column before them where one is given."""
    if first_column is not None:
        pictures = np.concatenate([first_column[:, None], pictures], 1)
    rows, columns, size = pictures.shape[:3]
    step = size + BORDER
    sheet = np.full((rows * step + BORDER, columns * step + BORDER, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            y, x = row * step + BORDER, column * step + BORDER
            sheet[y : y + size, x : x + size] = pictures[row, column]
    sink = io.BytesIO()
    Image.fromarray(sheet).save(sink, "PNG", compress_level=6)
    return sink.getvalue()
