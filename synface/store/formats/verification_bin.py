"""The field's verification packs (``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``, ...).

A pack is a pickle of ``(images, is_same)``: encoded image files, two per pair, and one bool per pair. It
is read as plain data (`inert_pickle`): nothing in the file is ever run.
"""

import io
import pickle
from collections.abc import Iterator, Sequence
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


def decode_pack(pack: VerificationPack, size: int, batch: int = 512) -> Iterator[np.ndarray]:
    """The images in order as uint8 RGB [<= batch, size, size, 3].

    Images of another size than `size` are resized (antialiased bilinear); within a pack all must be square
    and of one size, because a resized crop among others is a mistake of whoever built the pack.

    Raises:
        InputError: an image that cannot be decoded, is not square, or has another size than the first.
    """
    side: int | None = None
    for start in range(0, len(pack.encoded), batch):
        rows = []
        for index, data in enumerate(pack.encoded[start : start + batch], start):
            where = f"{pack.where}: image {index} (pair {index // 2})"
            image = decode_image(data, where)
            if image.width != image.height or (side is not None and image.width != side):
                expected = f"{side}x{side} like the first" if side is not None else "a square crop"
                raise InputError(f"{where}: is {image.width}x{image.height}, expected {expected}")
            side = image.width
            if side != size:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            rows.append(np.asarray(image))
        yield np.stack(rows)


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
