"""Inquiry images by identity: the pictures that oversampling copies into a dataset."""

import numpy as np

from synface.core.errors import InputError
from synface.store import artifact, images, tables


class InquiryImages:
    """An images table's first picture of every identity, read shard by shard as they are asked for.

    Only the file that was read last is kept: an identity's copies come one after another.

    Raises:
        InputError: no finished images table stands there.
    """

    def __init__(self, uri: str):
        self._uri = uri
        artifact.require(uri, "images")
        self._entries = tables.listed_files(uri)
        self._place: dict[str, tuple[int, int]] | None = None  # identity -> file, row
        self._open: tuple[int, list[bytes | None]] | None = None

    def picture(self, identity_id: str) -> np.ndarray:
        """uint8 [s, s, 3].

        Raises:
            InputError: the table holds no picture of that identity, or a damaged one.
        """
        if self._place is None:
            self._place = self._index()
        if identity_id not in self._place:
            raise InputError(
                f"{self._uri}: no picture of identity {identity_id!r}; embed the inquiries from this table"
            )
        file, row = self._place[identity_id]
        if self._open is None or self._open[0] != file:
            column = self._read(file)["image"].to_pylist()
            self._open = file, [image and image["bytes"] for image in column]
        return images.decode(self._open[1][row] or b"", f"{self._uri}: inquiry of {identity_id}")

    def _read(self, file: int):
        entry = self._entries[file]
        return tables.parse_parquet(tables.read_listed(self._uri, entry), f"{self._uri}/{entry.path}")

    def _index(self) -> dict[str, tuple[int, int]]:
        place: dict[str, tuple[int, int]] = {}
        first: dict[str, int] = {}
        for file in range(len(self._entries)):
            table = self._read(file)
            pairs = zip(table["identity_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
            for row, (identity_id, sample) in enumerate(pairs):
                if identity_id not in first or sample < first[identity_id]:
                    first[identity_id], place[identity_id] = sample, (file, row)
        return place
