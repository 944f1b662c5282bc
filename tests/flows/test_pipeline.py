"""What becomes of a section's error."""

import importlib

import pytest

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.flows import pipeline
from synface.flows.config import PipelineConfig
from synface.ops.signals import StoppedError
from synface.settings import build

RECIPE = {
    "pool": {"generator": "heads", "domain": "heads-digi", "num_identities": 2, "image_size": 64},
}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (StoppedError("stopped by SIGTERM"), PartialError, 3),
        (PartialError("3 of 8"), PartialError, 3),
        (InputError("no such"), InputError, 2),
        (SynfaceError("broken"), SynfaceError, 1),
    ],
)
def test_a_sections_error_names_it_and_keeps_its_exit_code(monkeypatch, tmp_path, error, kind, code):
    def fail(config):
        raise error

    monkeypatch.setattr(importlib.import_module("synface.generate.run"), "run", fail)
    with pytest.raises(kind, match=f"^section pool: {error}$") as caught:
        pipeline.run(build(PipelineConfig, {**RECIPE, "output": str(tmp_path)}))
    assert caught.value.exit_code == code
