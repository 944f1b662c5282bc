"""How a recipe's sections are wired together: outputs, inputs from the sections before, the seed."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from synface.core.errors import InputError
from synface.flows.config import PipelineConfig
from synface.settings import StageConfig, build, merge
from synface.store import uri as uris

#: section -> (module of its config, class, module with plan and run, folder below the pipeline's output)
STEPS = {
    "pool": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "pool_images"),
    "embed": ("synface.embed.config", "EmbedConfig", "synface.embed.run", "pool"),
    "pool_more": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "pool_more_images"),
    "embed_more": ("synface.embed.config", "EmbedConfig", "synface.embed.run", "pool_more"),
    "pack": ("synface.pack.config", "PackConfig", "synface.pack.run", "identities"),
    "closed_loop": (
        "synface.flows.closed_loop_config",
        "ClosedLoopConfig",
        "synface.flows.closed_loop",
        "apart",
    ),
    "generate": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "images"),
    "generate_more": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "images_more"),
    "generator_images": ("synface.generate.config", "GenerateConfig", "synface.generate.run", "generator_images"),
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

#: sections that work with a generator, which comes first where the recipe trains it
DRAWN = ("closed_loop", "generate", "generate_more")

#: generators that draw with what `train_generator` leaves
DENOISING = ("cemiface", "idiffface", "dcface")

#: (section, its configuration without a place) -> URI of its output
Place = Callable[[str, StageConfig], str]


def steps(config: PipelineConfig, place: Place | None = None) -> dict[str, StageConfig]:
    """Section -> validated stage configuration, in order, wired; every fault is found here, before work.

    Args:
        config: the recipe.
        place: where each section writes; default: a folder of its own below `config.output`.
    """
    present = order(config)
    if not present:
        raise InputError(f"pipeline: no section given; known sections: {', '.join(STEPS)}")
    place = place or (lambda name, _: uris.join(config.output, STEPS[name][3]))
    built: dict[str, StageConfig] = {}
    made: dict[str, str] = {}
    for name in present:
        module, class_name, _, _ = STEPS[name]
        model = getattr(importlib.import_module(module), class_name)
        section = getattr(config, name)
        wired = {k: v for k, v in _inputs(name, config, made).items() if v is not None}
        if "num_identities" in section and name in ("generate", "generate_more"):
            wired.pop("identities", None)  # its own people; what is embedded has another reader
        data = {"output": config.output, **merge(wired, section)}
        if "seed" in model.model_fields:
            data.setdefault("seed", config.seed)
        try:
            stage = build(model, data)
        except InputError as error:
            raise InputError(f"section {name}: {error}") from None
        made[name] = section.get("output") or place(name, stage)
        built[name] = stage.model_copy(update={"output": made[name]})
    return built


def order(config: PipelineConfig) -> list[str]:
    """The sections that a recipe has, in the order of their work.

    With images of its own (`generator_images`, or tables that its section names) the generator is trained first, and
    the images that `generate` makes are drawn by it.
    """
    present = [name for name in STEPS if getattr(config, name) is not None]
    if "generator_images" not in present and not (config.train_generator or {}).get("images"):
        return present
    drawn = [name for name in DRAWN if name in present]
    rest = [name for name in present if name not in DRAWN]
    cut = next((i for i, name in enumerate(rest) if name in ("train_recognizer", "evaluate", "report")), len(rest))
    return rest[:cut] + drawn + rest[cut:]


def _inputs(name: str, config: PipelineConfig, made: Mapping[str, str]) -> dict[str, Any]:
    """What a section reads from the sections before it; `made` holds their outputs."""

    def listed(*places: str | None) -> list[str] | None:
        return [place for place in places if place is not None] or None

    section = getattr(config, name)
    pack_input = "pool" if (config.pack or {}).get("solver") == "subset" else "gallery"
    studied = listed(made.get("generator_images") or made.get("generate"))
    weights = made.get("calibrate") or made.get("train_generator")
    drawing = section.get("generator")
    own = {"weights": weights, **({"style_images": made.get("generator_images")} if drawing == "dcface" else {})}
    trained = {drawing: own} if weights and drawing in DENOISING else {}
    packed = made.get("pack") or made.get("embed")
    balance = {"people": made.get("embed"), "labels": made.get("pool")} if section.get("balance") is not None else None
    identities = made.get("closed_loop") or packed
    grouped: dict[str, Any] = {}  # real images in groups by similarity: the pool itself is trained on
    if name == "train_recognizer" and section.get("similarity_group") and made.get("pool") and made.get("embed"):
        grouped = {"images": listed(made["pool"]), "similarity_group": {"identities": made["embed"]}}
    return {
        "embed": {"images": made.get("pool")},
        "closed_loop": {"identities": packed, "weights": weights},
        "pack": {pack_input: made.get("embed")},
        "embed_more": {"images": made.get("pool_more")},
        "generate": {"identities": identities, "balance": balance, **trained},
        "generate_more": {"identities": made.get("embed_more"), **trained},
        "train_autoencoder": {"images": studied},
        "train_generator": {"images": studied, "autoencoder": made.get("train_autoencoder")},
        "calibrate": {"weights": made.get("train_generator"), "identities": made.get("embed")},
        "train_recognizer": {"images": listed(made.get("generate"), made.get("generate_more"))} | grouped,
        "evaluate": {"weights": made.get("train_recognizer")},
        "report": {
            "title": f"synface {config.recipe}".strip(),
            "pool": made.get("embed"),
            "pack": made.get("pack"),
            "images": made.get("generate"),
            "recognizer": made.get("train_recognizer"),
            "evaluation": made.get("evaluate"),
        },
    }.get(name, {})
