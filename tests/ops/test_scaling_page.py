"""The figures of docs/scaling.md follow from its own symbols and from the committed results."""

import json
import re
from pathlib import Path

import pytest

from synface.store import cost

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text()
GPUS = (8, 32, 64)
N_IDS, DIM, IMAGES, EPOCHS, PER_SHARD = 1_000_000, 512, 64_000_000, 20, 2_048
PACK_RATE, TRAIN_RATE = 50e12, 2_000
DRAW_RATE = 640_000 / (174 * 3600)
IMAGE_BYTES = cost.bytes_per_image(None, cost.MEASURED_ENCODING, 112)


def row(name):
    """The numbers of a table's row, by its first cell; of the last three cells unless there are more."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("name", "value", "within"),
    [
        ("pack, 100 passes", lambda k: 100 * 3 * N_IDS**2 * DIM / (3600 * k * PACK_RATE), 0.03),
        ("generate", lambda k: IMAGES / (3600 * k * DRAW_RATE), 0.001),
        ("train |", lambda k: EPOCHS * IMAGES / (3600 * k * TRAIN_RATE), 0.01),
        ("table, GB", lambda k: IMAGE_BYTES * IMAGES / 1e9, 0.001),
        ("writes of generation", lambda k: 2 * IMAGES / PER_SHARD, 0),
        ("reads of training", lambda k: (1 + k * EPOCHS) * IMAGES / PER_SHARD / 1e6, 0.01),
        ("bytes read by training", lambda k: (1 + k * EPOCHS) * IMAGE_BYTES * IMAGES / 1e12, 0.01),
    ],
)
def test_each_row_is_its_formula(name, value, within):
    assert [float(cell) for cell in row(name)[-3:]] == pytest.approx([value(k) for k in GPUS], rel=within)


def test_what_the_symbols_table_says():
    assert float(row("g |")[2]) == pytest.approx(DRAW_RATE, abs=0.005)
    assert float(row("b |")[2]) == pytest.approx(IMAGE_BYTES, abs=1)
    assert [float(row(f"{name} |")[2]) for name in ("t", "e", "s")] == [TRAIN_RATE, EPOCHS, PER_SHARD]
    assert "1.04e11" in PAGE and f"{cost.MEASURED_PACK_FLOPS:.3g}" == "1.04e+11"


def test_the_estimates_give_the_same():
    """`--dry-run` counts what the page counts."""
    found = cost.table_written(IMAGES // PER_SHARD, round(IMAGE_BYTES * IMAGES))
    assert found.put == int(row("writes of generation")[-1])
    hours = cost.estimate(IMAGES, "images", cost.rate_of(DRAW_RATE), 4, 1, None, workers=64)["hours"]
    assert hours == pytest.approx(float(row("generate")[-1]), rel=0.001)


@pytest.mark.parametrize("gpus", GPUS)
def test_preemption_rows_are_the_committed_results(gpus):
    found = json.loads((ROOT / "benchmarks" / "results" / "preemption.json").read_text())["training"][str(gpus)]
    line = next(text for text in PAGE.splitlines() if re.match(rf"\| {gpus} GPUs \| \d+\.\d, ", text))
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
    for interval, cell in zip(("60", "240", "960", "3840"), cells, strict=False):
        rows = found["intervals"][interval]
        shown = [float(x) for x in cell.split(", ")]
        assert shown == pytest.approx([100 * rows["overhead"], 100 * rows["closed_form"]], abs=0.051)
    assert float(cells[4].split()[0]) == pytest.approx(found["best_interval"]["daly"], abs=0.5)
