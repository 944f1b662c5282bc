"""Parts of a page that need no run on disk."""

import csv
import io

import numpy as np

from synface.report import content
from synface.report.data import Packing


def packed(**numbers):
    return Packing(np.linspace(0.1, 0.3, 9), None, {"num_identities": 9, "dim": 4, "solver": "lse", **numbers})


def test_a_packing_without_a_curve_shows_none():
    assert [d.name for d in content.packing(packed()).drawn] == ["packing"]


def test_the_trade_off_has_this_runs_own_point_in_its_place():
    curve = [
        {"alpha": 2.0, "max_cosine": 0.3, "gallery_distance": 0.1},
        {"alpha": 0.0, "max_cosine": 0.05, "gallery_distance": 0.6},
    ]
    section = content.packing(packed(trade_off=curve, alpha=0.5, max_cosine=0.1, gallery_distance=0.2))
    drawn = section.drawn[1]
    rows = list(csv.reader(io.StringIO(drawn.csv.decode())))
    assert rows[0] == ["alpha", "gallery_distance", "max_cosine"]
    assert [[float(v) for v in row] for row in rows[1:]] == [[0.0, 0.6, 0.05], [0.5, 0.2, 0.1], [2.0, 0.1, 0.3]]
    assert "alpha 0.5: 0.100 at 0.200" in drawn.alt
