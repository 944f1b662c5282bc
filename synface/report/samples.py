"""Samples of a sweep's points side by side: one row an identity, and how much an identity's samples differ."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from synface.core.errors import InputError
from synface.report.config import NamedInput
from synface.report.grid import read_grid

#: images of an identity that its variety is measured on
VARIETY_IMAGES = 4


@dataclass(frozen=True)
class Samples:
    """First images of some identities that every column holds.

    Attributes:
        rows: identity -> column -> encoded image. A column is a point's number, or a negative number of `beside`.
            Where the points share no identity, a row holds the k-th of each, under the name ``no. k``.
        beside: column -> name of an images table that is no point's.
        variety: column -> `variety` of the identities that are shown; without columns of single images.
    """

    rows: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    beside: Mapping[int, str] = field(default_factory=dict)
    variety: Mapping[int, float] = field(default_factory=dict)

    @property
    def most_varied(self) -> int | None:
        """The point whose samples differ most; None where nobody can say."""
        points = [column for column in self.variety if column >= 0]
        return max(points, key=lambda column: self.variety[column], default=None)


def read_samples(points: Mapping[int, str], beside: Sequence[NamedInput], identities: int) -> Samples:
    """The first images of the first identities that all tables share, or of each table's where the points share none.

    Args:
        points: point -> its images table.
        beside: further images tables of the same identities.
        identities: rows at most.

    Raises:
        InputError: the tables beside hold none of the identities that the points share.
    """
    columns = {**points, **{-1 - number: item.uri for number, item in enumerate(beside)}}
    read = {uri: dict(read_grid(uri, 2 * identities, VARIETY_IMAGES).rows) for uri in set(columns.values())}
    drawn = [read[uri] for uri in points.values()]
    common = [name for name in drawn[0] if all(name in rows for rows in drawn)]
    if not common:
        read = {uri: {f"no. {k}": row for k, row in enumerate(rows.values(), 1)} for uri, rows in read.items()}
    shown = [name for name in common or read[points[min(points)]] if all(name in rows for rows in read.values())]
    if not shown:
        raise InputError(
            f"beside: {', '.join(item.uri for item in beside)}: nobody among the first identities of the sweep "
            f"({', '.join(common[:3])}, ...) is in each of them; generate from the sweep's own identities table"
        )
    shown = shown[:identities]
    rows = {name: {column: read[uri][name][0] for column, uri in columns.items()} for name in shown}
    known = {column: variety([read[uri][name] for name in shown]) for column, uri in columns.items()}
    names = {-1 - number: item.name for number, item in enumerate(beside)}
    return Samples(rows, names, {column: value for column, value in known.items() if value is not None})


def variety(rows: Sequence[Sequence[bytes]]) -> float | None:
    """How much samples of one identity differ, in grey levels of 255.

    The mean absolute difference of their pixels, over the pairs of an identity, then over identities; None where no
    identity has two images.

    Args:
        rows: encoded images of one size, by identity.
    """
    found = []
    for row in rows:
        pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) for data in row]
        pairs = [np.abs(a - b).mean() for i, a in enumerate(pixels) for b in pixels[:i]]
        if pairs:
            found.append(np.mean(pairs))
    return float(np.mean(found)) if found else None
