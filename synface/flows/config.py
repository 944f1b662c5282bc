"""Configuration of the pipeline: a recipe's sections, and how they are wired together."""

import importlib
from typing import Any, ClassVar

from pydantic import Field

from synface.core.errors import InputError
from synface.settings import Settings, StageConfig, build
from synface.store import uri as uris

#: section -> (module of its config, class, module with plan and run, folder below the pipeline's output)
STEPS = {
    "pool": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "pool_images"),
    "embed": ("synface.embed.config", "EmbedConfig", "synface.embed.run", "pool"),
    "pack": ("synface.pack.config", "PackConfig", "synface.pack.run", "identities"),
    "generate": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "images"),
    "train_recognizer": ("synface.train.config", "TrainRecognizerConfig", "synface.train.run", "recognizer"),
    "evaluate": ("synface.evaluate.config", "EvaluateConfig", "synface.evaluate.run", "evaluation"),
    "report": ("synface.report.config", "ReportConfig", "synface.report.run", "report"),
}


class PipelineConfig(Settings):
    """The whole way: pool -> embed -> pack -> generate -> train recognizer -> evaluate -> report.

    Every section is optional and holds the fields of its verb; what a section does not set (outputs,
    inputs from the sections before it, the seed) is wired here.
    """

    verb: ClassVar[str] = "pipeline"

    output: str = Field(description="folder or URI of the run; every section writes below it")
    recipe: str = Field("", description="name of the recipe, for the report")
    seed: int = Field(0, ge=0, lt=2**62, description="seed of every section that does not set its own")
    pool: dict[str, Any] | None = Field(None, description="a generate section: candidates for the packing")
    embed: dict[str, Any] | None = None
    pack: dict[str, Any] | None = None
    generate: dict[str, Any] | None = None
    train_recognizer: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None
    report: dict[str, Any] | None = None


def steps(config: PipelineConfig) -> dict[str, StageConfig]:
    """Section -> validated stage configuration, in order, wired; every fault is found here, before work."""
    out = {name: uris.join(config.output, folder) for name, (*_, folder) in STEPS.items()}
    present = [name for name in STEPS if getattr(config, name) is not None]
    if not present:
        raise InputError(f"pipeline: no section given; known sections: {', '.join(STEPS)}")
    inputs = _wiring(config, present, out)
    built: dict[str, StageConfig] = {}
    for name in present:
        module, class_name, _, _ = STEPS[name]
        model = getattr(importlib.import_module(module), class_name)
        wired = {k: v for k, v in inputs.get(name, {}).items() if v is not None}
        data = {"output": out[name], **wired, **(getattr(config, name) or {})}
        if "seed" in model.model_fields:
            data.setdefault("seed", config.seed)
        try:
            built[name] = build(model, data)
        except InputError as error:
            raise InputError(f"section {name}: {error}") from None
    return built


def _wiring(config: PipelineConfig, present: list[str], out: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What each section reads from the sections before it."""

    def made(name: str) -> str | None:
        return out[name] if name in present else None

    pack_input = "pool" if (config.pack or {}).get("solver") == "subset" else "gallery"
    title = f"synface {config.recipe}".strip()
    return {
        "embed": {"images": made("pool")},
        "pack": {pack_input: made("embed")},
        "generate": {"identities": made("pack") or made("embed")},
        "train_recognizer": {"images": [out["generate"]] if "generate" in present else None},
        "evaluate": {"weights": made("train_recognizer")},
        "report": {
            "title": title,
            "pool": made("embed"),
            "pack": made("pack"),
            "images": made("generate"),
            "recognizer": made("train_recognizer"),
            "evaluation": made("evaluate"),
        },
    }
