"""Figures of a report: plain data in, a matplotlib Figure out. No files, no global pyplot state.

Lines and text are drawn in `INK`, `MUTED` and `GRID`; the page swaps these for its own theme's colours, so that one
SVG serves light, dark and print. Series colours are readable on both and told apart with red-green blindness.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK, MUTED, GRID = "#1d2733", "#66707c", "#d9dee5"
SERIES = ("#2f7fc1", "#e07a2f", "#1a9c86", "#b4559f", "#a08a1e", "#6c6fd3", "#c8504f", "#4b8b3b")
GENUINE, IMPOSTOR = SERIES[2], SERIES[1]
WIDTH = 9.6  # inches; the page's column
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "path.simplify": True,
}

P = ParamSpec("P")


@contextmanager
def _own_style(**extra: Any) -> Iterator[None]:
    """Matplotlib's defaults and `STYLE`, whatever the user has set; drawing and saving both need it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**STYLE, **extra})  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """The function, run under `STYLE` and nothing of the user's own settings."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _own_style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # lay out once, not at every save
            figure.set_layout_engine("none")
            return figure

    return inner


def new_figure(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure of the page's width, `height` inches high, and its axes [rows, columns]."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


@styled
def trade_off(points: Sequence[tuple[float, float, float]], chosen: float) -> Figure:
    """Largest cosine against the mean distance to the gallery.

    Args:
        points: (alpha, gallery distance, largest cosine), by rising alpha.
        chosen: the alpha whose point is filled.
    """
    figure, ((ax,),) = new_figure(1, 1, 3.5)
    alpha, distance, cosine = np.array(points).T
    ax.plot(distance, cosine, color=SERIES[0], linewidth=1.4)
    fill = [SERIES[0] if a == chosen else GRID for a in alpha]
    ax.scatter(distance, cosine, s=36, c=fill, edgecolors=SERIES[0], zorder=3)
    for a, x, y in points:
        ax.annotate(f"{a:g}", (x, y), (6, 5), textcoords="offset points", color=INK)
    ax.set_xlabel("mean distance to the nearest gallery embedding, 1 - cosine")
    ax.set_ylabel("largest cosine")
    ax.grid()
    return figure


@styled
def packing(
    chosen_n: np.ndarray,
    levels: Mapping[str, float],
    unpacked_n: np.ndarray | None = None,
    labels: tuple[str, str] = ("packed", "unpacked"),
) -> Figure:
    """Nearest-neighbour cosine of every identity, against levels (bound, iid uniform).

    Args:
        chosen_n: nearest cosine of each chosen identity.
        levels: name -> cosine, drawn as labelled upright lines.
        unpacked_n: the same for as many identities that were not packed.
        labels: names of the two histograms.
    """
    figure, ((ax,),) = new_figure(1, 1, 3.5)
    parts = [chosen_n] if unpacked_n is None else [chosen_n, unpacked_n]
    every = np.concatenate([*parts, np.array(list(levels.values()))])
    low, high = float(every.min()), float(every.max())
    pad = 0.04 * max(high - low, 1e-3)
    edges = np.linspace(low - pad, high + pad, 61)
    for values, label, colour in zip(parts, labels, (SERIES[0], SERIES[1]), strict=False):
        name = f"{label} (mean {values.mean():.3f})"
        ax.hist(values, edges, color=colour, alpha=0.4, histtype="stepfilled", linewidth=0, label=name)
        ax.hist(values, edges, color=colour, histtype="step", linewidth=1.4)
    _, top = ax.get_ylim()
    ax.set_ylim(0, top * 1.22)
    for row, (name, value) in enumerate(sorted(levels.items(), key=lambda item: item[1])):
        right = value > (low + high) / 2
        ax.axvline(value, ymax=0.86, color=INK, linewidth=1.1, dashes=(4, 2) if row else ())
        ax.annotate(
            f"{name} {value:.3f}",
            (value, top * (1.15 - 0.09 * (row % 2))),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
        )
    ax.set_xlabel("cosine to the nearest other identity")
    ax.set_ylabel("identities")
    ax.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def similarity(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], threshold: Mapping[str, float]) -> Figure:
    """Genuine and impostor cosines of every protocol, small multiples on one axis.

    Args:
        scores: protocol -> (genuine cosines, impostor cosines).
        threshold: protocol -> cosine at which the 10-fold verification decides (mean over folds).
    """
    columns = min(3, len(scores))
    rows = math.ceil(len(scores) / columns)
    figure, axes = new_figure(rows, columns, 0.5 + 2.0 * rows, sharex=True)
    every = np.concatenate([part for pair in scores.values() for part in pair])
    edges = np.linspace(max(-1.0, float(every.min()) - 0.02), min(1.0, float(every.max()) + 0.02), 61)
    for ax, (name, pair) in zip(axes.flat, scores.items(), strict=False):
        for values, label, colour in zip(pair, ("genuine", "impostor"), (GENUINE, IMPOSTOR), strict=True):
            share = np.full(len(values), 1 / len(values))
            ax.hist(
                values, edges, weights=share, color=colour, alpha=0.4, histtype="stepfilled", linewidth=0, label=label
            )
            ax.hist(values, edges, weights=share, color=colour, histtype="step", linewidth=1.2)
        if name in threshold:
            ax.axvline(threshold[name], color=INK, linewidth=1.0, dashes=(4, 2), label="threshold")
        ax.set_title(name)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    for ax in axes.flat[len(scores) :]:
        ax.set_visible(False)
    _below(axes, len(scores), "cosine similarity")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=3)
    return figure


def _below(axes: np.ndarray, count: int, label: str) -> None:
    """Label the x axis of the lowest shown panel of each column."""
    columns = axes.shape[1]
    for column in range(min(columns, count)):
        ax: Axes = axes.flat[column + columns * ((count - 1 - column) // columns)]  # pyright: ignore
        ax.set_xlabel(label)
        ax.tick_params(labelbottom=True)


@styled
def training(history: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss and training accuracy of each recognizer, epoch by epoch."""
    figure, ((left, right),) = new_figure(1, 2, 3.1)
    for i, (name, entries) in enumerate(history.items()):
        epoch = [e["epoch"] for e in entries]
        colour, dashes = SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]
        mark = {"marker": "o", "markersize": 3.5} if len(entries) < 40 else {}
        left.plot(epoch, [e["loss"] for e in entries], color=colour, dashes=dashes, label=name, **mark)
        if all("accuracy" in e for e in entries):
            right.plot(epoch, [e["accuracy"] for e in entries], color=colour, dashes=dashes, **mark)
    left.set_title("training loss")
    right.set_title("accuracy on the training batches")
    right.yaxis.set_major_formatter(PercentFormatter(1, None))
    right.set_ylim(-0.02, 1.04)
    left.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid()
    if len(history) > 1:
        left.legend()
    return figure


@styled
def roc(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], smallest_far: float) -> Figure:
    """TAR against FAR on a log axis: a colour per protocol, a dash per recognizer.

    Args:
        curves: recognizer -> protocol -> (FAR, TAR), rising.
        smallest_far: left end: what one false accept weighs (1 / impostor pairs).
    """
    figure, ((ax,),) = new_figure(1, 1, 4.2)
    protocols = list(dict.fromkeys(p for lines in curves.values() for p in lines))
    for number, (name, lines) in enumerate(curves.items()):
        for protocol, (far, tar) in lines.items():
            x, y = _from(far, tar, smallest_far)
            ax.plot(
                x,
                y,
                color=SERIES[protocols.index(protocol) % len(SERIES)],
                dashes=DASHES[number % len(DASHES)],
                linewidth=1.7,
                label=protocol if len(curves) == 1 else f"{protocol}, {name}",
                drawstyle="steps-post",
            )
    ax.set_xscale("log")
    ax.set_xlim(smallest_far, 1)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1, None))
    ax.set_xlabel("false accept rate (FAR)")
    ax.set_ylabel("true accept rate (TAR)")
    ax.grid(which="major")
    if len(curves) == 1:
        ax.legend(loc="lower right")
    else:
        figure.legend(loc="outside right center", fontsize=8.5)
    return figure


def _from(far: np.ndarray, tar: np.ndarray, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve from `smallest` on; its first point is the highest TAR up to there."""
    start = float(tar[far <= smallest].max())
    later = far > smallest
    return np.concatenate([[smallest], far[later]]), np.concatenate([[start], tar[later]])


@styled
def accuracy(rows: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Accuracy of every protocol with its 95 % interval, one colour per recognizer.

    Args:
        rows: recognizer -> protocol -> (accuracy, low, high).
    """
    names = list(dict.fromkeys(p for protocols in rows.values() for p in protocols))
    figure, ((ax,),) = new_figure(1, 1, 1.0 + 0.34 * len(names) * (1 + 0.25 * (len(rows) - 1)))
    for i, (name, protocols) in enumerate(rows.items()):
        shift = (i - (len(rows) - 1) / 2) * 0.7 / max(len(rows), 1)
        y = [names.index(p) + shift for p in protocols]
        value = np.array(list(protocols.values()))
        error = np.abs(value[:, 1:].T - value[:, 0])
        colour = SERIES[i % len(SERIES)]
        ax.errorbar(value[:, 0], y, xerr=error, fmt="o", color=colour, capsize=3, markersize=5, label=name)
        for x, row in zip(value, y, strict=True):
            ax.annotate(
                f"{100 * x[0]:.2f}", (x[2], row), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8.5
            )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    low = min(v[1] for protocols in rows.values() for v in protocols.values())
    ax.set_xlim(max(0.0, min(0.5, low - 0.02) if low < 0.6 else low - 0.03), 1.012)
    ax.xaxis.set_major_formatter(PercentFormatter(1, None))
    ax.set_xlabel("10-fold verification accuracy, 95 % interval")
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    if len(rows) > 1:
        figure.legend(loc="outside upper left", ncols=4)
    return figure


@styled
def slices(values: Mapping[str, Mapping[str, Mapping[str, float | None]]], label: str) -> Figure:
    """A number by group, one panel per dimension, one line of dots per protocol.

    Args:
        values: dimension -> group -> protocol -> value (None: too few pairs).
        label: of the value axis.
    """
    wide = [max(2, len(groups)) for groups in values.values()]
    figure, axes = new_figure(1, len(values), 3.4, sharey=True, gridspec_kw={"width_ratios": wide})
    protocols = list(dict.fromkeys(p for groups in values.values() for row in groups.values() for p in row))
    for ax, (dimension, groups) in zip(axes.flat, values.items(), strict=True):
        for i, protocol in enumerate(protocols):
            y = [groups[g].get(protocol) for g in groups]
            ax.plot(
                range(len(groups)),
                [np.nan if v is None else v for v in y],
                color=SERIES[i % len(SERIES)],
                marker="o",
                markersize=5,
                linewidth=1,
                alpha=0.9,
                label=protocol,
            )
        ax.set_xticks(range(len(groups)), list(groups))
        ax.set_xlim(-0.4, len(groups) - 0.6)
        ax.set_title(dimension)
        ax.grid(axis="y")
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, None))
    axes[0, 0].set_ylabel(label)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure on white, 200 dpi; no date inside."""
    sink = io.BytesIO()
    with _own_style():
        figure.savefig(sink, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return sink.getvalue()


def svg_text(figure: Figure, name: str) -> str:
    """The figure as SVG without background; the same figure gives the same text."""
    sink = io.StringIO()
    with _own_style(**{"svg.hashsalt": name}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return _numbered_ids(sink.getvalue(), name)


def _numbered_ids(svg: str, name: str) -> str:
    """Ids by order of appearance: matplotlib hashes memory addresses into those of clip paths."""
    found = dict.fromkeys(re.findall(r'id="([a-zA-Z]+[0-9a-f]{10})"', svg))
    for number, old in enumerate(found):
        svg = svg.replace(old, f"{name}-{number}")
    return svg


def svg_bytes(svg: str) -> bytes:
    """An SVG file of its own: `svg_text` on white."""
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1).encode()


def inline_svg(svg: str, alt: str) -> str:
    """`svg_text` for use inside an HTML page: theme colours as CSS, scalable, named for screen readers."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--grid")):
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px|bold [\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{_attribute(alt)}"', 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def axes_of(figure: Figure) -> list[Axes]:
    """The visible axes, for tests and callers that add to a figure."""
    return [ax for ax in figure.axes if ax.get_visible()]
