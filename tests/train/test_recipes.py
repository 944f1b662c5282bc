"""The published recipes are valid, and say what the papers say."""

from pathlib import Path

import pytest

from synface import settings
from synface.flows.config import PipelineConfig
from synface.flows.wiring import STEPS, steps
from synface.models import recognizers
from synface.train.config import TrainRecognizerConfig

FOLDER = Path(__file__).parents[2] / "jobs" / "configs"
RECIPES = ("train_cemiface", "train_dcface", "train_digiface", "train_hyperface")


def recipe(name: str) -> TrainRecognizerConfig:
    data = settings.read_recipe(str(FOLDER / f"{name}.yaml"), ("train_recognizer",))
    return settings.build(TrainRecognizerConfig, {**data["train_recognizer"], "images": ["a"], "output": "o"})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_valid_configuration_of_a_known_backbone(name):
    config = recipe(name)
    assert config.backbone in recognizers.RECOGNIZERS
    assert (config.image_size, config.dim, config.epochs) == (112, 512, 40)


def test_cemiface_as_published():
    config = recipe("train_cemiface")
    assert (config.backbone, config.margin.name, config.margin.m) == ("ir_se50", "cosface", 0.4)
    step = config.optimizer
    assert (step.lr, step.gamma, step.milestones, step.weight_decay) == (0.1, 0.1, [26, 34], 5e-4)
    changes = config.augmentation
    assert (changes.crop_scale, changes.erasing_area) == ((0.9, 1.0), (0.02, 0.1))
    assert {changes.brightness, changes.contrast, changes.saturation, changes.hue} == {0.1}


def test_dcface_and_digiface_train_with_adaface():
    for name, backbone in (("train_dcface", "ir_se50"), ("train_digiface", "r50")):
        config = recipe(name)
        assert config.backbone == backbone
        margin = config.margin
        assert (margin.name, margin.m, margin.h, margin.s, margin.t_alpha) == ("adaface", 0.4, 0.333, 64, 0.01)
    assert recipe("train_digiface").global_batch_size == 256


def test_digifaces_layout_is_trained_as_digiface_trains():
    data = settings.read_recipe(str(FOLDER / "digiface.yaml"), tuple(STEPS))
    stages = steps(settings.build(PipelineConfig, {"output": "/r", **{k: v for k, v in data.items() if k in STEPS}}))
    many, few = stages["generate"], stages["generate_more"]
    assert (many.num_identities, many.images_per_identity) == (10_000, 72)
    assert (few.num_identities, few.images_per_identity) == (100_000, 5)
    assert few.first_seed == many.num_identities and many.domain == few.domain == "heads-digi"  # nobody stands in both
    trained = stages["train_recognizer"]
    assert trained.images == [many.output, few.output] and not trained.merge_identities
    own = recipe("train_digiface")
    for field in ("backbone", "epochs", "global_batch_size", "margin", "optimizer", "augmentation"):
        assert getattr(trained, field) == getattr(own, field)
    assert own.augmentation.shear and own.augmentation.stretch and own.augmentation.low_resolution
