"""Figures hold the numbers that they were given."""

import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from synface.report import figures


def text_of(figure):
    return " ".join(t.get_text() for t in figure.findobj(mpl.text.Text))


def line_named(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line


def test_packing_levels_and_counts():
    rng = np.random.default_rng(0)
    chosen, pool = rng.uniform(0.2, 0.4, 200), rng.uniform(0.3, 0.6, 200)
    figure = figures.packing(chosen, {"bound": 0.08, "iid": 0.5}, pool, ("ours", "random"))
    (ax,) = figures.axes_of(figure)
    assert sorted(float(line.get_xdata()[0]) for line in ax.get_lines()) == [0.08, 0.5]
    assert f"ours (mean {chosen.mean():.3f})" in text_of(figure)
    assert "bound 0.080" in text_of(figure)
    filled = [p for p in ax.patches if (p.get_label() or "").startswith("ours")]
    outline = filled[0].get_path().vertices
    widths = np.diff(outline[:, 0])
    area = abs(np.sum(widths * outline[:-1, 1]))  # of a closed outline along the steps
    edges = np.unique(outline[:, 0])
    assert area == pytest.approx(200 * (edges[1] - edges[0]), rel=1e-6)


def test_trade_off_points_and_the_chosen_one():
    points = [(0.0, 0.6, 0.05), (0.5, 0.2, 0.1), (2.0, 0.1, 0.3)]
    figure = figures.trade_off(points, 0.5)
    (ax,) = figures.axes_of(figure)
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [p[1:] for p in points])
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [p[1:] for p in points])
    colours = [mpl.colors.to_hex(c) for c in dots.get_facecolors()]
    assert [c == figures.SERIES[0] for c in colours] == [False, True, False]
    assert {t.get_text() for t in ax.texts} == {"0", "0.5", "2"}


def test_roc_starts_at_the_highest_tar_below_its_left_end():
    far, tar = np.array([0, 0, 0.001, 0.01, 1.0]), np.array([0, 0.2, 0.4, 0.7, 1.0])
    figure = figures.roc({"run": {"a": (far, tar)}}, 0.001)
    line = line_named(figure.axes[0], "a")
    assert line.get_xdata().tolist() == [0.001, 0.01, 1.0]
    assert line.get_ydata().tolist() == [0.4, 0.7, 1.0]
    two = figures.roc({"x": {"a": (far, tar)}, "y": {"a": (far, tar)}}, 0.001)
    assert line_named(two.axes[0], "a, x").get_color() == line_named(two.axes[0], "a, y").get_color()
    assert line_named(two.axes[0], "a, x").get_linestyle() != line_named(two.axes[0], "a, y").get_linestyle()


def test_similarity_shares_and_panels():
    scores = {f"p{i}": (np.full(4, 0.5), np.array([0.0, 0.1])) for i in range(4)}
    figure = figures.similarity(scores, {"p0": 0.3})
    shown = figures.axes_of(figure)
    assert [ax.get_title(loc="left") for ax in shown] == list(scores)
    assert line_named(shown[0], "threshold").get_xdata()[0] == 0.3
    for ax in shown:
        tallest = max(p.get_path().vertices[:, 1].max() for p in ax.patches)
        assert tallest == pytest.approx(1.0)  # all genuine pairs in one bin


def test_training_and_accuracy_values():
    history = {"a": [{"epoch": 1, "loss": 3.0, "accuracy": 0.1}, {"epoch": 2, "loss": 1.0, "accuracy": 0.5}]}
    left, right = figures.axes_of(figures.training(history))
    assert left.get_lines()[0].get_ydata().tolist() == [3.0, 1.0]
    assert right.get_lines()[0].get_ydata().tolist() == [0.1, 0.5]
    figure = figures.accuracy({"a": {"pose": (0.9, 0.88, 0.92), "age": (0.95, 0.94, 0.96)}})
    assert "90.00" in text_of(figure)
    assert "95.00" in text_of(figure)


def test_slices_skip_groups_without_numbers():
    values = {"sex": {"female": {"p": 0.9}, "male": {"p": None}}, "age": {"old": {"p": 0.8}, "young": {"p": 0.7}}}
    first, second = figures.axes_of(figures.slices(values, "accuracy"))
    y = first.get_lines()[0].get_ydata()
    assert y[0] == 0.9
    assert np.isnan(y[1])
    assert second.get_lines()[0].get_ydata().tolist() == [0.8, 0.7]


def test_bytes_are_deterministic_and_readable():
    def draw():
        return figures.roc({"r": {"a": (np.array([0, 0.1, 1]), np.array([0, 0.5, 1.0]))}}, 0.01)

    svg = figures.svg_text(draw(), "x")
    assert svg == figures.svg_text(draw(), "x")
    assert figures.png_bytes(draw()) == figures.png_bytes(draw())
    ElementTree.fromstring(figures.svg_bytes(svg))
    with Image.open(io.BytesIO(figures.png_bytes(draw()))) as image:
        assert image.width > 1500
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_inline_svg_takes_the_pages_colours_and_names_nothing_outside():
    figure = figures.roc({"r": {"a": (np.array([0, 0.1, 1]), np.array([0, 0.5, 1.0]))}}, 0.01)
    text = figures.inline_svg(figures.svg_text(figure, "x"), 'two "curves" & <more>')
    assert "http" not in text
    assert figures.INK not in text
    assert "var(--ink)" in text
    assert 'aria-label="two &quot;curves&quot; &amp; &lt;more>"' in text
    references = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert references <= set(re.findall(r'id="([^"]+)"', text))
    ElementTree.fromstring(text)


def test_the_users_own_style_changes_nothing():
    def draw():
        return figures.svg_text(figures.training({"a": [{"epoch": 1, "loss": 3.0}]}), "x")

    plain = draw()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert draw() == plain
        assert mpl.rcParams["font.size"] == 30
