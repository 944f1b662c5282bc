"""What a reader of a foreign format yields."""

from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: longest image file that is read
MAX_FILE_BYTES = 64 << 20


class FoundImage(NamedTuple):
    """One image of a foreign data set, still encoded and unchecked."""

    identity_id: str
    data: bytes
    place: str  # where it stood, for messages and the table
