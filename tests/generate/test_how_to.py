"""docs/how-to/new-generator.md: its code and its command do what the page says."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.run import plan, run
from synface.settings import build, merge, parse_overrides
from synface.store import images, tables

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "new-generator.md"


@pytest.fixture
def from_the_page(tmp_path, monkeypatch):
    """The command's configuration; the code stands where the page says."""
    text = PAGE.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) < 60
    (command,) = re.findall(r"```\n(synface generate.*?)```", text, re.DOTALL)
    (tmp_path / "discs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda **over: build(
        GenerateConfig, merge(parse_overrides(shlex.split(command.replace("\\\n", " "))[2:]), over)
    )
    sys.modules.pop("discs", None)


@pytest.mark.ray
def test_the_pages_generator_runs(from_the_page, ray_cluster, tmp_path):
    config = from_the_page(output=str(tmp_path / "o"))
    result = run(config)
    assert (result["images"], result["identities"], result["failed"], result["generator"]) == (20, 5, 0, "discs")
    rows = [row for table in tables.iter_images(config.output) for row in table.to_pylist()]
    pictures = np.stack([images.decode(row["image"]["bytes"]) for row in rows]).astype(float)
    assert pictures.shape == (20, 32, 32, 3)
    # one colour an identity, the disc where the attributes say
    brightest = pictures.reshape(5, 4, -1, 3).max(2)
    assert np.ptp(brightest, axis=1).max() < 30 < np.ptp(brightest.mean(1), axis=0).max()
    weight = pictures.sum(-1)
    x = (weight * (np.arange(32) + 0.5) / 32).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(x, [row["attributes"]["x"] for row in rows], atol=0.02)
    more = from_the_page(output=str(tmp_path / "more"), images_per_identity=6, how={"max_actors": 2})
    run(more)
    kept = [row for table in tables.iter_images(more.output) for row in table.to_pylist() if row["sample"] < 4]
    assert [row["image"]["bytes"] for row in kept] == [row["image"]["bytes"] for row in rows]


def test_the_pages_refusal_comes_before_any_work(from_the_page, tmp_path):
    with pytest.raises(InputError, match="a number above 0"):
        plan(from_the_page(output=str(tmp_path / "o"), options={"softness": -1}))
