"""Metrics: the dashboard and the code name the same ones, and Ray exports what a run tells."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from synface.ops import metrics, runs
from synface.ops.progress import Progress

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "jobs" / "grafana" / "synface.json").read_text())
#: no verb's, so that the counts of other tests of this session stay out
STAGE = "probe"
NAMES = {*metrics.COUNTERS, *metrics.GAUGES}
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = [*EXPRESSIONS, *(v["query"] for v in DASHBOARD["templating"]["list"])]


def test_the_dashboard_shows_every_metric_and_no_other():
    assert set(re.findall(r"ray_\w+", " ".join(EXPRESSIONS))) == {metrics.exported(name) for name in NAMES}
    assert set(re.findall(r"ray_\w+", " ".join(QUERIES))) <= {metrics.exported(name) for name in NAMES}


def test_counters_are_shown_as_rates_and_grouped_by_known_labels():
    for text in EXPRESSIONS:
        for name in re.findall(r"ray_\w+", text):
            rated = re.search(rf"(rate|increase|deriv)\({name}\b", text)
            assert bool(rated) == (name.endswith("_total") or "deriv" in text), text
        labels = {label for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
        assert labels <= set(metrics.LABELS), text


def test_every_metric_is_told_somewhere():
    told = {
        constant: value
        for constant, value in vars(metrics).items()
        if isinstance(value, str) and value.startswith("synface_") and constant.isupper()
    }
    assert set(told.values()) == NAMES
    source = "\n".join(p.read_text() for p in (ROOT / "synface").rglob("*.py") if p.name != "metrics.py")
    assert [c for c in told if not re.search(rf"metrics\.(add|show)\(metrics\.{c}\b", source)] == []


def test_panels_lie_side_by_side_and_ask_the_chosen_source():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(p["x"] + i, p["y"] + j) for p in places for i in range(p["w"]) for j in range(p["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in DASHBOARD["panels"])
    assert all('run=~"$run"' in text for text in EXPRESSIONS)


def test_without_ray_nothing_happens(monkeypatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    metrics.add(metrics.IMAGES, "generate", 3)
    metrics.show(metrics.LOSS, "train", 0.5)
    Progress("generate", 2, "images", interval=60).advance()


@pytest.mark.slow
@pytest.mark.ray
def test_ray_exports_what_progress_tells(ray_cluster):
    """Counts and gauges with the run's id, at the endpoint that Prometheus reads."""
    import ray

    progress = Progress(STAGE, 9, "images", interval=60)
    progress.advance(4)
    progress.advance(3)
    metrics.add(metrics.SHARDS_DONE, STAGE)
    metrics.show(metrics.LAST_SHARD, STAGE, 12)
    node = ray.nodes()[0]
    place = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {metrics.IMAGES: 7, metrics.SHARDS_DONE: 1, metrics.LAST_SHARD: 12, metrics.WORK_ASKED: 9}
    deadline = time.monotonic() + 90
    found: dict[str, float] = {}
    while time.monotonic() < deadline and found != wanted:
        time.sleep(1)
        with urllib.request.urlopen(place, timeout=30) as answer:
            text = answer.read().decode()
        found = {name: value for name in wanted if (value := _value(text, metrics.exported(name))) is not None}
    assert found == wanted, [line for line in text.splitlines() if "synface" in line]


def _value(text: str, name: str) -> float | None:
    """Of the series with this run's labels."""
    for line in text.splitlines():
        if line.startswith(name + "{") and f'run="{runs.run_id()}"' in line and f'stage="{STAGE}"' in line:
            return float(line.rpartition(" ")[2])
    return None
