"""How a recipe's sections are wired together: outputs, inputs from the sections before, the seed."""

import importlib
from typing import Any

from synface.core.errors import InputError
from synface.flows.config import PipelineConfig
from synface.settings import StageConfig, build
from synface.store import uri as uris

#: section -> (module of its config, class, module with plan and run, folder below the pipeline's output)
STEPS = {
    "pool": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "pool_images"),
    "embed": ("synface.embed.config", "EmbedConfig", "synface.embed.run", "pool"),
    "pack": ("synface.pack.config", "PackConfig", "synface.pack.run", "identities"),
    "generate": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "images"),
    "train_autoencoder": (
        "synface.train.generator_config",
        "TrainAutoencoderConfig",
        "synface.train.autoencoder_run",
        "autoencoder",
    ),
    "train_generator": (
        "synface.train.generator_config",
        "TrainGeneratorConfig",
        "synface.train.generator_run",
        "generator",
    ),
    "calibrate": ("synface.flows.calibrate_config", "CalibrateConfig", "synface.flows.calibrate", "calibrated"),
    "train_recognizer": ("synface.train.config", "TrainRecognizerConfig", "synface.train.run", "recognizer"),
    "evaluate": ("synface.evaluate.config", "EvaluateConfig", "synface.evaluate.run", "evaluation"),
    "report": ("synface.report.config", "ReportConfig", "synface.report.run", "report"),
}


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
        section = getattr(config, name) or {}
        if "num_identities" in section and name == "generate":
            wired.pop("identities", None)  # its own people; what is embedded has another reader
        data = {"output": out[name], **wired, **section}
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
    images = [out["generate"]] if "generate" in present else None
    title = f"synface {config.recipe}".strip()
    return {
        "embed": {"images": made("pool")},
        "pack": {pack_input: made("embed")},
        "generate": {"identities": made("pack") or made("embed")},
        "train_autoencoder": {"images": images},
        "train_generator": {"images": images, "autoencoder": made("train_autoencoder")},
        "calibrate": {"weights": made("train_generator"), "identities": made("embed")},
        "train_recognizer": {"images": images},
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
