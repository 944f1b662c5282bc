"""Training images in foreign formats, read where they stand: folders, RecordIO and WebDataset tars.

Each source is divided into shards that are read whole and apart from each other, so that the shuffle, streaming and
resuming work as on images tables. RecordIO and tars are read once at the start, for labels and places; a folder is
only listed.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats import folder, recordio, webdataset
from synface.train.config import Source

#: images of a shard of a folder or a RecordIO file
SHARD_IMAGES = 1024


@dataclass(frozen=True)
class ForeignShard:
    """Some images of a source, and where they stand in the catalogue.

    Attributes:
        uri: of the folder, the ``.rec`` file or the tar.
        format: of the source.
        start: number of the first image.
        rows: how many.
        names: files of a folder.
        span: first and last + 1 byte of a run of records.
    """

    uri: str
    format: str
    start: int
    rows: int
    names: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 0)

    @property
    def where(self) -> str:
        """For messages."""
        if self.format == "folder":
            return uris.join(self.uri, self.names[0])
        return self.uri if self.format == "webdataset" else f"{self.uri} from byte {self.span[0]}"

    def files(self) -> list[bytes]:
        """The image files, in order.

        Raises:
            InputError: unreadable, or not the images that were there when the training began.
        """
        if self.format == "folder":
            found = [uris.read_bytes(uris.join(self.uri, name)) for name in self.names]
        elif self.format == "recordio":
            payloads = recordio.read_payloads(io.BytesIO(read_span(self.uri, *self.span)), self.where)
            records = (recordio.unpack(payload, self.where) for payload in payloads)
            found = [record.data for record in records if record.data]  # an index record holds no image
        else:
            found = [image.data for image in webdataset.read(self.uri)]
        if len(found) != self.rows:
            raise InputError(f"{self.where}: holds {len(found)} images, {self.rows} when the training began")
        return found


@dataclass(frozen=True)
class Scanned:
    """A shard, whose images they are, one of its files, and the bytes of all of them."""

    shard: ForeignShard
    identities: list[str]
    first: bytes
    encoded_bytes: int


def scan(source: Source, start: int) -> Iterator[Scanned]:
    """The shards of a source; `start` is the number of its first image.

    Raises:
        InputError: nothing there, or damaged.
    """
    empty = True
    for found in SCANNERS[source.format](uris.absolute(source.uri), start):  # workers may have another folder
        empty = False
        yield found
    if empty:
        raise InputError(f"{source.uri}: no images of format {source.format!r} there")


def _scan_folder(uri: str, start: int) -> Iterator[Scanned]:
    entries = list(folder.entries(uri))
    for first in range(0, len(entries), SHARD_IMAGES):
        part = entries[first : first + SHARD_IMAGES]
        shard = ForeignShard(uri, "folder", start + first, len(part), tuple(path for _, path, _ in part))
        data = uris.read_bytes(uris.join(uri, part[0][1]))
        yield Scanned(shard, [identity for identity, *_ in part], data, sum(size for *_, size in part))


def _scan_tars(uri: str, start: int) -> Iterator[Scanned]:
    for tar in webdataset.tars(uri):
        names, size, first = [], 0, b""
        for image in webdataset.read(tar):
            first = first or image.data
            names.append(image.identity_id)
            size += len(image.data)
        if names:
            yield Scanned(ForeignShard(tar, "webdataset", start, len(names)), names, first, size)
            start += len(names)


def _scan_records(uri: str, start: int) -> Iterator[Scanned]:
    uri = recordio.find_rec(uri)
    with uris.open_reader(uri) as stream:
        counted = _Counting(stream)
        names: list[str] = []
        size, begin, end, first = 0, 0, 0, b""
        for label, data in recordio.read_images(counted, uri):  # type: ignore[arg-type]
            if len(names) == SHARD_IMAGES:
                yield Scanned(ForeignShard(uri, "recordio", start, len(names), span=(begin, end)), names, first, size)
                start, begin = start + len(names), end
                names, size, first = [], 0, b""
            first = first or data
            names.append(recordio.identity_of(label))
            size, end = size + len(data), counted.position
        if names:
            yield Scanned(ForeignShard(uri, "recordio", start, len(names), span=(begin, end)), names, first, size)


SCANNERS = {"folder": _scan_folder, "recordio": _scan_records, "webdataset": _scan_tars}


class _Counting:
    """A stream that knows how far it was read."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.position += len(data)
        return data


def read_span(uri: str, first: int, last: int) -> bytes:
    """Bytes of a file from `first` to before `last`.

    Raises:
        InputError: no such file, or a shorter one.
    """
    filesystem, path = uris.resolve(uri)
    try:
        with filesystem.open_input_file(path) as stream:
            data = stream.read_at(last - first, first)
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error})") from error
    if len(data) != last - first:
        raise InputError(f"{uri}: ends before byte {last}; it was longer when the training began")
    return data
