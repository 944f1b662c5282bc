"""The full-scale HyperFace recipe is a valid pipeline, wired from gallery to images, and says what the paper says."""

from pathlib import Path

import pytest

from synface import cli
from synface.flows.config import PipelineConfig
from synface.flows.wiring import steps
from synface.generate.generators.arc2face import settings
from synface.models.arc2face.model import Arc2faceSettings
from synface.settings import build, read_recipe

RECIPE = Path(__file__).parents[2] / "jobs" / "configs" / "hyperface_10k.yaml"


def test_the_recipe_goes_from_gallery_to_images():
    data = cli._recipe_as_pipeline(read_recipe(str(RECIPE), cli._sections()))
    found = steps(build(PipelineConfig, {**data, "output": "/runs/h"}))
    assert list(found) == ["embed", "pack", "generate"]
    embed, pack, generate = found.values()
    assert pack.gallery == embed.output and generate.identities == pack.output
    assert (pack.num_identities, pack.alpha, pack.solver) == (10_000, 0.5, "lse")
    assert (generate.generator, generate.images_per_identity, generate.variation.beta) == ("arc2face", 64, 0.01)
    # mean cosine of the perturbed to the reference, which the recipe states
    cosine = 1 / (1 + generate.variation.beta**2 * 511) ** 0.5
    assert cosine == pytest.approx(0.975, abs=5e-4)
    asked = settings(generate)
    assert asked == Arc2faceSettings(25, 3.0, False, "float16", micro_batch=8)
    # the recognizer's recipe takes what this one makes
    trained = read_recipe(str(RECIPE.with_name("train_hyperface.yaml")), cli._sections())["train_recognizer"]
    assert trained["image_size"] == generate.image_size == 112
