"""Pages of docs/results/ from a finished sweep."""

import importlib.util
import re
from pathlib import Path

import pytest

from synface.report import markdown
from synface.report.parts import Table
from tests.report.test_sweep import CEMIFACE, VALUES, M, make_sweep

ROOT = Path(__file__).parents[2]


def load_tool():
    found = importlib.util.spec_from_file_location("write_results", ROOT / "tools/write_results.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_cells_cannot_break_a_table():
    shown = markdown.table(Table(("a", "b"), [("x|y", "<b>\nz"), ("", "2")], strong=frozenset([1])))
    assert shown.splitlines() == ["| a | b |", "|---|---|", "| x\\|y | &lt;b&gt; z |", "|  | **2** |"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    sweep = make_sweep(root / "sweep_m_tiny", recipe=CEMIFACE, space={M: VALUES}, seeds=[0, 1, 2])
    folder = root / "results"
    folder.mkdir()
    (folder / "README.md").write_text("# Results\n\nCommands.\n\n## Pages\n\nnone yet\n")
    load_tool().main(["--sweep", sweep, "--folder", str(folder), "--note", "Two cores, an hour."])
    return sweep, folder


def test_a_page_holds_tables_figures_and_the_command(written):
    _, folder = written
    text = (folder / "sweep_m_tiny.md").read_text()
    assert text.startswith("# sweep_m_tiny\n") and "Two cores, an hour." in text
    assert "python jobs/sweep.py --config jobs/configs/sweep_m_tiny.yaml --output runs/sweep_m_tiny\n" in text
    assert re.search(r"\| \*\*0\*\* \| \*\*3\*\* \| \*\*70\.00\*\* \|", text)
    assert "| 0 | 70.00 | 98.10 |" in text and "8 of 9 trials done, 1 missing" in text
    links = re.findall(r"\]\((sweep_m_tiny/[^)]+)\)", text)
    assert {link for link in links if not (folder / link).is_file()} == set()
    assert {"sweep_m_tiny/sweep.png", "sweep_m_tiny/sweep.svg", "sweep_m_tiny/sweep.csv"} <= set(links)
    assert not (folder / "sweep_m_tiny/sweep-samples.svg").exists()
    assert (folder / "README.md").read_text() == (
        "# Results\n\nCommands.\n\n## Pages\n\n* [sweep_m_tiny](sweep_m_tiny.md)\n"
    )


def test_what_was_written_by_hand_stays(written):
    sweep, folder = written
    page = folder / "sweep_m_tiny.md"
    before = page.read_text()
    page.write_text(before + "\n## What holds\n\nThe peak does not.\n")
    load_tool().main(["--sweep", sweep, "--folder", str(folder), "--note", "Two cores, an hour."])
    assert page.read_text() == before + "\n## What holds\n\nThe peak does not.\n"


def test_a_page_may_hold_some_sections_alone(written, tmp_path):
    sweep, _ = written
    load_tool().main(["--sweep", sweep, "--folder", str(tmp_path), "--sections", "sweep", "trials"])
    text = (tmp_path / "sweep_m_tiny.md").read_text()
    assert "## Trials and their cost" in text and "## Samples by point" not in text
    assert sorted(p.name for p in (tmp_path / "sweep_m_tiny").iterdir()) == ["sweep.csv", "sweep.png", "sweep.svg"]
    with pytest.raises(ValueError, match="--sections early: this sweep has sweep, similarity-asked, sweep-samples"):
        load_tool().main(["--sweep", sweep, "--folder", str(tmp_path), "--sections", "early"])
