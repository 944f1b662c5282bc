"""Two datasets as clouds of features: Frechet distance, and DCFace's intra-class diversity in a style space.

The recognizer's space is always there; a style space (Inception features, in the papers) is the user's: a callable
from ``package.module:attribute``, because its weights are not ours to ship.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from synface.core.errors import InputError
from synface.store import tables
from synface.store.formats.verification_bin import decode_image, decode_images

#: uint8 RGB [n, s, s, 3] -> features [n, d]
Extractor = Callable[[np.ndarray], np.ndarray]
CHUNK = 256
#: nearest neighbours that span the cloud of a class (improved precision and recall); DCFace's is not stated
NEIGHBOURS = 3
TILE = 2048


def frechet_distance(x_nd: np.ndarray, y_md: np.ndarray) -> float:
    """``|mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))`` of two clouds of rows.

    Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS 2017, eq. 6; covariances with n - 1.

    Raises:
        ValueError: fewer than two rows.
    """
    if min(len(x_nd), len(y_md)) < 2:
        raise ValueError("a Frechet distance needs two rows on either side")
    (mean_x, cov_x), (mean_y, cov_y) = _moments(x_nd), _moments(y_md)
    value, vector = np.linalg.eigh(cov_x)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    # the eigenvalues of C_x C_y are those of C_x^(1/2) C_y C_x^(1/2), which is symmetric
    cross = np.linalg.eigvalsh(root @ cov_y @ root)
    trace = np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.square(mean_x - mean_y).sum() + trace)


def _moments(x_nd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x_nd, np.float64)
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / (len(x) - 1)


def intra_diversity(style_nd: np.ndarray, label_n: np.ndarray, real_md: np.ndarray, k: int = NEIGHBOURS) -> float:
    """DCFace's D_intra (eq. 15): the share of real styles that a class's samples reach, mean over classes.

    A real style is reached where it lies within the ball of a sample whose radius is the distance to that sample's
    k-th nearest neighbour in its own class (improved recall, Kynkaanniemi et al., NeurIPS 2019). Classes with at most
    k samples are left out.

    Args:
        style_nd: style features of the samples.
        label_n: their classes.
        real_md: style features of the real images.
        k: nearest neighbours.

    Raises:
        ValueError: no class with more than k samples.
    """
    order = np.argsort(label_n, kind="stable")
    shares = []
    for rows in np.split(order, np.flatnonzero(np.diff(label_n[order])) + 1):
        if len(rows) <= k:
            continue
        samples = np.asarray(style_nd[rows], np.float64)
        radius = np.sort(_distance(samples, samples), 1)[:, k]  # column 0 is the sample itself
        reached = [
            (_distance(np.asarray(real_md[a : a + TILE], np.float64), samples) <= radius).any(1)
            for a in range(0, len(real_md), TILE)
        ]
        shares.append(float(np.concatenate(reached).mean()))
    if not shares:
        raise ValueError(f"no identity with more than {k} images")
    return float(np.mean(shares))


def _distance(x_nd: np.ndarray, y_md: np.ndarray) -> np.ndarray:
    square = np.square(x_nd).sum(1)[:, None] + np.square(y_md).sum(1) - 2 * x_nd @ y_md.T
    if x_nd is y_md:
        np.fill_diagonal(square, 0)
    return np.sqrt(np.maximum(square, 0))


def compare(extract: Extractor, images: str, reference: str) -> dict[str, Any]:
    """Frechet distance and diversity of an images table against a reference, in the extractor's space.

    Raises:
        InputError: features of another form, or too few images.
    """
    label: dict[str, int] = {}
    style, names = _features(extract, images)
    real, _ = _features(extract, reference)
    label_n = np.array([label.setdefault(n, len(label)) for n in names])
    try:
        diversity = intra_diversity(style, label_n, real)
        return {"frechet_distance": frechet_distance(style, real), "diversity": diversity, "neighbours": NEIGHBOURS}
    except ValueError as error:
        raise InputError(f"{images}: {error}") from error


def _features(extract: Extractor, uri: str) -> tuple[np.ndarray, list[str]]:
    """Style features of a table's images in order, float32 [n, d], and their identities."""
    parts, names = [], []
    for encoded, identities in _chunks(uri):
        side = decode_image(encoded[0], uri).width
        pixels = decode_images(encoded, side, side, uri, len(names))
        found = np.asarray(extract(pixels))
        if found.ndim != 2 or len(found) != len(pixels) or not np.isfinite(found).all():
            raise InputError(
                f"style features {found.dtype} {list(found.shape)} of {len(pixels)} images: expected finite numbers "
                f"[{len(pixels)}, d]"
            )
        parts.append(found.astype(np.float32))
        names += identities
    return np.concatenate(parts), names


def _chunks(uri: str) -> Iterator[tuple[list[bytes], list[str]]]:
    for table in tables.iter_images(uri, ["image", "identity_id"]):
        encoded = [row["bytes"] for row in table["image"].to_pylist()]
        identities = table["identity_id"].to_pylist()
        for a in range(0, len(encoded), CHUNK):
            yield encoded[a : a + CHUNK], identities[a : a + CHUNK]
