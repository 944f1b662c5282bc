"""The part of a page that shows a sweep: accuracy against the point, its tables, ranks of short trainings, trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from synface.evaluate import published as systems
from synface.report import figures, similarities
from synface.report.curves import Estimate, Panel, curve
from synface.report.data import Sweep
from synface.report.parts import Drawn, Section, Table, percent
from synface.report.published import Published, tables_of
from synface.store import artifact

#: the similarity factor, in recipes that ask for one
M_PATH = "generate.variation.m"
#: what a tick tells below the value (of m: what was asked)
TOLD = "realised similarity to the inquiry; share nearer to another identity"
#: fewer points than these have a row each in the sample grid, where a column each would leave the page empty
FEW_POINTS = 4
#: frames of the sample grid
BEST, VARIED = figures.SERIES[1], figures.SERIES[3]
BOXED = (
    " Boxed: the point of the highest accuracy (the outer frame where both are one), and the one whose samples of an "
    "identity differ most from each other, by the pixels of the first four."
)


def tiles(data: Sweep) -> list[tuple[str, str, str]]:
    """Headline numbers: the best point, and how many trials stand."""
    best, found = data.numbers["best"], []
    if best is not None:
        remark = f"{_metric(data)}, mean of {best['n']} seeds: {_best(data)}"
        found.append((f"{percent(best['mean'])} %", "best point", remark))
        found += [(f"{percent(v['mean'])} %", "its test", name) for name, v in best["test"].items() if name == "all"]
    missing = f"{data.numbers['failed']} missing" if data.numbers["failed"] else "none missing"
    return [*found, (f"{data.numbers['done']}", f"of {data.numbers['trials']} trials", missing)]


def sections(data: Sweep) -> list[Section]:
    """The curve and its table; what was asked and realised; early ranks; trials that are missing."""
    found = [_curve(data)] if data.points else []
    if any(r["asked"] is not None or r["realised"] is not None for r in data.trials):
        found.append(_similarity(data))
    if data.samples.rows:
        found.append(_samples(data))
    if data.space is not None:
        names = image_columns(data, without=M_PATH)
        found.append(similarities.space(data.space, data.points, names, M_PATH))
    if data.numbers["early_ranks"]:
        found.append(_early(data))
    return [*found, _trials(data)]


def _curve(data: Sweep) -> Section:
    names = _benchmarks(data.points)
    labels, _ = _axis(data)
    first = _first_trials(data)
    told = [first[p["point"]] for p in data.points]
    rows: list[tuple[Any, ...]] = [
        (label, name, p[f"{column} n"], p[f"{column} mean"], p[f"{column} low"], p[f"{column} high"])
        for label, p in zip(labels, data.points, strict=True)
        for name, column in ((_metric(data), "metric"), *((n, f"accuracy {n}") for n in names))
    ]
    rows += [
        (label, name, None, r[name], None, None)
        for label, r in zip(labels, told, strict=True)
        for name in ("asked", "realised", "nearer_to_another")
        if r[name] is not None
    ]
    panels = _panels(data, names, told)
    measured = any("\n" in tick for panel in panels for tick in panel.labels)
    axis = f"{_axis_name(data)}; {TOLD}" if measured else _axis_name(data)
    best = data.numbers["best"]
    drawn = Drawn(
        "sweep",
        "Accuracy against the point",
        "Left: each protocol of the selection benchmarks; right: what chooses. Mean over the training seeds with its "
        "95 % interval (Student t)." + " Below the values: what the images table's scorer measured." * measured,
        f"Accuracy of {len(labels)} points; best: {_best(data)}, {percent(best['mean'])} %",
        curve(panels, axis),
        ("point", "accuracy of", "seeds", "mean", "low95", "high95"),
        rows,
    )
    shown = [("", _points_table(data, labels, names))]
    for table in tables_of(data.numbers["paths"], data.numbers.get("crossed", []), data.points):
        shown.append((table.title, _published_table(data, labels, table)))
    if data.numbers.get("real") is not None:
        shown.append(("Published systems, gap to CASIA-WebFace (CosFace)", _systems_table()))
    lead = f"{data.numbers['points']} points, chosen by {_metric(data)}. The tests were opened afterwards."
    return Section("sweep", "Sweep", lead, [drawn], shown)


def _panels(data: Sweep, names: Sequence[str], told: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Every protocol, then what chooses; of named points that a number crosses, a panel each, and the averages."""

    def lines(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Estimate]]:
        return {name: [_estimate(p, f"accuracy {name}") for p in points] for name in names}

    numbered = list(zip(data.points, told, strict=True))
    path = _axis_name(data)
    if path and data.points[0].get("name"):
        found, means, x = [], {}, sorted({float(p[path]) for p in data.points})
        for kind in dict.fromkeys(p["name"] for p in data.points):
            part = [(p, r) for p, r in numbered if p["name"] == kind]
            own = [p for p, _ in part]
            ticks = [_tick(f"{p[path]:g}", r) for p, r in part]
            found.append(Panel(kind, ticks, [float(p[path]) for p in own], lines(own)))
            by_x = {float(p[path]): _estimate(p, "metric") for p in own}
            means[kind] = [by_x.get(v, (None, None, None)) for v in x]
        return [*found, Panel(_metric(data), [f"{v:g}" for v in x], x, means)]
    labels, x = _axis(data)
    ticks = labels if x is None else [_tick(label, r) for label, r in zip(labels, told, strict=True)]
    chosen = {_metric(data): [_estimate(p, "metric") for p in data.points]}
    if "test all mean" in data.points[0]:
        chosen["test"] = [_estimate(p, "test all") for p in data.points]
    return [Panel("each benchmark", ticks, x, lines(data.points)), Panel("average", ticks, x, chosen)]


def _tick(label: str, told: Mapping[str, Any]) -> str:
    """A point's label on the axis, with what its images realised where somebody measured it."""
    if told["realised"] is None:
        return label
    nearer = told["nearer_to_another"]
    return "\n".join([label, f"{told['realised']:.2f}", *([] if nearer is None else [f"{100 * nearer:.0f} %"])])


def _points_table(data: Sweep, labels: Sequence[str], names: Sequence[str]) -> Table:
    test = [n for n in data.points[0] if n.startswith("test ") and n.endswith(" mean")]
    real = next((p for p in data.points if p["point"] == data.numbers.get("real")), None)
    gaps = () if real is None else ("gap to real, points", "gap to real, %")
    heads = (*names, *(n.removesuffix(" mean") for n in test))
    rows = []
    for label, p in zip(labels, data.points, strict=True):
        interval = (
            "\u2013" if p["metric low"] is None else f"{percent(p['metric low'])} \u2013 {percent(p['metric high'])}"
        )
        cells = [label, str(p["metric n"]), percent(p["metric mean"]), interval, *_gap(real, p)]
        cells += [percent(p[f"accuracy {n} mean"]) for n in names]
        rows.append((*cells, *(percent(p[n]) for n in test)))
    best = data.numbers["best"]
    strong = [i for i, p in enumerate(data.points) if best is not None and p["point"] == best["point"]]
    return Table(("point", "seeds", _metric(data), "95 % interval", *gaps, *heads), rows, strong=frozenset(strong))


def _gap(real: Mapping[str, Any] | None, point: Mapping[str, Any]) -> list[str]:
    """The gap to the point trained on real data, in both published definitions; of the test, where both have it."""
    if real is None:
        return []
    name = "test all mean" if real.get("test all mean") and point.get("test all mean") else "metric mean"
    if point["point"] == real["point"]:
        return ["\u2013", "\u2013"]
    gap = systems.gap_to_real(100 * real[name], 100 * point[name])
    return [f"{gap['points']:.2f}", f"{gap['relative_percent']:.2f}"]


def _published_table(data: Sweep, labels: Sequence[str], published: Published) -> Table:
    """Our metric beside the published row of the same values; or their rows alone, if those are of other data."""
    if published.whole:
        cells = [(" ".join(str(k) for k in key), *map(_known, row)) for key, row in published.rows.items()]
        return Table(("published", *published.columns), cells)
    rows = []
    for label, p in zip(labels, data.points, strict=True):
        key = published.key(p)
        theirs = published.rows.get(key, (None,) * len(published.columns))
        rows.append((label, percent(p["metric mean"]), *map(_known, theirs), published.remarks.get(key, "")))
    return Table(
        (
            "point" if data.points[0].get("name") else _axis_name(data) or "point",
            f"ours, {_metric(data)}",
            *published.columns,
            "remark",
        ),
        rows,
    )


def _systems_table() -> Table:
    """What papers report of their systems, the worst first."""
    rows = systems.beside({})
    real = next(r["average"] for r in rows if r["real"] and r["source"] == systems.CEMIFACE_RERUN)
    cells = []
    for r in rows:
        gap = systems.gap_to_real(real, r["average"])
        shown = (gap["points"], gap["relative_percent"])
        cells.append(
            (r["system"], r["images"], *(f"{r[s]:.2f}" for s in systems.SETS), f"{r['average']:.2f}",
             *("\u2013" if r["real"] else f"{v:.2f}" for v in shown), r["source"])
        )  # fmt: skip
    return Table(("system", "images", *systems.SETS, "average", "gap, points", "gap, %", "source"), cells)


def _known(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"


def _similarity(data: Sweep) -> Section:
    """Asked, realised and mislabelled, of each point's images."""
    header = ("point", "asked", "realised", "std of samples", "nearer to another identity")
    columns, told = image_columns(data), ("asked", "realised", "realised_std", "nearer_to_another")
    rows = [(columns[n], *(r[name] for name in told)) for n, r in _first_trials(data).items() if n in columns]
    cells = [tuple("\u2013" if v is None else v if isinstance(v, str) else f"{v:.3f}" for v in row) for row in rows]
    lead = (
        "Similarity to the inquiry: what was asked (m, or the target of the dial), what the images table's scorer "
        "measured, and the share of images that it, or the page's own recognizer, puts nearer to another inquiry. A "
        "dash: nobody measured it."
    )
    shown = [("", Table(header, cells))]
    if data.similarity:
        labels = columns | dict(data.samples.beside)
        by_point = {labels[column]: data.similarity[column] for column in labels if column in data.similarity}
        shown.append(("Similarity to the inquiry", similarities.inquiry_table(by_point)))
        lead = f"{lead} {similarities.INQUIRY_LEAD}"
    return Section("similarity-asked", "Asked and realised", lead, [], shown)


def _first_trials(data: Sweep) -> dict[int, Mapping[str, Any]]:
    """Point -> its first trial, with what the page's own recognizer measured."""
    first: dict[int, Mapping[str, Any]] = {}
    for r in data.trials:
        nearer = data.nearer.get(r["point"]) if r["nearer_to_another"] is None else r["nearer_to_another"]
        first.setdefault(r["point"], {**r, "nearer_to_another": nearer})
    return first


def image_columns(data: Sweep, without: str = "") -> dict[int, str]:
    """Point -> label; points with the same images once, at the first, under what is common to them."""
    labels = [_point(p, data, without) for p in data.points] if without else _axis(data)[0]
    shown_at = data.shown_at
    found = {
        p["point"]: label
        for p, label in zip(data.points, labels, strict=True)
        if shown_at.get(p["point"], p["point"]) == p["point"]
    }
    for first, same in data.alike.items():
        if len(same) > 1:
            found[first] = _common(data, [p for p in data.points if p["point"] in same], without)
    return found if without else dict(zip(found, _distinct([*found.values()]), strict=True))


def _common(data: Sweep, points: Sequence[Mapping[str, Any]], without: str) -> str:
    """What some of the points have in common, in words."""
    if len(points) == len(data.points):
        return "all points"
    paths = [path for path in data.numbers["paths"] if len({_text(p[path]) for p in points}) == 1]
    values = {path: points[0][path] for path in paths if points[0][path] is not None and path != without}
    if values and not points[0].get("name"):
        return _values(values, data.numbers["paths"])
    names = [_point(p, data, without) for p in points]
    return " and ".join(names) if len(names) == 2 else f"{names[0]} and {len(names) - 1} others"


def _samples(data: Sweep) -> Section:
    """The same noise along a row: an image's noise depends on seed, identity and sample alone."""
    samples, best = data.samples, data.numbers["best"]
    labels = image_columns(data) | dict(samples.beside)
    rows = [
        (name, labels[column], artifact.sha256_hex(image))
        for name, row in samples.rows.items()
        for column, image in sorted(row.items())
    ]
    shown = len(next(iter(samples.rows.values())))
    boxes: dict[int, list[str]] = {}
    for column, colour in ((best and data.shown_at.get(best["point"]), BEST), (samples.most_varied, VARIED)):
        if column is not None and shown > 1:
            boxes.setdefault(column, []).append(colour)
    flat = shown < min(FEW_POINTS, len(samples.rows))
    line, other = ("column", "row") if flat else ("row", "column")
    drawn = Drawn(
        "sweep-samples",
        "Samples",
        f"One identity a {line} (no. k: the k-th of each, where the points share nobody), one point a {other}"
        + " (points with the same images once)" * any(len(same) > 1 for same in data.alike.values())
        + f". A {line} has the same noise where the points differ only in what the generator is asked."
        + BOXED * bool(boxes),
        f"First images of {len(samples.rows)} synthetic identities in {shown} {other}{'s' * (shown > 1)}",
        similarities.image_grid(samples.rows, labels, boxes, flat),
        ("identity", "point", "image_sha256"),
        rows,
    )
    header = ("", "difference of samples, grey levels", "boxed")
    words = {BEST: "highest accuracy", VARIED: "most varied"}
    cells = [
        (name, f"{samples.variety[column]:.2f}", ", ".join(words[c] for c in boxes.get(column, ())))
        for column, name in labels.items()
        if column in samples.variety
    ]
    return Section("sweep-samples", "Samples by point", "", [drawn], [("", Table(header, cells))] if cells else [])


def _early(data: Sweep) -> Section:
    rows = [
        (epochs, str(v["points"]), "\u2013" if v["spearman"] is None else f"{v['spearman']:.3f}")
        for epochs, v in data.numbers["early_ranks"].items()
    ]
    lead = "Spearman's rank correlation of the points' means after a shorter training with those after the whole one."
    tables = [("", Table(("epochs", "points", "rho"), rows))]
    tables += [(f"Places after {epochs} epochs", _places(data, epochs)) for epochs in data.numbers["early_ranks"]]
    return Section("early", "Early stopping", lead, [], tables)


def _places(data: Sweep, epochs: str) -> Table:
    """Every point's means after the short and the whole training, over the seeds that have both, and its places."""
    both: dict[str, list[tuple[float, float]]] = {}
    for r in data.trials:
        short = r.get(f"metric at {epochs} epochs")
        if short is not None and r["metric"] is not None:
            both.setdefault(_point(r, data), []).append((short, r["metric"]))
    means = {point: tuple(sum(part) / len(part) for part in zip(*pairs, strict=True)) for point, pairs in both.items()}
    places = [{p: n for n, p in enumerate(sorted(means, key=lambda p: -means[p][k]), 1)} for k in range(2)]
    metric = _metric(data)
    header = ("point", f"{metric} after {epochs} epochs", "place", f"{metric} of the whole", "place")
    return Table(
        header,
        [(p, percent(a), str(places[0][p]), percent(b), str(places[1][p])) for p, (a, b) in means.items()],
    )


def _trials(data: Sweep) -> Section:
    header = ("trial", "point", "seed", "state", _metric(data), "own seconds", "shared seconds", "GPU hours", "error")
    rows, gpu_hours = [], 0.0
    for r in data.trials:
        cost = data.costs.get(r["trial"], {})
        gpu_hours += float(cost.get("gpu_hours", 0))
        told = [cost.get(name, "\u2013") for name in ("own_seconds", "shared_seconds", "gpu_hours")]
        rows.append(
            (str(r["trial"]), _point(r, data), str(r["seed"]), r["state"], percent(r["metric"]), *told, r["error"])
        )
    counts = ", ".join(f"{v['distinct']} {name.replace('_', ' ')}" for name, v in data.numbers["stages"].items())
    lead = f"Made for {data.numbers['trials']} trials: {counts}."
    if data.costs:
        lead += " Shared stages stand in full at each trial that uses them, GPU hours by its share"
        lead += f" ({gpu_hours:.2f} in all)."
    return Section("trials", "Trials and their cost", lead, [], [("", Table(header, rows))])


def _metric(data: Sweep) -> str:
    name = data.numbers["metric"]
    return "average" if name == "all" else name


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path -> its last parts, as many as tell it from the other paths, and of what a ``name`` is."""
    parts = {path: path.split(".") for path in paths}
    names = {}
    for path, own in parts.items():
        count = 2 if own[-1] == "name" else 1
        while any(other[-count:] == own[-count:] for p, other in parts.items() if p != path):
            count += 1
        names[path] = ".".join(own[-count:])
    return names


def _values(values: Mapping[str, Any], paths: Sequence[str]) -> str:
    names = short_names([*dict.fromkeys([*paths, *values])])
    return ", ".join(f"{names[path]} {_text(v)}" for path, v in values.items()) or "the recipe as it is"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _point(row: Mapping[str, Any], data: Sweep, without: str = "") -> str:
    """A point's name with the values that it is crossed with, or all of its values."""
    name = row.get("name")
    paths = data.numbers["crossed"] if name else data.numbers["paths"]
    values = {path: row[path] for path in paths if row[path] is not None and path != without}
    told = _values(values, data.numbers["paths"])
    return ", ".join([name, *([told] if values else [])]) if name else told


def _best(data: Sweep) -> str:
    """The best point, as tables call it."""
    return next(_point(p, data) for p in data.points if p["point"] == data.numbers["best"]["point"])


def _axis(data: Sweep) -> tuple[list[str], list[float] | None]:
    """Labels of the points, and their places on a numeric axis where one number tells them apart."""
    path = _axis_name(data)
    if path and not data.points[0].get("name"):
        x = [float(p[path]) for p in data.points]
        return [f"{v:g}" for v in x], x
    return _distinct([_point(p, data) for p in data.points]), None


def _distinct(labels: list[str]) -> list[str]:
    """Labels that differ: points may differ in what only other points' recipes hold."""
    return [label if labels.count(label) == 1 else f"{label} ({i})" for i, label in enumerate(labels)]


def _axis_name(data: Sweep) -> str:
    """The one path whose numbers are an axis: of all points, or of what points with names are crossed with."""
    paths = data.numbers["crossed"] if data.points[0].get("name") else data.numbers["paths"]
    single = len(paths) == 1 and all(isinstance(p[paths[0]], int | float) for p in data.points)
    return paths[0] if single else ""


def _benchmarks(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocols of the selection benchmarks."""
    named = [n for n in points[0] if n.startswith("accuracy ") and n.endswith(" mean") and "/" in n]
    return [n.removeprefix("accuracy ").removesuffix(" mean") for n in named]


def _estimate(point: Mapping[str, Any], column: str) -> Estimate:
    return point[f"{column} mean"], point[f"{column} low"], point[f"{column} high"]
