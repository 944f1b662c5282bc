"""Samples of a sweep's points side by side: which rows, how varied, which columns are framed."""

import csv
import io

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from report_runs import face, make_images, report_config

from synface.core.errors import InputError
from synface.report import run as stage
from synface.report import samples, similarities
from synface.report.config import NamedInput
from tests.report.test_sweep import CEMIFACE, VALUES, M, make_sweep


def grey(level, size=16):
    sink = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def test_variety_is_the_mean_difference_of_an_identitys_pixels():
    # pairs of the first: 10, 40, 30; of the second: 6; the third has no pair
    rows = [[grey(100), grey(110), grey(140)], [grey(7), grey(1)], [grey(0)]]
    assert samples.variety(rows) == pytest.approx((80 / 3 + 6) / 2)
    assert samples.variety([[grey(3)]]) is None


def test_the_most_varied_point_is_a_point(tmp_path):
    def table(name, step):
        return make_images(tmp_path / name, identities=2, images=5, picture=lambda i, k: grey(90 + i + step * k))

    points = {4: table("still", 1), 7: table("varied", 9)}
    found = samples.read_samples(points, [NamedInput(name="noise", uri=table("noise", 20))], 8)
    # differences of the first four: 1, 1, 1, 2, 2, 3 steps
    assert found.variety == pytest.approx({4: 10 / 6, 7: 90 / 6, -1: 200 / 6})
    assert found.most_varied == 7 and found.beside == {-1: "noise"}
    assert [list(row) for row in found.rows.values()] == [[4, 7, -1]] * 2
    assert samples.Samples().most_varied is None


def test_points_without_shared_people_stand_by_number(tmp_path):
    one = make_images(tmp_path / "one", identities=3, images=2, names=["a", "b", "c"])
    two = make_images(tmp_path / "two", identities=2, images=2, names=["d", "e"])
    found = samples.read_samples({0: one, 1: two}, [], 8)
    assert list(found.rows) == ["no. 1", "no. 2"] and found.rows["no. 2"] == {0: face(1, 0), 1: face(1, 0)}
    with pytest.raises(InputError, match=r"beside: .*two: nobody among the first identities of the sweep \(a, b, c"):
        samples.read_samples({0: one}, [NamedInput(name="DCFace", uri=two)], 8)


def test_frames_surround_their_columns_and_no_other():
    row = {0: grey(1), 1: grey(2), 5: grey(3)}
    figure = similarities.image_grid({"a": row, "b": row}, {0: "x", 1: "y", 5: "z"}, {1: ["#ff0000", "#00ff00"]})
    outer, inner = [a for a in figure.artists if isinstance(a, Rectangle)]
    assert (outer.get_edgecolor()[:3], inner.get_edgecolor()[:3]) == ((1, 0, 0), (0, 1, 0))
    places = np.array([ax.get_position().extents for ax in figure.axes]).reshape(2, 3, 4)
    for frame, further in ((inner, outer), (outer, None)):
        x0, y0, x1, y1 = frame.get_bbox().extents
        assert x0 < places[:, 1, 0].min() and places[:, 1, 2].max() < x1
        assert y0 < places[:, 1, 1].min() and places[:, 1, 3].max() < y1
        assert places[:, 0, 2].max() < x0 and x1 < places[:, 2, 0].min()
        assert further is None or further.get_bbox().extents[0] < x0


def test_a_flat_grid_has_a_row_a_point():
    people = {name: {0: grey(1), 1: grey(2)} for name in "abc"}
    figure = similarities.image_grid(people, {0: "x", 1: "y"}, {1: ["#ff0000"]}, flat=True)
    assert [ax.get_ylabel() for ax in figure.axes] == ["x", "", "", "y", "", ""]
    (frame,) = [a for a in figure.artists if isinstance(a, Rectangle)]
    places = np.array([ax.get_position().extents for ax in figure.axes]).reshape(2, 3, 4)
    x0, y0, x1, y1 = frame.get_bbox().extents
    assert x0 < places[1, :, 0].min() and places[1, :, 2].max() < x1
    assert y0 < places[1, :, 1].min() and places[1, :, 3].max() < y1 < places[0, :, 1].min()


def test_another_generators_column_and_row(tmp_path):
    sweep = make_sweep(
        tmp_path / "sweep", scored=lambda i, k: 0.2 + 0.1 * i, recipe=CEMIFACE, space={M: VALUES}, seeds=[0, 1, 2]
    )
    dcface = make_images(tmp_path / "dcface", identities=3, images=2, similarity=lambda i, k: 0.3 + 0.1 * i)
    beside = [{"name": "DCFace", "uri": dcface}]
    stage.run(report_config(tmp_path / "page", sweep=sweep, beside=beside))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "page/figures/sweep-samples.csv").read_text())))
    assert len(rows) == 3 * 4 and {r["point"] for r in rows} == {"-0.5", "0", "0.8", "DCFace"}
    text = (tmp_path / "page/report.html").read_text()
    assert '<th scope="row">DCFace</th><td>0.4000</td><td>0.0816</td>' in text  # its similarity to the inquiries
    assert text.count("<td>highest accuracy</td>") == 1 and text.count("<td>most varied</td>") == 1
    assert "images (DCFace)" in text
    with pytest.raises(InputError, match="give sweep too"):
        report_config(tmp_path / "page", images=dcface, beside=beside)
