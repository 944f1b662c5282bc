"""The field's verification packs (``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``, ...).

A pack is a pickle of ``(images, is_same)``: encoded image files, two per pair, and one bool per pair. It
is read as plain data (`inert_pickle`): nothing in the file is ever run.
"""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from synface.core.errors import InputError
from synface.core.scores import FOLDS
from synface.store import uri as uris
from synface.store.formats.inert_pickle import RefusedPickleError, load

#: the largest side of an image that is decoded; verification crops are 112
MAX_SIDE = 1024


@dataclass(frozen=True)
class VerificationPack:
    """Pairs of encoded images: pair i is ``encoded[2 i]`` and ``encoded[2 i + 1]``."""

    encoded: tuple[bytes, ...]
    same_n: np.ndarray  # bool [pairs]
    where: str

    @property
    def pairs(self) -> int:
        """How many pairs."""
        return len(self.same_n)


def read_pack(uri: str) -> VerificationPack:
    """A pack's pairs, checked but not decoded.

    Raises:
        InputError: not a readable pack, a hostile pickle, counts that do not match, fewer than ten pairs,
            or one class only.
    """
    return parse_pack(uris.read_bytes(uri), uri)


def parse_pack(data: bytes, where: str) -> VerificationPack:
    """`read_pack` on bytes in memory; `where` names them in errors."""
    try:
        content = load(data)
    except RefusedPickleError as error:
        raise InputError(
            f"{where}: refused: it holds {error}. A verification pack is a pickle of "
            "(list of image bytes, list of bool) and nothing else"
        ) from error
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise InputError(f"{where}: expected (list of image bytes, list of bool), got {_shape(content)}")
    images, labels = content
    if not isinstance(images, list | tuple) or not all(isinstance(i, bytes) for i in images):
        raise InputError(f"{where}: the first part must be a list of encoded images, got {_shape(images)}")
    if not isinstance(labels, list | tuple) or not all(isinstance(x, bool | int) and x in (0, 1) for x in labels):
        raise InputError(f"{where}: the second part must be a list of bool, got {_shape(labels)}")
    if len(images) != 2 * len(labels):
        raise InputError(
            f"{where}: {len(images)} images and {len(labels)} labels do not match; "
            f"{len(labels)} pairs need {2 * len(labels)} images"
        )
    same = np.array([bool(x) for x in labels], bool)
    check_pairs(same, where)
    return VerificationPack(tuple(images), same, where)


def check_pairs(same_n: np.ndarray, where: str) -> None:
    """Refuse labels that cannot be evaluated: fewer than ten pairs, or one class only."""
    if len(same_n) < FOLDS:
        raise InputError(f"{where}: {len(same_n)} pairs; 10-fold verification needs at least {FOLDS}")
    if same_n.all() or not same_n.any():
        kind = "genuine" if same_n.all() else "impostor"
        raise InputError(f"{where}: all {len(same_n)} pairs are {kind}; verification needs both classes")


def decode_images(encoded: Sequence[bytes], size: int, side: int, where: str, first: int = 0) -> np.ndarray:
    """Encoded images as uint8 RGB [n, size, size, 3].

    All must be square and `side` pixels wide: a resized crop among others is a mistake of whoever built the
    set. Where `side` is not `size` all are resized alike (antialiased bilinear).

    Args:
        encoded: image files.
        size: side of the result.
        side: side that every image must have.
        where: names the set in errors.
        first: number of the first image, for errors.

    Raises:
        InputError: an image that cannot be decoded, or has another size.
    """
    out = np.empty((len(encoded), size, size, 3), np.uint8)
    for row, data in enumerate(encoded):
        place = f"{where}: image {first + row} (pair {(first + row) // 2})"
        image = decode_image(data, place)
        if image.size != (side, side):
            raise InputError(f"{place}: is {image.width}x{image.height}, expected {side}x{side} like the others")
        out[row] = np.asarray(image if side == size else image.resize((size, size), Image.Resampling.BILINEAR))
    return out


def decode_pack(pack: VerificationPack, size: int) -> np.ndarray:
    """All images of a pack in order, uint8 RGB [2 pairs, size, size, 3].

    Raises:
        InputError: an image that cannot be decoded, or is not a square of the first one's size.
    """
    side = decode_image(pack.encoded[0], f"{pack.where}: image 0 (pair 0)").width
    return decode_images(pack.encoded, size, side, pack.where)


def decode_image(data: bytes, where: str) -> Image.Image:
    """An encoded image as RGB.

    Raises:
        InputError: it cannot be decoded, or is larger than `MAX_SIDE`.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if max(image.size) > MAX_SIDE:
            raise InputError(f"{where}: is {image.width}x{image.height}; crops are at most {MAX_SIDE} pixels wide")
        return image.convert("RGB")
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: cannot be decoded ({error})") from error


def pack_bytes(encoded: Sequence[bytes], same: Sequence[bool] | np.ndarray) -> bytes:
    """A pack as insightface's loaders read it: ``pickle.dumps((list of bytes, list of bool))``.

    Args:
        encoded: encoded images (JPEG or PNG files as bytes), pair after pair: two for every label.
        same: genuine (True) or impostor, one per pair. For 10-fold accuracy the order matters: folds are
            consecutive tenths, so mix both classes into every tenth.

    Raises:
        InputError: counts that do not match, fewer than ten pairs, one class only, or no bytes.
    """
    labels = [bool(x) for x in same]
    data = pickle.dumps(([bytes(e) for e in encoded], labels), protocol=4)
    parse_pack(data, "verification pack")
    return data


def write_pack(uri: str, encoded: Sequence[bytes], same: Sequence[bool] | np.ndarray) -> None:
    """Write `pack_bytes` to a URI."""
    uris.write_bytes(uri, pack_bytes(encoded, same))


def _shape(value: object) -> str:
    if isinstance(value, list | tuple):
        kinds = sorted({type(v).__name__ for v in value})
        return f"a {type(value).__name__} of {len(value)} ({', '.join(kinds) or 'empty'})"
    return f"a {type(value).__name__}"
