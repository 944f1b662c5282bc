"""Samples of several data sets in the space of a recognizer, laid out in the plane by t-SNE."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synface.core.errors import InputError
from synface.models.embedding import Embedder
from synface.store.formats.verification_bin import decode_image, decode_images

SEED = 0
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Space:
    """A layout: point of the sweep, identity and place in the plane of every sample; and who embedded them."""

    point_n: tuple[int, ...]
    identity_n: tuple[str, ...]
    place_n2: np.ndarray
    embedder: str


def check() -> None:
    """InputError where scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise InputError('embedder: t-SNE needs scikit-learn: pip install "synface[tsne]"')


def embedded(network: Embedder, encoded: Sequence[bytes], where: str) -> np.ndarray:
    """Embeddings [n, d] of encoded images of one size, resized to the network's; `where` names them in errors."""
    return network.embed(decode_images(encoded, network.size, decode_image(encoded[0], where).width, where))


def lay_out(samples: Mapping[int, Sequence[tuple[str, Sequence[bytes]]]], network: Embedder) -> Space:
    """Embed encoded images and lay them out together.

    Args:
        samples: point -> (identity, its images).
        network: a recognizer.
    """
    check()
    flat = [(p, name, data) for p, rows in samples.items() for name, images in rows for data in images]
    x_nd = embedded(network, [data for *_, data in flat], "samples")
    return Space(tuple(p for p, *_ in flat), tuple(name for _, name, _ in flat), tsne(x_nd), network.name)


def tsne(x_nd: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, JMLR 2008) of unit embeddings, float64 [n, 2]; equal input, equal layout.

    Between unit vectors the Euclidean distance grows with the cosine's fall, so neighbours are those by cosine.
    Perplexity 30, less for few samples; started from the principal components.
    """
    if len(x_nd) < 4:
        return np.zeros((len(x_nd), 2))
    manifold = importlib.import_module("sklearn.manifold")  # an extra
    perplexity = min(PERPLEXITY, (len(x_nd) - 1) / 3)
    made = manifold.TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=SEED, n_jobs=1)
    return np.asarray(made.fit_transform(np.asarray(x_nd, np.float64)), np.float64)
