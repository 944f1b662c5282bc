"""Turn a finished sweep into a page of docs/results/: `python tools/write_results.py --sweep runs/sweep_m_tiny`.

Writes `docs/results/NAME.md` with the tables, `docs/results/NAME/` with every figure as PNG, SVG and CSV and the costs
of the trials, and the list of pages in `docs/results/README.md`. NAME is the sweep's folder, or `--name`; a preset of
that name in jobs/configs gives the description and the command. What was written by hand at the end of a page stays.
All that `synface report` takes goes, too: `--embedder heads-fr-tiny`, `--beside '[{name: DCFace, uri: URI}]'`.
`--sections sweep early trials` keeps these alone, where another page shows the same data sets.
"""

import argparse
from pathlib import Path

import yaml

from synface.report import data, figures, markdown
from synface.report.config import ReportConfig
from synface.report.content import sections
from synface.report.parts import Section
from synface.settings import build, parse_overrides
from synface.store import artifact
from synface.store import uri as uris

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
PAGES = "## Pages"


def lead(name: str, sweep: str, notes: str) -> str:
    """What was asked, by which command, from which sweep, and on what machine."""
    manifest = artifact.require(sweep, "sweep")
    preset = ROOT / "jobs" / "configs" / f"{name}.yaml"
    described = yaml.safe_load(preset.read_text())["description"].strip() if preset.is_file() else ""
    command = f"python jobs/sweep.py --config jobs/configs/{name}.yaml --output runs/{name}" if described else ""
    numbers, versions = manifest.numbers, ", ".join(f"{k} {v}" for k, v in sorted(manifest.versions.items()))
    facts = (
        f"{numbers['done']} of {numbers['trials']} trials done, {numbers['failed']} missing. Configuration hash "
        f"`{manifest.config_hash[:16]}`, content digest `{manifest.content_digest[:16]}`; {versions}."
    )
    return "\n\n".join(part for part in (described, command and f"```\n{command}\n```", facts, notes) if part)


def index(folder: Path) -> None:
    """The list of pages at the end of the index."""
    pages = sorted(p for p in folder.glob("*.md") if p.name != "README.md")
    lines = [f"* [{p.stem}]({p.name})" for p in pages]
    place = folder / "README.md"
    head = place.read_text().partition(PAGES)[0] if place.exists() else "# Results\n\n"
    place.write_text(head + "\n\n".join([PAGES, "\n".join(lines)]) + "\n")


def chosen(parts: list[Section], names: list[str] | None) -> list[Section]:
    """The sections of these names, all without names. ValueError for one that the sweep has not."""
    known = [part.anchor for part in parts]
    for name in names or []:
        if name not in known:
            raise ValueError(f"--sections {name}: this sweep has {', '.join(known)}")
    return [part for part in parts if names is None or part.anchor in names]


def main(arguments: list[str] | None = None) -> None:
    """Write the page of one sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", required=True)
    parser.add_argument("--name", help="of the page; default: of the sweep's folder")
    parser.add_argument("--note", default="", help="one sentence: the machine, the hours")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sections", nargs="+", help="of the page, by their names; default: all")
    given, others = parser.parse_known_args(arguments)
    name = given.name or given.sweep.rstrip("/").rsplit("/", 1)[-1]
    asked = {"title": name, **parse_overrides(others), "sweep": given.sweep, "output": str(given.folder / name)}
    parts = chosen(sections(data.read(build(ReportConfig, asked))), given.sections)
    place = given.folder / name
    place.mkdir(parents=True, exist_ok=True)
    for drawn in (d for part in parts for d in part.drawn):
        svg = figures.svg_bytes(figures.svg_text(drawn.figure, drawn.name))
        made = {"png": figures.png_bytes(drawn.figure), "svg": svg, "csv": drawn.csv}
        for suffix in markdown.suffixes(drawn):
            (place / f"{drawn.name}.{suffix}").write_bytes(made[suffix])
    costs = uris.join(uris.absolute(given.sweep), data.COSTS_FILE)
    if uris.exists(costs):
        (place / data.COSTS_FILE).write_bytes(uris.read_bytes(costs))
    page = given.folder / f"{name}.md"
    kept = markdown.by_hand(page.read_text()) if page.exists() else ""
    page.write_text(markdown.page(name, lead(name, given.sweep, given.note), parts, name, kept))
    index(given.folder)
    print(page)


if __name__ == "__main__":
    main()
