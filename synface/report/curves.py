"""Accuracy against the points of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from synface.report import figures

#: value, low, high as shares; None where nobody measured it, or a single seed has no interval
Estimate = tuple[float | None, float | None, float | None]
#: least distance of two ticks of several lines, of the axis's length, where a figure has one panel
TICK_DISTANCE = 0.03
#: lines that a legend inside the axes leaves visible
FEW_LINES = 3


@dataclass(frozen=True)
class Panel:
    """One pair of axes: name -> estimates of every point, over the points' labels or their places.

    Attributes:
        title: of the panel.
        labels: of its points, as they stand at the axis; several lines where they tell more than the value.
        x: places of the points; None: one after another, by label.
        lines: what is drawn.
    """

    title: str
    labels: Sequence[str]
    x: Sequence[float] | None
    lines: Mapping[str, Sequence[Estimate]]


@figures.styled
def curve(panels: Sequence[Panel], axis: str) -> Figure:
    """Panels side by side, with error bars.

    Args:
        panels: at least one.
        axis: name of the x axis.
    """
    figure, axes = figures.new_figure(1, len(panels), 3.8 if panels[0].x is not None else 4.6)
    for ax, panel in zip(axes.flat, panels, strict=True):
        places = np.arange(len(panel.labels)) if panel.x is None else np.asarray(panel.x, float)
        for number, (name, estimates) in enumerate(panel.lines.items()):
            _line(ax, places, estimates, name, number, joined=panel.x is not None)
        if panel.x is None:
            ax.set_xticks(places, panel.labels, rotation=40, ha="right")
        elif any("\n" in label for label in panel.labels):
            kept = _apart(places, TICK_DISTANCE * len(panels) * np.ptp(places))
            ax.set_xticks(places[kept], [panel.labels[i] for i in kept], fontsize=7.5)
        ax.set_title(panel.title)
        ax.yaxis.set_major_formatter(PercentFormatter(1, None))
        ax.grid()
        if len(panel.lines) > 1:
            beside = {} if len(panel.lines) <= FEW_LINES else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            ax.legend(fontsize=8.5, **beside)
    figure.supxlabel(axis, fontsize=9.5)
    axes[0, 0].set_ylabel("verification accuracy")
    return figure


def _apart(places: np.ndarray, distance: float) -> list[int]:
    """Rows of the places that are kept, from the largest one down, so that none is nearer to the next than this."""
    kept: list[int] = []
    for row in np.argsort(places)[::-1]:
        if not kept or places[kept[-1]] - places[row] >= distance:
            kept.append(int(row))
    return kept


def _line(ax: Axes, x: np.ndarray, estimates: Sequence[Estimate], name: str, number: int, joined: bool) -> None:
    values = np.array([[np.nan if v is None else v for v in e] for e in estimates], float)
    order = np.argsort(x)
    mean, error = values[order, 0], np.nan_to_num(np.abs(values[order, 1:].T - values[order, 0]))
    colour, style = figures.SERIES[number % len(figures.SERIES)], "o-" if joined else "o"
    ax.errorbar(
        x[order], mean, yerr=error, fmt=style, color=colour, capsize=3, markersize=4.5, linewidth=1.4, label=name
    )
