"""What protocols over folders of faces have in common: digests of inputs, refusal of dead weights, the result."""

import hashlib
import time
from typing import Any

import numpy as np

from synface.core.errors import InputError
from synface.evaluate.faces_config import FacesConfig
from synface.store import uri as uris

BLOCK = 1 << 20


def file_digest(uri: str) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with uris.open_reader(uri) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_embeddings(embedding_nd: np.ndarray, where: str, images: str) -> None:
    """Refuse embeddings that are NaN, infinite or zero.

    Raises:
        InputError: names the weights, the first image and how many.
    """
    norm = np.linalg.norm(embedding_nd, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if len(bad):
        raise InputError(
            f"weights {where}: {len(bad)} of {len(norm)} embeddings of {images} are NaN, infinite or zero (the first: "
            f"image {int(bad[0])}); these weights did not train, or are damaged"
        )


def result(config: FacesConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    """The verb's result line."""
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
