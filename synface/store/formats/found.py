"""What a reader of a foreign format yields."""

from typing import NamedTuple

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.artifact import sha256_hex

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: longest image file that is read
MAX_FILE_BYTES = 64 << 20


class FoundImage(NamedTuple):
    """One image of a foreign data set, still encoded and unchecked."""

    identity_id: str
    data: bytes
    place: str  # where it stood, for messages and the table


def listing_digest(uri: str) -> str:
    """Digest of foreign data by the names and sizes of its files; of a single file by its own.

    Raises:
        InputError: nothing there.
    """
    if uris.is_file(uri):
        place, _, name = uris.absolute(uri).rpartition("/")
        files = [entry for entry in uris.list_files(place, recursive=False) if entry[0] == name]
    else:
        files = uris.list_files(uri)
    if not files:
        raise InputError(f"{uri}: no files there")
    return sha256_hex(repr(files).encode())
