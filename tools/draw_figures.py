"""Draw the figures that explain the method, into docs/images/: `python tools/draw_figures.py`.

`similarity_on_the_sphere.svg`: where samples of one identity lie for four similarities m. `cemiface_flow.svg`: what
happens in training and in sampling. Drawn by formula, not from data; the same bytes each time.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from synface.report.figures import GRID, INK, MUTED, SERIES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
SIMILARITIES = (1.0, 0.66, 0.33, 0.0)


def circle(centre: np.ndarray, m: float, count: int) -> np.ndarray:
    """Points of the unit sphere in R^3 at cosine m to the centre, [count, 3]."""
    first = np.cross(centre, [0.0, 0.0, 1.0])
    first /= np.linalg.norm(first)
    second = np.cross(centre, first)
    angle = np.linspace(0, 2 * np.pi, count)[:, None]
    return m * centre + np.sqrt(1 - m * m) * (np.cos(angle) * first + np.sin(angle) * second)


def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, up and towards the eye of points, for an eye in the direction (1, -0.9, 0.7)."""
    eye = np.array([1.0, -0.9, 0.7]) / np.linalg.norm([1.0, -0.9, 0.7])
    right = np.cross([0.0, 0.0, 1.0], eye)
    right /= np.linalg.norm(right)
    return points @ right, points @ np.cross(eye, right), points @ eye


def sphere_figure() -> Figure:
    """One identity's inquiry on the sphere, and samples at four similarities to it."""
    figure = new_figure(9.6, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    inquiry = np.array([0.75, -0.2, 0.63])
    inquiry /= np.linalg.norm(inquiry)
    turn = np.linspace(0, 2 * np.pi, 200)
    left.plot(np.cos(turn), np.sin(turn), color=MUTED, linewidth=1)
    for m, colour in zip(SIMILARITIES, SERIES, strict=False):
        x, y, depth = project(circle(inquiry, m, 241))
        for visible, style in ((depth >= 0, "-"), (depth < 0, ":")):
            shown = np.where(visible, 1.0, np.nan)
            left.plot(x * shown, y * shown, style, color=colour, linewidth=1.2)
        dots = circle(inquiry, m, 13)[:-1]
        x, y, depth = project(dots)
        left.scatter(x[depth >= 0], y[depth >= 0], s=22, color=colour, zorder=3, label=f"m = {m:g}")
    x, y, _ = project(inquiry[None])
    left.annotate("inquiry", (x[0], y[0]), (14, 12), textcoords="offset points", color=INK)
    left.set(xlim=(-1.75, 1.15), aspect="equal")
    left.legend(loc="upper left", frameon=False, fontsize=9)
    left.axis("off")
    left.set_title("embeddings of one identity's samples", loc="left", fontsize=10.5, fontweight="bold", color=INK)
    for m, colour in zip(SIMILARITIES, SERIES, strict=False):
        angle = np.arccos(m)
        right.annotate("", (np.sin(angle), np.cos(angle)), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour})
        where = (1.06 * np.sin(angle), 1.06 * np.cos(angle))
        right.annotate(f"m = {m:g}, {np.degrees(angle):.0f} degrees", where, color=colour, fontsize=9)
    half = np.linspace(0, np.pi / 2, 60)
    right.plot(np.sin(half), np.cos(half), color=GRID, linewidth=1)
    right.set(xlim=(-0.1, 1.75), ylim=(-0.1, 1.25), aspect="equal")
    right.axis("off")
    title = "m is the cosine: copies at 1, another person at 0"
    right.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    return figure


def box(ax: Axes, x: float, y: float, text: str, colour: str, width: float = 1.7) -> None:
    """A labelled box around (x, y)."""
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.02,rounding_size=0.08", facecolor="none",
        edgecolor=colour, linewidth=1.4,
    )  # fmt: skip
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow, its label above the middle."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1})
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08)
        ax.text(*middle, text, ha="center", va="bottom", fontsize=8, color=MUTED)


def flow_figure() -> Figure:
    """Training above, sampling below."""
    figure = new_figure(9.6, 5.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(1.25, 1))
    network, frozen, given = SERIES[0], SERIES[2], SERIES[1]
    box(upper, 1, 2, "inquiry image x", given)
    box(upper, 1, 1, "similarity m", given)
    box(upper, 1, 0, "noised image $x_t$", given)
    box(upper, 3.7, 2, "E_id (frozen)", frozen)
    box(upper, 6.1, 1.5, "C_att = F2(E_id(x), F1(m))", network, 2.4)
    box(upper, 6.1, 0, "denoiser", network)
    box(upper, 8.6, 0, "estimate $\\hat{x}_0$", network)
    box(upper, 8.6, 1.5, "E_id (frozen)", frozen)
    box(upper, 11.4, 1.5, "L_SimMat: cosine -> 1 (t = 0)\ncosine -> m (t = T)", INK, 2.6)
    box(upper, 11.4, 0, "L_MSE", INK, 2.6)
    for start, end in (
        ((1.87, 2), (2.83, 2)), ((4.57, 2), (4.88, 1.65)), ((1.87, 1), (4.88, 1.4)), ((6.1, 1.18), (6.1, 0.32)),
        ((1.87, 0), (5.23, 0)), ((6.97, 0), (7.73, 0)), ((8.6, 0.32), (8.6, 1.18)), ((9.47, 1.5), (10.08, 1.5)),
        ((9.47, 0), (10.08, 0)),
    ):  # fmt: skip
        arrow(upper, start, end)
    finish(upper, "training", (-0.6, 2.6))
    box(lower, 1, 1, "identity embedding\n(inquiry, centre or packed)", given, 2.2)
    box(lower, 1, 0, "target similarity s", given, 2.2)
    box(lower, 4, 0, "dial: s -> m", frozen)
    box(lower, 6.6, 1, "C_att", network)
    box(lower, 6.6, 0, "noise by key", given)
    box(lower, 9, 0.5, "denoiser, k steps", network)
    box(lower, 11.6, 0.5, "image, similarity s", INK, 2.0)
    for start, end in (
        ((2.12, 1), (5.73, 1)), ((2.12, 0), (3.13, 0)), ((4.87, 0.1), (5.73, 0.8)), ((7.47, 1), (8.13, 0.65)),
        ((7.47, 0), (8.13, 0.35)), ((9.87, 0.5), (10.58, 0.5)),
    ):  # fmt: skip
        arrow(lower, start, end)
    finish(lower, "sampling", (-0.6, 1.6))
    return figure


def finish(ax: Axes, title: str, height: tuple[float, float]) -> None:
    """Limits and title of a panel of boxes."""
    ax.set(xlim=(-0.3, 12.9), ylim=height)
    ax.axis("off")
    ax.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def main() -> None:
    """Write both figures."""
    mpl.rcdefaults()
    mpl.rcParams["svg.hashsalt"] = "synface"
    for name, figure in (("similarity_on_the_sphere", sphere_figure()), ("cemiface_flow", flow_figure())):
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})
        print(FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
