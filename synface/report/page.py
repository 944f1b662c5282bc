"""The page: sections into one HTML text that needs nothing from outside."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from synface.report import figures
from synface.report.content import tiles
from synface.report.data import Run, Source, media_type
from synface.report.parts import Section


@dataclass(frozen=True)
class Row:
    """One artifact in the table of provenance."""

    role: str
    place: str
    verb: str
    config_hash: str
    content_digest: str
    facts: str
    config: str


def html(run: Run, parts: list[Section], svg: Mapping[str, str]) -> str:
    """The whole page. Equal data gives equal text (same matplotlib).

    Args:
        run: the data.
        parts: its sections.
        svg: `figures.svg_text` of every figure by its name.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = resources.files("synface.report").joinpath("templates/page.html.j2").read_text()
    return environment.from_string(text).render(
        run=run,
        tiles=tiles(run),
        sections=parts,
        svg={d.name: Markup(figures.inline_svg(svg[d.name], d.alt)) for s in parts for d in s.drawn},
        csv={d.name: data_uri(d.csv, "text/csv") for s in parts for d in s.drawn},
        images=_images(run),
        provenance=[_row(s) for s in run.sources],
        versions=_versions(run),
        licences=_licences(run),
    )


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _images(run: Run) -> list[tuple[str, list[str]]]:
    if run.grid is None:
        return []
    return [(name, [data_uri(i, media_type(i)) for i in row]) for name, row in run.grid.rows]


def _row(source: Source) -> Row:
    m = source.manifest
    facts = _facts(m.config.get("fields", m.config) if isinstance(m.config, dict) else {})
    config = json.dumps(m.config, indent=1, sort_keys=True)
    return Row(source.role, source.uri, m.verb, m.config_hash, m.content_digest, facts, config)


def _facts(fields: dict[str, Any]) -> str:
    """The plain settings that differ from their defaults, on one line."""
    shown = {k: v for k, v in sorted(fields.items()) if isinstance(v, str | int | float | bool) and not _is_digest(v)}
    return ", ".join(f"{k} {v}" for k, v in shown.items())


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 40 and all(c in "0123456789abcdef" for c in value[-40:])


def _versions(run: Run) -> list[tuple[str, str]]:
    """Every package version that took part; several where the stages ran under different ones."""
    found: dict[str, list[str]] = {}
    for source in run.sources:
        for name, version in source.manifest.versions.items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return [(name, ", ".join(versions)) for name, versions in sorted(found.items())]


def _licences(run: Run) -> list[tuple[str, str, str, str]]:
    """(what, licence, origin, sha256) of the images and of every recognizer."""
    rows = []
    if run.grid is not None:
        n = run.grid.numbers
        origin = "; ".join(_texts(n.get("sources", "")))
        rows.append(
            (
                f"images by {n.get('generator', '?')}",
                str(n.get("licence", "not stated")),
                origin,
                str(n.get("weights_sha256", "")),
            )
        )
    for name, training in run.trainings.items():
        w = training.weights
        title = "recognizer" if name == "this run" else f"recognizer {name}"
        rows.append(
            (title, str(w.get("licence", "not stated")), str(w.get("training_data", "")), str(w.get("sha256", "")))
        )
    for name, evaluation in run.evaluations.items():
        r = evaluation.content["recognizer"]
        if all(r["sha256"] != row[3] for row in rows):
            rows.append((f"evaluated recognizer ({name})", r["licence"], r["training_data"], r["sha256"]))
        for benchmark, facts in evaluation.content["benchmarks"].items():
            row = (f"benchmark {benchmark}", "", f"{facts['images']:,} images", facts["sha256"])
            if row not in rows:
                rows.append(row)
    return rows


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{k}: {v}" for k, v in value.items()]
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
