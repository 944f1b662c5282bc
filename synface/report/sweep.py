"""The part of a page that shows a sweep: accuracy against the point, its tables, ranks of short trainings, trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from synface.report import figures, similarities
from synface.report.data import Sweep
from synface.report.parts import Drawn, Section, Table, percent
from synface.report.published import PUBLISHED
from synface.store import artifact

#: the similarity factor, in recipes that ask for one
M_PATH = "generate.variation.m"
#: value, low, high; None where nobody measured it, or a single seed has no interval
Estimate = tuple[float | None, float | None, float | None]


def tiles(data: Sweep) -> list[tuple[str, str, str]]:
    """Headline numbers: the best point, and how many trials stand."""
    best, found = data.numbers["best"], []
    if best is not None:
        remark = f"{_metric(data)}, mean of {best['n']} seeds: {_values(best['values'])}"
        found.append((f"{percent(best['mean'])} %", "best point", remark))
        found += [(f"{percent(v['mean'])} %", "its test", name) for name, v in best["test"].items() if name == "all"]
    missing = f"{data.numbers['failed']} missing" if data.numbers["failed"] else "none missing"
    return [*found, (f"{data.numbers['done']}", f"of {data.numbers['trials']} trials", missing)]


def sections(data: Sweep) -> list[Section]:
    """The curve and its table; what was asked and realised; early ranks; trials that are missing."""
    found = [_curve(data)] if data.points else []
    if any(r["asked"] is not None or r["realised"] is not None for r in data.trials):
        found.append(_similarity(data))
    if data.samples:
        found.append(_samples(data))
    if data.space is not None:
        names = {p["point"]: _point(p, data, without=M_PATH) for p in data.points}
        found.append(similarities.space(data.space, data.points, names, M_PATH))
    if data.numbers["early_ranks"]:
        found.append(_early(data))
    return [*found, _trials(data)]


def _curve(data: Sweep) -> Section:
    names = _benchmarks(data.points)
    labels, x = _axis(data)
    lines = {name: [_estimate(p, f"accuracy {name}") for p in data.points] for name in names}
    mean = [_estimate(p, "metric") for p in data.points]
    tested = {"test": [_estimate(p, "test all") for p in data.points]} if "test all mean" in data.points[0] else {}
    rows = [
        (label, name, p[f"{column} n"], p[f"{column} mean"], p[f"{column} low"], p[f"{column} high"])
        for label, p in zip(labels, data.points, strict=True)
        for name, column in ((_metric(data), "metric"), *((n, f"accuracy {n}") for n in names))
    ]
    best = data.numbers["best"]
    drawn = Drawn(
        "sweep",
        "Accuracy against the point",
        "Left: each protocol of the selection benchmarks; right: what chooses. Mean over the training seeds with its "
        "95 % interval (Student t).",
        f"Accuracy of {len(labels)} points; best: {_values(best['values'])}, {percent(best['mean'])} %",
        curve(labels, x, lines, {_metric(data): mean, **tested}, _axis_name(data)),
        ("point", "accuracy of", "seeds", "mean", "low95", "high95"),
        rows,
    )
    shown = [("", _points_table(data, labels, names))]
    paths = data.numbers["paths"]
    if len(paths) == 1 and paths[0] in PUBLISHED:
        shown.append((PUBLISHED[paths[0]].title, _published_table(data, labels, paths[0])))
    lead = f"{data.numbers['points']} points, chosen by {_metric(data)}. The tests were opened afterwards."
    return Section("sweep", "Sweep", lead, [drawn], shown)


def _points_table(data: Sweep, labels: Sequence[str], names: Sequence[str]) -> Table:
    test = [n for n in data.points[0] if n.startswith("test ") and n.endswith(" mean")]
    header = ("point", "seeds", _metric(data), "95 % interval", *names, *(n.removesuffix(" mean") for n in test))
    rows = []
    for label, p in zip(labels, data.points, strict=True):
        interval = (
            "\u2013" if p["metric low"] is None else f"{percent(p['metric low'])} \u2013 {percent(p['metric high'])}"
        )
        cells = [label, str(p["metric n"]), percent(p["metric mean"]), interval]
        cells += [percent(p[f"accuracy {n} mean"]) for n in names]
        rows.append((*cells, *(percent(p[n]) for n in test)))
    best = data.numbers["best"]
    strong = [i for i, p in enumerate(data.points) if best is not None and p["point"] == best["point"]]
    return Table(header, rows, strong=frozenset(strong))


def _published_table(data: Sweep, labels: Sequence[str], path: str) -> Table:
    """Our metric beside the published row of the same value."""
    published = PUBLISHED[path]
    rows = []
    for label, p in zip(labels, data.points, strict=True):
        theirs = published.rows.get(p[path])
        cells = ["\u2013"] * len(published.columns) if theirs is None else [f"{v:.2f}" for v in theirs]
        remark = published.remarks.get(p[path], "")
        rows.append((label, percent(p["metric mean"]), *cells, remark))
    return Table((path, f"ours, {_metric(data)}", *published.columns, "remark"), rows)


def _similarity(data: Sweep) -> Section:
    """Asked, realised and mislabelled, of each point's images."""
    header = ("point", "asked", "realised", "std of samples", "nearer to another identity")
    rows: list[tuple[Any, ...]] = []
    for label, r in _first_trials(data):
        rows.append((label, r["asked"], r["realised"], r["realised_std"], r["nearer_to_another"]))
    cells = [tuple("\u2013" if v is None else v if isinstance(v, str) else f"{v:.3f}" for v in row) for row in rows]
    lead = (
        "Similarity to the inquiry: what was asked (m, or the target of the dial), what the images table's scorer "
        "measured, and the share of images that it puts nearer to another inquiry. A dash: nobody measured it."
    )
    shown = [("", Table(header, cells))]
    if data.similarity:
        labels = dict(zip((p["point"] for p in data.points), _axis(data)[0], strict=True))
        by_point = {labels[point]: row for point, row in sorted(data.similarity.items())}
        shown.append(("Similarity to the inquiry", similarities.inquiry_table(by_point)))
        lead = f"{lead} {similarities.INQUIRY_LEAD}"
    return Section("similarity-asked", "Asked and realised", lead, [], shown)


def _first_trials(data: Sweep) -> list[tuple[str, Mapping[str, Any]]]:
    labels = dict(zip((p["point"] for p in data.points), _axis(data)[0], strict=True))
    first: dict[int, Mapping[str, Any]] = {}
    for r in data.trials:
        first.setdefault(r["point"], r)
    return [(labels[number], r) for number, r in first.items() if number in labels]


def _samples(data: Sweep) -> Section:
    """The same noise along a row: an image's noise depends on seed, identity and sample alone."""
    labels = dict(zip((p["point"] for p in data.points), _axis(data)[0], strict=True))
    best = data.numbers["best"]
    rows = [
        (name, labels[point], artifact.sha256_hex(image))
        for name, row in data.samples.items()
        for point, image in sorted(row.items())
    ]
    drawn = Drawn(
        "sweep-samples",
        "Samples",
        "One identity a row, one point a column; the best point is boxed. A row has the same noise where the points "
        "differ only in what the generator is asked.",
        f"First images of {len(data.samples)} synthetic identities at {len(labels)} points",
        similarities.image_grid(data.samples, labels, None if best is None else best["point"]),
        ("identity", "point", "image_sha256"),
        rows,
    )
    return Section("sweep-samples", "Samples by point", "", [drawn])


def _early(data: Sweep) -> Section:
    rows = [
        (epochs, str(v["points"]), "\u2013" if v["spearman"] is None else f"{v['spearman']:.3f}")
        for epochs, v in data.numbers["early_ranks"].items()
    ]
    lead = "Spearman's rank correlation of the points' means after a shorter training with those after the whole one."
    return Section("early", "Early stopping", lead, [], [("", Table(("epochs", "points", "rho"), rows))])


def _trials(data: Sweep) -> Section:
    rows = [
        (str(r["trial"]), _point(r, data), str(r["seed"]), r["state"], percent(r["metric"]), r["error"])
        for r in data.trials
    ]
    counts = ", ".join(f"{v['distinct']} {name.replace('_', ' ')}" for name, v in data.numbers["stages"].items())
    lead = f"Made for {data.numbers['trials']} trials: {counts}."
    header = ("trial", "point", "seed", "state", _metric(data), "error")
    return Section("trials", "Trials", lead, [], [("", Table(header, rows))])


def _metric(data: Sweep) -> str:
    name = data.numbers["metric"]
    return "average" if name == "all" else name


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path.rsplit('.', 1)[-1]} {_text(v)}" for path, v in values.items()) or "the recipe as it is"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _point(row: Mapping[str, Any], data: Sweep, without: str = "") -> str:
    return _values({path: row[path] for path in data.numbers["paths"] if row[path] is not None and path != without})


def _axis(data: Sweep) -> tuple[list[str], list[float] | None]:
    """Labels of the points, and their places on a numeric axis where one number tells them apart."""
    paths = data.numbers["paths"]
    if len(paths) == 1 and all(isinstance(p[paths[0]], int | float) for p in data.points):
        x = [float(p[paths[0]]) for p in data.points]
        return [f"{v:g}" for v in x], x
    return [_point(p, data) for p in data.points], None


def _axis_name(data: Sweep) -> str:
    return data.numbers["paths"][0] if len(data.numbers["paths"]) == 1 else ""


def _benchmarks(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocols of the selection benchmarks."""
    named = [n for n in points[0] if n.startswith("accuracy ") and n.endswith(" mean") and "/" in n]
    return [n.removeprefix("accuracy ").removesuffix(" mean") for n in named]


def _estimate(point: Mapping[str, Any], column: str) -> Estimate:
    return point[f"{column} mean"], point[f"{column} low"], point[f"{column} high"]


@figures.styled
def curve(
    labels: Sequence[str],
    x: Sequence[float] | None,
    lines: Mapping[str, Sequence[Estimate]],
    chosen: Mapping[str, Sequence[Estimate]],
    axis: str,
) -> Figure:
    """Accuracy against the point with error bars: single lines on the left, what chooses on the right.

    Args:
        labels: of the points.
        x: their places; None: one after another, by label.
        lines: name -> estimates, as shares.
        chosen: the same for the right panel.
        axis: name of the x axis.
    """
    figure, axes = figures.new_figure(1, 2, 3.8 if x is not None else 4.6)
    for ax, parts, title in zip(axes.flat, (lines, chosen), ("each benchmark", "average"), strict=True):
        places = np.arange(len(labels)) if x is None else np.asarray(x, float)
        for number, (name, estimates) in enumerate(parts.items()):
            _line(ax, places, estimates, name, number, joined=x is not None)
        if x is None:
            ax.set_xticks(places, labels, rotation=40, ha="right")
        ax.set_xlabel(axis)
        ax.set_title(title)
        ax.yaxis.set_major_formatter(PercentFormatter(1, None))
        ax.grid()
        if len(parts) > 1:
            ax.legend(fontsize=8.5)
    axes[0, 0].set_ylabel("verification accuracy")
    return figure


def _line(ax: Axes, x: np.ndarray, estimates: Sequence[Estimate], name: str, number: int, joined: bool) -> None:
    values = np.array([[np.nan if v is None else v for v in e] for e in estimates], float)
    order = np.argsort(x)
    mean, error = values[order, 0], np.nan_to_num(np.abs(values[order, 1:].T - values[order, 0]))
    colour, style = figures.SERIES[number % len(figures.SERIES)], "o-" if joined else "o"
    ax.errorbar(
        x[order], mean, yerr=error, fmt=style, color=colour, capsize=3, markersize=4.5, linewidth=1.4, label=name
    )
