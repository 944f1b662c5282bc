"""LMDB files, read page by page (LMDB 0.9, data version 1, 64 bits, little-endian) without the C library.

The library maps a file and trusts every number in it, so that a damaged page ends the process or keeps it for ever.
Here each read is inside the file, no way down is deeper than the library's own, and no page is walked twice.

Layout (``mdb.c``): pages 0 and 1 each start with a meta, the one of the later transaction counts. A page is a header
and the places of its nodes; a branch's node holds the number of a page, a leaf's node a key and a value, or the
number of the overflow pages where a long value stands. Keys rise as byte strings.
"""

import functools
import io
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from synface.core.errors import InputError

MAGIC, VERSION = 0xBEEFC0DE, 1
#: number, padding, kind, end of the nodes' places, begin of the nodes
_HEADER = struct.Struct("<QHHHH")
#: of an overflow page: number, padding, kind, how many pages
_OVERFLOW_HEADER = struct.Struct("<QHHI")
_META = struct.Struct("<IIQQ")
#: page size (in the first of two), flags, depth, branch, leaf and overflow pages, entries, root
_TREE = struct.Struct("<IHHQQQQQ")
#: two halves of a value's length (and, with the flags, of a branch's page), flags, length of the key
_NODE = struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")
BRANCH, LEAF, OVERFLOW, META_PAGE, FIXED_LEAF = 1, 2, 4, 8, 32
LONG_VALUE = 1
EMPTY = 2**64 - 1
#: the library's own limit
MAX_DEPTH = 32
CACHED_PAGES = 256


@dataclass(frozen=True)
class _Page:
    """A branch or leaf: its nodes' keys, and where they stand."""

    leaf: bool
    keys: list[bytes]
    places: tuple[int, ...]
    data: bytes


class Pages:
    """The main database of an LMDB file: `get` a value, iterate over the keys.

    Raises:
        InputError: no such file, a truncated one, or, wherever it is met, damage.
    """

    def __init__(self, stream: BinaryIO, where: str):
        self._stream, self._where = stream, where
        self._bytes = stream.seek(0, io.SEEK_END)
        self._page_size, self._last, self._root = self._read_metas()
        self._page = functools.lru_cache(CACHED_PAGES)(self._read_page)

    def _read_metas(self) -> tuple[int, int, int]:
        """Page size, number of the last page, root of the main tree."""
        found, size = [], 0
        for number in (0, 1):
            start = number * size + _HEADER.size
            if self._bytes < start + _META.size + 2 * _TREE.size + 16:
                raise InputError(f"{self._where}: not a readable LMDB file: {self._bytes} bytes")
            data = self._read(start, _META.size + 2 * _TREE.size + 16)
            if _META.unpack_from(data)[:2] != (MAGIC, VERSION):
                raise InputError(f"{self._where}: not a readable LMDB file (of 64 bits, little-endian)")
            if number == 0:
                size = _TREE.unpack_from(data, _META.size)[0]
                if not 512 <= size <= 1 << 16 or size & (size - 1):
                    raise self._damage(f"pages of {size} bytes")
            _, flags, *_, root = _TREE.unpack_from(data, _META.size + _TREE.size)
            last, transaction = struct.unpack_from("<QQ", data, _META.size + 2 * _TREE.size)
            found.append((transaction, -number, last, root, flags))
        _, _, last, root, flags = max(found)
        if flags:
            raise InputError(f"{self._where}: keys of another order or several values a key (flags {flags})")
        if self._bytes < (last + 1) * size:
            raise InputError(f"{self._where}: truncated: {self._bytes} bytes, its pages need {(last + 1) * size}")
        return size, last, root

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        if self._root == EMPTY:
            return None
        number = self._root
        for _ in range(MAX_DEPTH):
            page = self._page(number)
            if page.leaf:
                index = bisect_left(page.keys, key)
                found = index < len(page.keys) and page.keys[index] == key
                return self._value(page, index) if found else None
            number = self._child(page, bisect_right(page.keys, key, lo=1) - 1)  # the first key stands for all below
        raise self._damage(f"a tree deeper than {MAX_DEPTH}")

    def __iter__(self) -> Iterator[bytes]:
        """Every key, rising."""
        waiting = [] if self._root == EMPTY else [self._root]
        seen = 0
        while waiting:
            page = self._page(waiting.pop())
            seen += 1
            if seen > self._last:
                raise self._damage("pages that are met twice")
            if page.leaf:
                yield from page.keys
            else:
                waiting += [self._child(page, index) for index in reversed(range(len(page.keys)))]

    def _read_page(self, number: int) -> _Page:
        size = self._page_size
        if not 2 <= number <= self._last:
            raise self._damage(f"page {number} of {self._last}")
        data = self._read(number * size, size)
        own, _, kind, end, begin = _HEADER.unpack_from(data)
        kind &= BRANCH | LEAF | OVERFLOW | META_PAGE | FIXED_LEAF
        sound = own == number and kind in (BRANCH, LEAF) and _HEADER.size < end <= begin <= size
        if not sound:
            raise self._damage(f"page {number} is no branch or leaf")
        places = struct.unpack_from(f"<{(end - _HEADER.size) // 2}H", data, _HEADER.size)
        keys = []
        for place in places:
            start = place + _NODE.size
            if place < begin or start > size or start + _NODE.unpack_from(data, place)[3] > size:
                raise self._damage(f"a node beyond page {number}")
            keys.append(data[start : start + _NODE.unpack_from(data, place)[3]])
        if not keys:
            raise self._damage(f"page {number} is empty")
        return _Page(kind == LEAF, keys, places, data)

    def _child(self, page: _Page, index: int) -> int:
        low, high, top, _ = _NODE.unpack_from(page.data, page.places[index])
        return low | high << 16 | top << 32

    def _value(self, page: _Page, index: int) -> bytes:
        low, high, flags, key_bytes = _NODE.unpack_from(page.data, page.places[index])
        length, start = low | high << 16, page.places[index] + _NODE.size + key_bytes
        if flags not in (0, LONG_VALUE):
            raise InputError(f"{self._where}: a database inside the database, or several values a key")
        if start + (_NUMBER.size if flags else length) > self._page_size:
            raise self._damage("a value beyond its page")
        if not flags:
            return page.data[start : start + length]
        (number,) = _NUMBER.unpack_from(page.data, start)
        if not 2 <= number <= self._last:
            raise self._damage(f"page {number} of {self._last}")
        place = number * self._page_size
        own, _, kind, count = _OVERFLOW_HEADER.unpack(self._read(place, _OVERFLOW_HEADER.size))
        if own != number or not kind & OVERFLOW or length > count * self._page_size - _OVERFLOW_HEADER.size:
            raise self._damage(f"page {number} holds no value of {length} bytes")
        return self._read(place + _OVERFLOW_HEADER.size, length)

    def _read(self, start: int, length: int) -> bytes:
        """So many bytes; a length is believed only as far as the file goes."""
        if start + length > self._bytes:
            raise self._damage(f"bytes {start} to {start + length} of {self._bytes}")
        self._stream.seek(start)
        data = self._stream.read(length)
        if len(data) != length:
            raise self._damage(f"the file ends at {start + len(data)}")
        return data

    def _damage(self, what: str) -> InputError:
        return InputError(f"{self._where}: damaged LMDB file: {what}")
