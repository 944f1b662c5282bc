"""Stages as benchmarks call them: each answers at once where it is finished, so that every benchmark resumes."""

from pathlib import Path
from typing import Any

from synface import settings
from synface.embed import run as embed_run
from synface.embed.config import EmbedConfig
from synface.evaluate import run as evaluate_run
from synface.evaluate.config import EvaluateConfig
from synface.generate import run as generate_run
from synface.generate.config import GenerateConfig
from synface.models import weights as model_weights
from synface.pack import run as pack_run
from synface.pack.config import PackConfig
from synface.settings import build
from synface.train import run as train_run
from synface.train.config import TrainRecognizerConfig


def sections_of(recipe: str) -> dict[str, Any]:
    """The sections of a recipe file."""
    from synface.cli import STAGES

    return settings.read_recipe(recipe, (*STAGES, "pool"))


def generate(output: Path | str, **fields: Any) -> str:
    generate_run.run(build(GenerateConfig, fields | {"output": str(output)}))
    return str(output)


def draw(
    output: Path | str, weights: str, identities: str, samples: int, variation: dict[str, Any], **more: Any
) -> str:
    """Images of a table's identities by a CemiFace generator."""
    return generate(
        output,
        generator="cemiface",
        identities=identities,
        images_per_identity=samples,
        image_size=model_weights.read_config(weights, "generator").input_size,
        variation=variation,
        cemiface={"weights": weights},
        **more,
    )


def numbers(text: str) -> list[float]:
    """Of a comma list on the command line."""
    return [float(x) for x in text.split(",") if x]


def embed(output: Path | str, **fields: Any) -> str:
    embed_run.run(build(EmbedConfig, fields | {"output": str(output)}))
    return str(output)


def pack(output: Path | str, **fields: Any) -> str:
    pack_run.run(build(PackConfig, fields | {"output": str(output)}))
    return str(output)


def recognizer_accuracy(root: Path, sections: dict[str, Any], images: list[str], seed: int) -> dict[str, float]:
    """Train a recognizer as `sections` say, evaluate it; average accuracy in per cent of every benchmark."""
    weights = build(
        TrainRecognizerConfig,
        {**sections["train_recognizer"], "seed": seed, "images": images, "output": str(root / f"recognizer-{seed}")},
    )
    train_run.run(weights)
    asked = {**sections["evaluate"], "weights": weights.output, "output": str(root / f"evaluation-{seed}")}
    found = evaluate_run.run(build(EvaluateConfig, asked))
    return {name: 100 * value for name, value in found["average"].items()}
