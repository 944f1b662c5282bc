"""``synface bin``: a verification pack (``.bin``) of a folder of images and a list of pairs.

Pairs as the field writes them: LFW's ``pairs.txt`` (``name i j`` or ``name i other j``, files
``name/name_0001.jpg``), or lines ``first.jpg second.jpg 1`` with 1 for the same person. Landmarks, one line per image:
``path x1 y1 ... x5 y5`` (eyes, nose, mouth corners; separated by blanks, tabs or commas).
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from synface.core import plugins
from synface.core.errors import InputError, unknown_name
from synface.store import images
from synface.store import uri as uris
from synface.store.formats.verification_bin import check_pairs, write_pack

SIDE = 112
#: file suffixes that LFW-style names are tried with
SUFFIXES = (".jpg", ".png", ".jpeg")
Detector = Callable[[np.ndarray], np.ndarray | None]
#: detector -> plug-in that takes its weights
DETECTORS = {"yunet": "synface.models.yunet:YuNet"}
Pair = tuple[str, str, bool]


def parse_pairs(text: str, where: str) -> list[Pair]:
    """Pairs of image names relative to the folder, LFW-style names without a suffix.

    Raises:
        InputError: a line of another form, with its number.
    """
    pairs: list[Pair] = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        if not parts or (number == 1 and len(parts) <= 2 and all(p.strip().isdigit() for p in parts)):
            continue  # LFW's first line: folds and pairs of each
        numbers = [p.strip() for p in parts]
        if len(numbers) == 3 and numbers[2] in ("0", "1") and not numbers[1].isdigit():
            pairs.append((numbers[0], numbers[1], numbers[2] == "1"))
        elif len(numbers) == 3 and numbers[1].isdigit() and numbers[2].isdigit():
            pairs.append((_lfw(numbers[0], numbers[1]), _lfw(numbers[0], numbers[2]), True))
        elif len(numbers) == 4 and numbers[1].isdigit() and numbers[3].isdigit():
            pairs.append((_lfw(numbers[0], numbers[1]), _lfw(numbers[2], numbers[3]), False))
        else:
            raise InputError(
                f"{where}: line {number}: {line!r}; expected 'first.jpg second.jpg 1', 'name i j' or 'name i other j'"
            )
    return pairs


def _lfw(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}"


def parse_landmarks(text: str, where: str) -> dict[str, np.ndarray]:
    """Five points per image, float64 [5, 2].

    Raises:
        InputError: a line of another form, with its number.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        text = line.strip(" \t,")
        if not text:
            continue
        path, *numbers = text.replace(",", " ").rsplit(maxsplit=10)  # a path may hold blanks, and commas
        try:
            values = [float(n) for n in numbers]
        except ValueError:
            values = []
        if len(values) != 10 or not np.isfinite(values).all():
            raise InputError(f"{where}: line {number}: expected a path and ten numbers, got {line[:80]!r}")
        found[text[: len(path)]] = np.array(values).reshape(5, 2)
    return found


def build(
    uri: str,
    pairs: str,
    output: str,
    landmarks: str | None = None,
    detector: str | None = None,
    size: int | str = SIDE,
    detector_weights: str | None = None,
) -> dict[str, Any]:
    """Write the pack; each image is read and aligned once. Aligned crops are stored as PNG, without further loss.

    Without landmarks and detector the images must be square crops already; they are copied as they are.

    Args:
        uri: folder of the images.
        pairs: URI of the list of pairs.
        output: URI of the new ``.bin``.
        landmarks: URI of the list of landmarks.
        detector: ``yunet``, or ``package.module:attribute``: uint8 RGB [h, w, 3] -> five points float [5, 2], or None:
            no face.
        size: side of the crops, pixels.
        detector_weights: URI of the detector's weights; the plug-in is called with it and returns the detector.

    Returns:
        uri, pairs, images (different ones), aligned.

    Raises:
        InputError: damaged lists, images that are missing or have no landmarks, fewer than ten pairs, one class.
    """
    if landmarks and detector:
        raise InputError("give --landmarks or --detector, not both")
    if not str(size).isdigit() or not 16 <= int(size) <= 1024:
        raise InputError(f"--size {size!r}: a whole number from 16 to 1024")
    listed = parse_pairs(uris.read_bytes(pairs).decode("utf-8", "replace"), pairs)
    check_pairs(np.array([same for *_, same in listed], bool), pairs)
    points = parse_landmarks(uris.read_bytes(landmarks).decode("utf-8", "replace"), landmarks) if landmarks else None
    find = load_detector(detector, detector_weights)
    files = {path for path, _ in uris.list_files(uri)}
    done: dict[str, bytes] = {}
    for name in dict.fromkeys(n for first, second, _ in listed for n in (first, second)):
        path = next((p for p in (name, *(name + s for s in SUFFIXES)) if p in files), None)
        if path is None:
            raise InputError(f"{uri}: has no image {name!r}, which {pairs} names")
        done[name] = _crop(uris.join(uri, path), path, points, find, int(size))
    encoded = [done[n] for first, second, _ in listed for n in (first, second)]
    write_pack(output, encoded, [same for *_, same in listed])
    return {
        "uri": output,
        "pairs": len(listed),
        "images": len(done),
        "aligned": points is not None or find is not None,
    }


def load_detector(name: str | None, weights: str | None) -> Detector | None:
    """The detector of that name, with its weights where it has any; None without a name.

    Raises:
        InputError: unknown, not importable, weights that are missing or not its own.
    """
    if name is None:
        if weights is not None:
            raise InputError("--detector-weights without --detector")
        return None
    if ":" not in name and name not in DETECTORS:
        raise unknown_name("detector", name, (*DETECTORS, "package.module:attribute"))
    if name in DETECTORS and weights is None:
        raise InputError(f"--detector {name} needs --detector-weights: the file of its weights, which you bring")
    found = plugins.load("detector", DETECTORS.get(name, name))
    return found if weights is None else found(weights)


def _crop(place: str, path: str, points: dict[str, np.ndarray] | None, find: Detector | None, size: int) -> bytes:
    """The encoded crop of one image."""
    data = uris.read_bytes(place)
    pixels = images.decode(data, place)
    if points is None and find is None:
        if pixels.shape[0] != pixels.shape[1]:
            raise InputError(
                f"{place}: {pixels.shape[1]}x{pixels.shape[0]} pixels is no crop; give --landmarks or --detector"
            )
        return data
    found = points.get(path) if points is not None else find(pixels) if find is not None else None
    if found is None:
        raise InputError(f"{place}: no landmarks{' in the list' if points is not None else ': no face was detected'}")
    aligned = images.align(pixels, np.asarray(found), size)
    sink = io.BytesIO()
    Image.fromarray(aligned).save(sink, "PNG")
    return sink.getvalue()
