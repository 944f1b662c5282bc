"""``synface report``: read the run, draw, write one page and the files behind it."""

import time
from typing import Any

from synface.core.errors import InputError
from synface.models import weights
from synface.report.config import ReportConfig
from synface.settings import input_uris
from synface.store import artifact, cost
from synface.store import uri as uris

try:
    import jinja2  # noqa: F401
    import matplotlib
except ImportError as missing:  # the extra is optional
    raise InputError('the report needs matplotlib and jinja2: pip install "synface[report]"') from missing

from synface.report import data, figures, page, space
from synface.report.content import sections, tiles

PAGE = "report.html"
KIND = "report"
EMBEDDER = "embedder"


def plan(config: ReportConfig) -> dict[str, Any]:
    """Which inputs would be shown; they must exist."""
    kinds = {path: artifact.require(uri).kind for path, uri in input_uris(config).items() if path != EMBEDDER}
    _digests(config)
    files = [f for path, uri in input_uris(config).items() if path != EMBEDDER for f in artifact.require(uri).files]
    taken = cost.read(sum(f.bytes for f in files), len(files))
    return {"page": uris.join(config.output, PAGE), "inputs": kinds, "estimate": cost.page(taken)}


def run(config: ReportConfig) -> dict[str, Any]:
    """Write the report, or answer from the finished one."""
    started = time.monotonic()
    opened = artifact.open_output(config, _digests(config))
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, True, started)
    shown = data.read(config)
    parts = sections(shown)
    files, svg = [], {}
    for drawn in (d for section in parts for d in section.drawn):
        svg[drawn.name] = figures.svg_text(drawn.figure, drawn.name)
        for suffix, content in (
            ("png", figures.png_bytes(drawn.figure)),
            ("svg", figures.svg_bytes(svg[drawn.name])),
            ("csv", drawn.csv),
        ):
            files.append(artifact.write_file(config.output, f"figures/{drawn.name}.{suffix}", content))
    files.append(artifact.write_file(config.output, PAGE, page.html(shown, parts, svg).encode()))
    numbers = {
        "sections": [section.anchor for section in parts],
        "headline": {label: value for value, label, _ in tiles(shown)},
    }
    artifact.commit(config, opened, KIND, files, numbers, {"matplotlib": matplotlib.__version__})
    return _result(config, numbers, False, started)


def _digests(config: ReportConfig) -> dict[str, str]:
    """Content digests of the inputs; of the embedder, which may be a built-in name, that of its weights."""
    found = {path: artifact.content_digest(uri) for path, uri in input_uris(config).items() if path != EMBEDDER}
    if config.embedder is not None:
        space.check()
        found[EMBEDDER] = weights.read_config(config.embedder).sha256
    return found


def _result(config: ReportConfig, numbers: dict[str, Any], cached: bool, started: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - started, 3)
    return {
        "uri": config.output,
        "page": uris.join(config.output, PAGE),
        **numbers,
        "cached": cached,
        "seconds": seconds,
    }
