"""insightface's RecordIO: ``train.rec``, ``train.idx``, ``train.lst`` and ``property``, without MXNet.

Framing (dmlc-core ``recordio.h``): magic, a word of 3 flag bits and 29 length bits, the payload padded to 4
bytes; a payload that holds the magic at a multiple of 4 is cut there into several parts (flags 1, 2, 3).
A payload starts with a header ``IfQQ`` (flag, label, id, id2); a flag n > 0 says that n float32 labels follow.
Record 0 carries labels [N + 1, N + 1 + identities]: readers take images from ``range(1, N + 1)``, so N + 1, not
N, or the last image is lost. Records N + 1 and on carry each identity's range of images. Files without
such a record (CASIA-style, DCFace) hold images only.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import images as encoded
from synface.store import uri as uris
from synface.store.formats.found import FoundImage

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_WORDS = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
#: longest payload that is read: a face crop has a few kilobytes
MAX_RECORD_BYTES = 64 << 20
#: labels are float32: beyond this not every identity has its own number
MAX_IDENTITIES = 1 << 24


@dataclass(frozen=True)
class Record:
    """One unpacked record: labels [1] or [flag], its own id, the image's bytes (empty in index records)."""

    labels: Sequence[float]
    number: int
    data: bytes


def frame(payload: bytes) -> bytes:
    """The payload as one or, where it holds the magic at a multiple of four, several framed parts."""
    cuts = [i for i in _find_magic(payload) if i + 4 <= len(payload)]
    parts, start = [], 0
    for cut in cuts:
        parts.append(payload[start:cut])
        start = cut + 4
    parts.append(payload[start:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    out = []
    for flag, part in zip(flags, parts, strict=True):
        out += [_WORDS.pack(MAGIC, flag << 29 | len(part)), part, b"\0" * (-len(part) % 4)]
    return b"".join(out)


def _find_magic(payload: bytes) -> Iterator[int]:
    place = payload.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            yield place
            place = payload.find(_MAGIC_BYTES, place + 4)
        else:
            place = payload.find(_MAGIC_BYTES, place + 1)


def pack(labels: Sequence[float], number: int, data: bytes) -> bytes:
    """A payload: header, further labels where there are several, image."""
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], number, 0) + data
    return _HEADER.pack(len(labels), 0.0, number, 0) + struct.pack(f"<{len(labels)}f", *labels) + data


def unpack(payload: bytes, where: str) -> Record:
    """The inverse of `pack`. InputError for a payload shorter than its own header says."""
    if len(payload) < _HEADER.size:
        raise InputError(f"{where}: a record of {len(payload)} bytes, shorter than its header")
    flag, label, number, _ = _HEADER.unpack_from(payload)
    if flag == 0:
        return Record((label,), number, payload[_HEADER.size :])
    end = _HEADER.size + 4 * flag
    if end > len(payload):
        raise InputError(f"{where}: a record names {flag} labels but has {len(payload)} bytes")
    return Record(struct.unpack_from(f"<{flag}f", payload, _HEADER.size), number, payload[end:])


def read_payloads(stream: BinaryIO, where: str) -> Iterator[bytes]:
    """Every payload of a ``.rec`` stream, in order; memory is one record.

    Raises:
        InputError: wrong magic, truncated, or a longer record than `MAX_RECORD_BYTES`.
    """
    parts: list[bytes] = []
    offset = size = 0
    while head := stream.read(_WORDS.size):
        if len(head) < _WORDS.size:
            raise InputError(f"{where}: truncated at byte {offset}")
        magic, word = _WORDS.unpack(head)
        flag, length = word >> 29, word & ((1 << 29) - 1)
        if magic != MAGIC:
            raise InputError(f"{where}: no record starts at byte {offset} (damaged, or not RecordIO)")
        size = (size if flag in (2, 3) else 0) + length
        if size > MAX_RECORD_BYTES:
            raise InputError(f"{where}: a record of {size} bytes at byte {offset}, allowed {MAX_RECORD_BYTES}")
        if (flag in (2, 3)) != bool(parts) or flag > 3:
            raise InputError(f"{where}: parts of records out of order at byte {offset}")
        padded = length + -length % 4
        part = stream.read(padded)
        if len(part) < padded:
            raise InputError(f"{where}: truncated at byte {offset}")
        offset += _WORDS.size + padded
        parts.append(part[:length])
        if flag in (0, 3):
            yield _MAGIC_BYTES.join(parts)
            parts = []
    if parts:
        raise InputError(f"{where}: truncated at byte {offset}")


def read_images(stream: BinaryIO, where: str) -> Iterator[tuple[int, bytes]]:
    """(label, image bytes) of every image, whether or not record 0 is an index."""
    last: float | None = None
    for index, payload in enumerate(read_payloads(stream, where)):
        record = unpack(payload, where)
        if index == 0 and len(record.labels) >= 2 and not record.data:
            last = record.labels[0]  # images are records 1 .. last - 1
            continue
        if last is not None and index >= last:
            return
        label = record.labels[0]
        if not (0 <= label < MAX_IDENTITIES and label == int(label)):
            raise InputError(f"{where}: record {index} has label {label}, expected a whole number from 0")
        if not record.data:
            raise InputError(f"{where}: record {index} holds no image")
        yield int(label), record.data


def find_rec(uri: str) -> str:
    """A ``.rec`` file itself, or the one in a folder. InputError where there is none, or more than one."""
    if uri.endswith(".rec"):
        return uri
    names = [p for p, _ in uris.list_files(uri, recursive=False) if p.endswith(".rec")]
    if len(names) != 1:
        raise InputError(f"{uri}: {len(names)} .rec files here, expected one; name the file itself")
    return uris.join(uri, names[0])


def identity_of(label: int) -> str:
    """A label as the id of an identity."""
    return f"{label:07d}"


def read(uri: str) -> Iterator[FoundImage]:
    """The images of a ``.rec`` file, or of the one in a folder; only the ``.rec`` itself is needed."""
    uri = find_rec(uri)
    with uris.open_reader(uri) as stream:
        for index, (label, data) in enumerate(read_images(stream, uri)):
            yield FoundImage(identity_of(label), data, f"{uri.rsplit('/', 1)[-1]}#{index + 1}")


def write(tables: Iterator[pa.Table], output: str, images: int, identities: int) -> dict[str, Any]:
    """Write the four files.

    Args:
        tables: image tables whose labels never fall from one row to the next (an identity's images together).
        output: URI of the folder.
        images: rows of all tables.
        identities: labels are below this.
    """
    if identities > MAX_IDENTITIES:
        raise InputError(f"{identities} identities: RecordIO labels are float32 and hold at most {MAX_IDENTITIES}")
    writer = _Writer(identities)
    with (
        uris.open_writer(uris.join(output, "train.rec")) as rec,
        uris.open_writer(uris.join(output, "train.lst")) as lst,
    ):
        rec.write(writer.record(0, (float(images + 1), float(images + 1 + identities)), b""))
        for table in tables:
            for row in table.select(["image", "label"]).to_pylist():
                label = int(row["label"])
                rec.write(writer.image(label, row["image"]["bytes"]))
                lst.write(f"1\t{row['image']['path']}\t{label}\n".encode())
        if writer.images != images:
            raise InputError(f"{writer.images} images, expected {images}: the table changed while it was exported")
        for label, (first, stop) in enumerate(writer.ranges):
            rec.write(writer.record(images + 1 + label, (float(first), float(stop)), b""))
    lines = "".join(f"{number}\t{place}\n" for number, place in writer.index)
    uris.write_bytes(uris.join(output, "train.idx"), lines.encode())
    uris.write_bytes(uris.join(output, "property"), f"{identities},{writer.side},{writer.side}\n".encode())
    return {"images": images, "identities": identities}


class _Writer:
    """Frames records and remembers where each starts and which images each identity has."""

    def __init__(self, identities: int):
        self.index: list[tuple[int, int]] = []
        self.ranges = [(1, 1)] * identities
        self.images = self.side = self._offset = self._label = 0

    def record(self, number: int, labels: tuple[float, ...], data: bytes) -> bytes:
        framed = frame(pack(labels, number, data))
        self.index.append((number, self._offset))
        self._offset += len(framed)
        return framed

    def image(self, label: int, data: bytes) -> bytes:
        if not self._label <= label < len(self.ranges):
            raise InputError(
                f"label {label} after {self._label}: RecordIO needs rising labels below {len(self.ranges)}; "
                "`synface compact` sorts a table that grew"
            )
        self.images += 1
        first = self.ranges[label][0] if label == self._label and self.images > 1 else self.images
        self.ranges[label] = (first, self.images + 1)
        self._label = label
        self.side = self.side or len(encoded.decode(data))
        return self.record(self.images, (float(label),), data)
