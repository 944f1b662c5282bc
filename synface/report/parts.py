"""What a page is made of: figures with the rows behind them, tables, sections."""

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """A figure, what it shows in words, and the rows that it was drawn from."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    @property
    def csv(self) -> bytes:
        """The rows as CSV with a header."""
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return sink.getvalue().encode()


@dataclass(frozen=True)
class Table:
    """A table of text cells; `groups` are header cells over spans of columns; `strong` rows stand out."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    groups: tuple[tuple[str, int], ...] = ()
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    lead: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as per cent, or a dash."""
    return "\u2013" if value is None else f"{100 * value:.{digits}f}"
