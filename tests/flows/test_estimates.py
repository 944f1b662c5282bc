"""A recipe's estimate before anything of it is made."""

import pytest

from synface import settings
from synface.cli import _recipe_as_pipeline, _sections
from synface.flows import estimates, wiring
from synface.flows.config import PipelineConfig
from synface.models import recognizers


def stages_of(tmp_path, recipe="smoke", **over):
    data = _recipe_as_pipeline(settings.read_recipe(f"jobs/configs/{recipe}.yaml", _sections()))
    data = settings.merge(data, {"output": str(tmp_path / "out"), **over})
    return wiring.steps(settings.build(PipelineConfig, data))


def test_each_sections_sizes_follow_from_those_before(tmp_path):
    """16 people in 2 shards, 6 of them packed, 24 images in 3 shards, 2 epochs of 3 batches of 8."""
    found = estimates.estimate(stages_of(tmp_path, train_recognizer={"how": {"rate": 4.0}}))
    assert (found["pool"]["amount"], found["pool"]["store"]["put"]) == (16, 4)
    assert found["embed"]["amount"] == 16
    assert found["generate"]["amount"] == 24 and found["generate"]["store"]["put"] == 6
    train = found["train_recognizer"]
    assert train["amount"] == 48 and train["hours"] == pytest.approx(48 / 4 / 3600, abs=1e-6)
    assert train["store"]["get"] == 3 * 2  # the driver for labels, the worker for images
    parameters = recognizers.parameter_count(recognizers.build("tiny", 256, 64)) + 6 * 256
    assert train["store"]["bytes_written"] == 2 * (2 * 4 * parameters)  # with momentum, after both epochs
    assert found["report"]["amount"] == 1
    assert found["total"]["sections"] == found["total"]["of"] == len(found) - 1 and found["total"]["cpu_hours"] is None
    # 2048 images a minute on one core at 0.89 of a CPU
    assert found["pool"]["cpu_hours"] == pytest.approx(16 / (2048 / 60) * 0.89 / 3600, abs=1e-6)


def test_rates_for_all_sections_make_the_total_known(tmp_path):
    rate = {"how": {"rate": 100.0}}
    over = dict.fromkeys(("pool", "embed", "generate", "train_recognizer", "evaluate"), rate)
    over["pack"] = {"solver": "lse"} | rate  # a subset has no formula for its operations
    found = estimates.estimate(stages_of(tmp_path, **over))
    assert found["pack"]["amount"] == 3 * 6 * 6 * 256 * 100
    hours = [e["cpu_hours"] for name, e in found.items() if name != "total"]
    assert found["total"]["cpu_hours"] == pytest.approx(sum(hours), abs=1e-6) and found["total"]["gpu_hours"] == 0


def test_a_section_whose_input_nobody_knows_says_so(tmp_path):
    stages = stages_of(tmp_path, generate={"identities": str(tmp_path / "nowhere")})
    found = estimates.estimate(stages)
    assert "nothing stands there" in found["generate"]["unknown"]
    assert "nothing stands there" in found["train_recognizer"]["unknown"]
    assert found["pool"]["amount"] == 16
