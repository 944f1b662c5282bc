"""The spread over groups of people on a page."""

from types import SimpleNamespace

from synface.evaluate.groups import group_statistics
from synface.report.content import spread_table


def test_rows_are_the_evaluations_statistics():
    found = {
        "rfw": group_statistics({"African": 0.90, "Asian": 0.95, "Caucasian": 0.98, "Indian": 0.97}),
        "own": group_statistics({"a": 1.0, "b": 0.5}),
    }
    table = spread_table(SimpleNamespace(content={"groups": found}))  # type: ignore[arg-type]
    assert table.rows[0] == ("rfw", "95.0", "3.1", "91.9", "African (90.0)", "Caucasian (98.0)", "5.00")
    assert table.rows[1][-1] == ""  # a group without an error has no ratio
    assert all(len(row) == len(table.header) for row in table.rows)
    assert not spread_table(SimpleNamespace(content={})).rows  # type: ignore[arg-type]
