"""From a run's data to the parts of a page: figures with the table behind each, tables, headline numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synface.report import figures, similarities, sweep
from synface.report.data import Evaluation, Packing, Run
from synface.report.parts import Drawn, Section, Table, percent

#: columns of the slices that are shown: dimension order
DIMENSIONS = ("sex", "age", "ancestry")
GROUP_ORDER = ("female", "male", "under 30", "30 to 50", "over 50")


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """Headline numbers: (value, label, remark)."""
    found = [] if run.sweep is None else sweep.tiles(run.sweep)
    for name, evaluation in list(run.evaluations.items())[:1]:
        mean = evaluation.content["average"]["all"]
        remark = f"mean of {mean['protocols']} protocols" + (f", {name}" if len(run.evaluations) > 1 else "")
        found.append((f"{percent(mean['accuracy'])} %", "verification accuracy", remark))
        far, tar = list(mean["tar_at_far"].items())[-1]
        rule = evaluation.content["far_rule"]
        found.append((f"{percent(tar, 1)} %", f"TAR at FAR {far}", f"mean, {rule} rule"))
    if run.packing is not None:
        numbers = run.packing.numbers
        remark = f"bound {numbers['bound']:.3f}" if "bound" in numbers else ""
        found.append((f"{float(run.packing.nearest_n.max()):.3f}", "largest identity cosine", remark))
    if run.grid is not None:
        n = run.grid.numbers
        found.append((f"{n['identities']:,}", "identities", f"{n['images']:,} images"))
    for training in list(run.trainings.values())[:1]:
        n = training.numbers
        if "parameters" in n:
            remark = f"{n['epochs']} epochs, {n['images']:,} images" if {"epochs", "images"} <= set(n) else ""
            found.append((f"{n['parameters'] / 1e6:.2f} M", "recognizer parameters", remark))
    return found


def sections(run: Run) -> list[Section]:
    """Every section that the run has data for, except the image grid and the provenance."""
    found = [] if run.sweep is None else sweep.sections(run.sweep)
    if run.groups is not None:
        found.append(similarities.groups(run.groups))
    if run.evaluations:
        found.append(results(run))
    if run.packing is not None:
        found.append(packing(run.packing))
    if any(t.history for t in run.trainings.values()):
        found.append(training(run))
    if run.similarity:
        found.append(similarities.inquiry(run.similarity))
    if run.evaluations:
        found.append(similarity(run))
        if any(_dimensions(e) for e in run.evaluations.values()):
            found.append(fairness(run))
    return found


def packing(data: Packing) -> Section:
    """How far apart the identities are."""
    numbers, levels = data.numbers, {}
    if "bound" in numbers:
        levels["bound"] = float(numbers["bound"])
    if "iid_max_cosine" in numbers:
        levels["iid uniform, largest"] = float(numbers["iid_max_cosine"])
    subset = numbers.get("solver") == "subset"
    labels = ("dispersed subset" if subset else "packed", "as many of the pool at random")
    figure = figures.packing(data.nearest_n, levels, data.unpacked_n, labels)
    rows: list[tuple[Any, ...]] = [("chosen", float(v)) for v in np.sort(data.nearest_n)]
    rows += [("random", float(v)) for v in np.sort(data.unpacked_n)] if data.unpacked_n is not None else []
    rows += list(levels.items())
    caption = (
        "For every identity the cosine to its nearest neighbour. The bound is the smallest largest cosine that "
        "any arrangement of as many points on the whole sphere of this dimension can have; faces fill a small "
        "part of it, so a subset of real embeddings stays above."
    )
    lead = (
        f"{numbers.get('num_identities', len(data.nearest_n)):,} identities in {numbers.get('dim', '?')} dimensions."
    )
    alt = f"Histogram of nearest cosines, mean {data.nearest_n.mean():.3f}, largest {data.nearest_n.max():.3f}"
    drawn = Drawn("packing", "Nearest neighbours", caption, alt, figure, ("set", "nearest_cosine"), rows)
    curve = [trade_off(numbers)] if numbers.get("trade_off") else []
    return Section("packing", "Identities", lead, [drawn, *curve])


def trade_off(numbers: Mapping[str, Any]) -> Drawn:
    """Largest cosine against the distance to the gallery, one point for each weight alpha."""
    fields = ("alpha", "gallery_distance", "max_cosine")
    found = [*numbers["trade_off"], numbers]
    points = sorted((float(p["alpha"]), float(p["gallery_distance"]), float(p["max_cosine"])) for p in found)
    alt = "Largest cosine against distance to the gallery: " + "; ".join(
        f"alpha {alpha:g}: {cosine:.3f} at {distance:.3f}" for alpha, distance, cosine in points
    )
    return Drawn(
        "trade-off",
        "Far apart, or near the gallery",
        "Each point is a packing with another weight alpha of the gallery term; the filled one is this run's. Left "
        "and below is better on both.",
        alt,
        figures.trade_off(points, float(numbers["alpha"])),
        fields,
        points,
    )


def training(run: Run) -> Section:
    """Loss curves."""
    history = {name: t.history for name, t in run.trainings.items() if t.history}
    rows = [
        (name, e["epoch"], e["loss"], e.get("accuracy"), e.get("lr")) for name, part in history.items() for e in part
    ]
    last = [f"{name}: loss {part[-1]['loss']:.3f} after epoch {part[-1]['epoch']}" for name, part in history.items()]
    drawn = Drawn(
        "training",
        "Loss and accuracy on the training images",
        "Means over each epoch. The accuracy is that of the classifier with its margin, on augmented images.",
        "Training curves. " + "; ".join(last),
        figures.training(history),
        ("recognizer", "epoch", "loss", "accuracy", "lr"),
        rows,
    )
    return Section("training", "Training", "", [drawn])


def results(run: Run) -> Section:
    """The table of protocols and metrics, accuracy with intervals, and the ROC."""
    shown: list[tuple[str, Table]] = []
    points: dict[str, dict[str, tuple[float, float, float]]] = {}
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    rows, smallest = [], 1.0
    several = len(run.evaluations) > 1
    for name, evaluation in run.evaluations.items():
        shown.append((name if several else "", results_table(evaluation)))
        labels = protocol_labels(evaluation)
        for (benchmark, protocol), label in labels.items():
            row = evaluation.content["results"][benchmark][protocol]
            points.setdefault(name, {})[label] = (row["accuracy"], *row["accuracy_ci95"])
            far, tar = evaluation.roc[benchmark, protocol]
            curves.setdefault(name, {})[label] = (far, tar)
            rows += [(name, benchmark, protocol, float(f), float(t)) for f, t in zip(far, tar, strict=True)]
            smallest = min(smallest, 1 / row["impostor"])
    flat = [(name, p, *v) for name, part in points.items() for p, v in part.items()]
    accuracy = Drawn(
        "accuracy",
        "Accuracy by protocol",
        "10-fold verification accuracy; the interval is Wilson's for the share of pairs judged right.",
        "Accuracy by protocol: " + "; ".join(f"{p} {percent(v)} %" for _, p, v, *_ in flat),
        figures.accuracy(points),
        ("recognizer", "protocol", "accuracy", "low95", "high95"),
        flat,
    )
    roc = Drawn(
        "roc",
        "ROC",
        "True accept rate against false accept rate. The left end is one false accept.",
        f"ROC curves of {len(flat)} protocols on a logarithmic axis",
        figures.roc(curves, smallest),
        ("recognizer", "benchmark", "protocol", "far", "tar"),
        rows,
    )
    rule = next(iter(run.evaluations.values())).content["far_rule"]
    words = {"strict": "the asked FAR is never exceeded", "nearest": "at the FAR nearest the asked one"}
    lead = f"All values in per cent, AUC apart. TAR at FAR by the {rule} rule: {words.get(rule, rule)}."
    return Section("results", "Results", lead, [accuracy, roc], shown)


def protocol_labels(evaluation: Evaluation) -> dict[tuple[str, str], str]:
    """(benchmark, protocol) -> the shortest name that tells them apart."""
    table = evaluation.content["results"]
    single = len(table) == 1
    labels = {}
    for benchmark, protocols in table.items():
        for protocol in _ordered(protocols):
            if len(protocols) == 1 and protocol == "verification":
                labels[benchmark, protocol] = benchmark
            else:
                labels[benchmark, protocol] = protocol if single else f"{benchmark}/{protocol}"
    return labels


def _ordered(protocols: Any) -> list[str]:
    usual = ("frontal", "pose", "age", "quality", "mixed", "lookalike")
    return sorted(protocols, key=lambda p: (usual.index(p) if p in usual else len(usual), p))


def results_table(evaluation: Evaluation) -> Table:
    """Protocols in rows, metrics in columns, the average last."""
    content = evaluation.content
    fars = list(content["average"]["all"]["tar_at_far"])
    header = (
        "protocol",
        "accuracy",
        "\u00b1 std",
        "95 % interval",
        "AUC",
        "EER",
        *(f"TAR@{f}" for f in fars),
        "pairs",
    )
    rows = []
    for (benchmark, protocol), label in protocol_labels(evaluation).items():
        row = content["results"][benchmark][protocol]
        low, high = row["accuracy_ci95"]
        cells = [
            label,
            percent(row["accuracy"]),
            percent(row["accuracy_std"]),
            f"{percent(low)} \u2013 {percent(high)}",
        ]
        cells += [f"{row['auc']:.4f}", percent(row["eer"])]
        cells += [percent(row["tar_at_far"][f]["tar"]) for f in fars]
        rows.append((*cells, f"{row['pairs']:,}"))
    mean = content["average"]["all"]
    cells = ["average", percent(mean["accuracy"]), "", "", f"{mean['auc']:.4f}", percent(mean["eer"])]
    rows.append((*cells, *(percent(mean["tar_at_far"][f]) for f in fars), ""))
    return Table(header, rows, strong=frozenset([len(rows) - 1]))


def similarity(run: Run) -> Section:
    """Genuine and impostor histograms, one figure per evaluation."""
    drawn = []
    for number, (name, evaluation) in enumerate(run.evaluations.items()):
        labels = protocol_labels(evaluation)
        scores = {label: evaluation.scores[key] for key, label in labels.items()}
        numbers = {label: evaluation.content["results"][b][p] for (b, p), label in labels.items()}
        threshold = {label: row["threshold_cosine"] for label, row in numbers.items()}
        rows = []
        for label, (genuine, impostor) in scores.items():
            edges = np.linspace(-1, 1, 101)
            for kind, values in (("genuine", genuine), ("impostor", impostor)):
                counts = np.histogram(np.clip(values, -1, 1), edges)[0]
                rows += [(label, kind, float(a), int(c)) for a, c in zip(edges[:-1], counts, strict=True)]
        means = "; ".join(
            f"{label} {row['genuine_mean']:.2f} against {row['impostor_mean']:.2f}" for label, row in numbers.items()
        )
        drawn.append(
            Drawn(
                "similarity" if number == 0 else f"similarity-{number}",
                "Genuine and impostor pairs" + (f": {name}" if len(run.evaluations) > 1 else ""),
                "Share of pairs by cosine; the dashed line is the mean of the ten folds' thresholds.",
                f"Histograms of similarity; mean genuine against impostor: {means}",
                figures.similarity(scores, threshold),
                ("protocol", "kind", "cosine_from", "pairs"),
                rows,
            )
        )
    return Section("similarity", "Similarity", "", drawn)


def _dimensions(evaluation: Evaluation) -> list[str]:
    found = {d for ps in evaluation.content["results"].values() for row in ps.values() for d in row["slices"]}
    return [d for d in DIMENSIONS if d in found] + sorted(found - set(DIMENSIONS))


def fairness(run: Run) -> Section:
    """Balanced accuracy by group, as a table and a figure, per evaluation that has groups."""
    drawn, shown = [], []
    for number, (name, evaluation) in enumerate(run.evaluations.items()):
        dimensions = _dimensions(evaluation)
        if not dimensions:
            continue
        values = group_values(evaluation, dimensions)
        labels = [
            p for p in protocol_labels(evaluation).values() if any(p in g for d in values.values() for g in d.values())
        ]
        columns = [(d, g) for d, groups in values.items() for g in groups]
        rows = [(p, *(percent(values[d][g].get(p), 1) for d, g in columns)) for p in labels]
        header = ("protocol", *(g for _, g in columns))
        groups = (("", 1), *((d, len(values[d])) for d in dimensions))
        heading = name if len(run.evaluations) > 1 else ""
        shown.append((heading, Table(header, rows, groups)))
        spread = spread_table(evaluation)
        if spread.rows:
            shown.append((f"{heading} spread over groups".strip(), spread))
        flat = [(d, g, p, values[d][g].get(p)) for d, g in columns for p in labels]
        drawn.append(
            Drawn(
                "slices" if number == 0 else f"slices-{number}",
                "By group" + (f": {name}" if heading else ""),
                "Pairs whose two people are of one group. One threshold for everybody, as a deployed system has.",
                "Balanced accuracy by " + ", ".join(dimensions),
                figures.slices(values, "balanced accuracy"),
                ("dimension", "group", "protocol", "balanced_accuracy"),
                flat,
            )
        )
    lead = "Mean of the shares of genuine and of impostor pairs that are judged right, per cent."
    return Section("groups", "Groups", lead, drawn, shown)


def spread_table(evaluation: Evaluation) -> Table:
    """Mean, spread and skewed error ratio over groups of people, as RFW and FRCSyn report them; per cent."""
    rows = []
    for name, row in evaluation.content.get("groups", {}).items():
        ratio = row["skewed_error_ratio"]
        numbers = (percent(row[key], 1) for key in ("mean", "std", "trade_off"))
        ends = (f"{row[end]} ({percent(row['groups'][row[end]], 1)})" for end in ("lowest", "highest"))
        rows.append((name, *numbers, *ends, "" if ratio is None else f"{ratio:.2f}"))
    header = ("groups", "mean", "std", "mean - std", "lowest", "highest", "largest error / smallest")
    return Table(header, rows)


def group_values(evaluation: Evaluation, dimensions: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Values by dimension -> group -> protocol label -> balanced accuracy."""
    found: dict[str, dict[str, dict[str, float | None]]] = {d: {} for d in dimensions}
    for (benchmark, protocol), label in protocol_labels(evaluation).items():
        for dimension, groups in evaluation.content["results"][benchmark][protocol]["slices"].items():
            for group, row in groups.items():
                found[dimension].setdefault(group, {})[label] = row["balanced_accuracy"]

    def order(group: str) -> tuple[int, str]:
        return (GROUP_ORDER.index(group) if group in GROUP_ORDER else len(GROUP_ORDER), group)

    return {d: {g: groups[g] for g in sorted(groups, key=order)} for d, groups in found.items()}
