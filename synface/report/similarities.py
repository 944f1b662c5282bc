"""Parts of a page about similarity: to the inquiry beside published rows, groups of images, samples in the plane."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from synface.evaluate.audit import BIN_NAMES
from synface.report import figures
from synface.report.data import Groups
from synface.report.parts import Drawn, Section, Table
from synface.report.published import SIMILARITY, SIMILARITY_GROUPS
from synface.report.space import Space
from synface.store import artifact

#: inches between the frames around a point's images, and from them
FRAME = 0.035
#: letters of a heading that fit into an inch
LETTERS = 14
#: letters of a name in a legend
NAME_LENGTH = 48
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GROUP_FIELDS = ("mean", "mean_highest", "mean_lowest")
GROUP_NUMBERS = ("mean", "highest", "lowest")
INQUIRY_LEAD = (
    "Cosine of each image to its inquiry: mean and standard deviation over images, and the number of identities by "
    "their mean. The published rows are by the paper's recognizer; another one's cosines have another scale."
)


def inquiry_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Similarity to the inquiry (`audit.similarity_statistics` by name), the published rows last."""
    published = {
        name: {"mean": s.mean, "std": s.std, "identities_by_mean": s.identities_by_mean}
        for name, s in SIMILARITY.items()
    }
    cells = []
    for name, row in [*rows.items(), *published.items()]:
        bins = row["identities_by_mean"]
        counts = [f"{bins[b]:,}" if b in bins else "\u2013" for b in BIN_NAMES]
        cells.append((name, f"{row['mean']:.4f}", f"{row['std']:.4f}", *counts))
    groups = (("", 1), ("images", 2), ("identities by mean similarity", len(BIN_NAMES)))
    return Table(("", "mean", "std", *BIN_NAMES), cells, groups)


def inquiry(rows: Mapping[str, Mapping[str, Any]]) -> Section:
    """A section of its own, where there is no sweep to show it."""
    kinds = sorted({row["to"] for row in rows.values() if "to" in row} - {"inquiry image"})
    remark = f" Audits of images that nobody scored measure it to the {' or '.join(kinds)} instead." if kinds else ""
    return Section("inquiry", "Similarity to the inquiry", INQUIRY_LEAD + remark, [], [("", inquiry_table(rows))])


def groups(data: Groups) -> Section:
    """Images by similarity group, and what the groups hold beside the paper's."""
    header = ("group", "images", "mean", "mean highest", "mean lowest", *(f"CemiFace {n}" for n in GROUP_NUMBERS))
    same = len(data.statistics) == len(SIMILARITY_GROUPS)
    cells = []
    for number, row in enumerate(data.statistics):
        ours = [f"{row[name]:.3f}" if name in row else "\u2013" for name in GROUP_FIELDS]
        theirs = [f"{v:g}" for v in SIMILARITY_GROUPS[number]] if same else ["\u2013"] * len(GROUP_NUMBERS)
        cells.append((str(number), f"{row['images']:,}", *ours, *theirs))
    rows = [
        (name, group, row, cosine, artifact.sha256_hex(image))
        for name, parts in data.rows.items()
        for group, images in parts.items()
        for row, cosine, image in images
    ]
    drawn = Drawn(
        "similarity-groups",
        "Training images by similarity group",
        "One identity a row; in each group its most similar images. Group 0 is nearest to the identity's centre.",
        f"Images of {len(data.rows)} identities in {len(data.statistics)} groups by similarity to the centre",
        group_grid(data),
        ("identity", "group", "row", "cosine", "image_sha256"),
        rows,
    )
    lead = (
        "Each identity's images in equal parts by cosine to its centre. Means of the highest and the lowest are over "
        "identities. CemiFace's groups are those of CASIA-WebFace, by another recognizer (its Tables 1 and 9)."
    )
    return Section("similarity-groups", "Similarity groups", lead, [drawn], [("", Table(header, cells))])


def group_grid(data: Groups) -> Figure:
    """The images of `groups`; columns are those that every shown identity fills."""
    columns = [
        (group, k)
        for group in range(len(data.statistics))
        for k in range(min((len(parts.get(group, ())) for parts in data.rows.values()), default=0))
    ]
    samples = {
        name: {i: parts[group][k][2] for i, (group, k) in enumerate(columns)} for name, parts in data.rows.items()
    }
    labels = {i: f"group {group}" if k == 0 else "" for i, (group, k) in enumerate(columns)}
    return image_grid(samples, labels, {})


def space(data: Space, points: Sequence[Mapping[str, Any]], labels: Mapping[int, str], path: str) -> Section:
    """Samples of a sweep's points in the plane: by source, and by m where the points differ in it.

    Args:
        data: the layout.
        points: rows of the sweep's points.
        labels: point -> its name without m.
        path: of m in the recipe.
    """
    value: dict[int, Any] = {p["point"]: p.get(path) for p in points}
    numeric = all(isinstance(value[point], int | float) for point in data.point_n)
    m_n = np.array([float(value[point]) if numeric else np.nan for point in data.point_n])
    source_n = [shortened(labels[point]) for point in data.point_n]
    rows = [
        (point, source, None if np.isnan(m) else float(m), identity, float(x), float(y))
        for point, source, m, identity, (x, y) in zip(
            data.point_n, source_n, m_n, data.identity_n, data.place_n2, strict=True
        )
    ]
    sources = list(dict.fromkeys(source_n))
    drawn = Drawn(
        "sweep-space",
        "Samples in the plane",
        f"t-SNE of unit embeddings by {data.embedder}, all points together: the first images of the first identities "
        "of each point. Distances between far groups mean nothing.",
        f"{len(rows)} samples of {len(labels)} points: " + "; ".join(sources),
        scatter(data.place_n2, source_n if len(sources) > 1 else None, m_n if numeric else None),
        ("point", "source", "m", "identity", "x", "y"),
        rows,
    )
    return Section("sweep-space", "t-SNE of samples", "", [drawn])


def shortened(name: str) -> str:
    """A name that fits into a legend."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 3] + "..."


@figures.styled
def scatter(place_n2: np.ndarray, source_n: Sequence[str] | None, m_n: np.ndarray | None) -> Figure:
    """Places in the plane, coloured by source and by m, a panel each; one plain panel where neither is given."""
    panels = [p for p in (source_n is not None and "by source", m_n is not None and "by m") if p] or [""]
    figure, axes = figures.new_figure(1, len(panels), 4.6)
    for ax, title in zip(axes.flat, panels, strict=True):
        if title == "by source" and source_n is not None:
            for number, name in enumerate(dict.fromkeys(source_n)):
                mine = np.array([s == name for s in source_n])
                colour, marker = figures.SERIES[number % len(figures.SERIES)], MARKERS[number % len(MARKERS)]
                ax.scatter(*place_n2[mine].T, s=9, color=colour, marker=marker, linewidths=0, label=name)
            ax.legend(fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=(0.5, -0.02))
        else:
            colours: dict[str, Any] = {"color": figures.SERIES[0]} if m_n is None else {"c": m_n, "cmap": "viridis"}
            shown = ax.scatter(*place_n2.T, s=9, linewidths=0, **colours)
            if m_n is not None:
                figure.colorbar(shown, ax=ax, label="m", shrink=0.8)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_aspect("equal", "datalim")
    return figure


@figures.styled
def image_grid(
    samples: Mapping[str, Mapping[int, bytes]],
    labels: Mapping[int, str],
    boxes: Mapping[int, Sequence[str]],
    flat: bool = False,
) -> Figure:
    """Images in a grid: a row an identity and a column a point.

    Args:
        samples: identity -> point -> encoded image.
        labels: point -> its heading, in order.
        boxes: point -> colours of the frames around it, the outer one first.
        flat: a column an identity and a row a point.
    """
    points = [point for point in labels if all(point in row for row in samples.values())]
    rows, columns = (len(points), len(samples)) if flat else (len(samples), len(points))
    side = figures.WIDTH / max(columns, 6)
    figure, axes = figures.new_figure(rows, columns, 0.4 + side * rows)
    by_point = axes if flat else axes.T  # [points, identities]
    if boxes:
        figure.set_layout_engine("constrained", w_pad=3 * FRAME, h_pad=3 * FRAME)
    for point, line in zip(points, by_point, strict=True):
        for ax, images in zip(line, samples.values(), strict=True):
            with Image.open(io.BytesIO(images[point])) as image:
                ax.imshow(np.asarray(image.convert("RGB")), interpolation="none")
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
        heading = textwrap.fill(labels[point], max(6, int(LETTERS * side)), break_long_words=False)
        if flat:
            line[0].set_ylabel(heading, rotation=0, ha="right", va="center", fontsize=8.5)
        else:
            line[0].set_title(heading, loc="center", fontsize=8.5, fontweight="normal")
    figure.draw_without_rendering()  # the axes have their places when they are laid out
    figure.set_layout_engine("none")
    for point, colours in boxes.items():
        if point in points:
            line = by_point[points.index(point)]
            first, last = line[0].get_position(), line[-1].get_position()
            for depth, colour in enumerate(colours):
                out = FRAME * (len(colours) - depth)
                x, y = out / figure.get_figwidth(), out / figure.get_figheight()
                frame = Rectangle(
                    (first.x0 - x, last.y0 - y), last.x1 - first.x0 + 2 * x, first.y1 - last.y0 + 2 * y,
                    transform=figure.transFigure, fill=False, edgecolor=colour, linewidth=2, in_layout=False,
                )  # fmt: skip
                figure.add_artist(frame)
    return figure
