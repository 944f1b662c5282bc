"""``synface <verb>``: typed configuration in, one JSON line out.

Logs and progress go to stderr; the last line of stdout is one JSON object, also written to
``<output>/_synface/result-<verb>.json`` with the exit code. Exit codes: 0 done, 1 failed, 2 refused
input, 3 finished in part. Stages are imported only when their verb runs, so that help is instant.
"""

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

from synface import __version__
from synface.core.errors import InputError, SynfaceError
from synface.ops import runs

#: verb -> (module of its config, config class, module with plan(config) and run(config))
STAGES = {
    "embed": ("synface.embed.config", "EmbedConfig", "synface.embed.run"),
    "pack": ("synface.pack.config", "PackConfig", "synface.pack.run"),
    "generate": ("synface.generate.config", "GenerateConfig", "synface.generate.run"),
    "train_recognizer": ("synface.train.config", "TrainRecognizerConfig", "synface.train.run"),
    "train_autoencoder": ("synface.train.generator_config", "TrainAutoencoderConfig", "synface.train.autoencoder_run"),
    "train_generator": ("synface.train.generator_config", "TrainGeneratorConfig", "synface.train.generator_run"),
    "calibrate": ("synface.flows.calibrate_config", "CalibrateConfig", "synface.flows.calibrate"),
    "closed_loop": ("synface.flows.closed_loop_config", "ClosedLoopConfig", "synface.flows.closed_loop"),
    "evaluate": ("synface.evaluate.config", "EvaluateConfig", "synface.evaluate.run"),
    "evaluate_ijb": ("synface.evaluate.faces_config", "EvaluateIjbConfig", "synface.evaluate.ijb_run"),
    "evaluate_tinyface": (
        "synface.evaluate.faces_config",
        "EvaluateTinyfaceConfig",
        "synface.evaluate.tinyface_run",
    ),
    "audit": ("synface.evaluate.audit_config", "AuditConfig", "synface.evaluate.audit_run"),
    "import": ("synface.store.import_config", "ImportConfig", "synface.store.importing"),
    "report": ("synface.report.config", "ReportConfig", "synface.report.run"),
    "pipeline": ("synface.flows.config", "PipelineConfig", "synface.flows.pipeline"),
    "sweep": ("synface.flows.sweep_config", "SweepConfig", "synface.flows.sweep"),
}

#: a task whose process Ray's memory monitor kills is started so often again; by Ray's default for ever
OUT_OF_MEMORY_RETRIES = 8

#: `synface pack --verify-realised IMAGES`: as a stage, of a verb that has another task without it
REALISED = ("synface.flows.realised", "RealisedConfig")

#: verb -> function of store/ or models/ called with a URI and options: (module, function, required, optional)
TOOLS = {
    "status": ("synface.store.status", "status", (), ()),
    "verify": ("synface.store.verify", "verify", (), ("repair",)),
    "clean": ("synface.store.clean", "clean", (), ("min_age_hours", "dry_run", "earlier_versions")),
    "compact": ("synface.store.compact", "compact", (), ("images_per_file",)),
    "erase": ("synface.store.erasure", "erase", ("subject",), ("identities", "gallery", "cosine", "dry_run")),
    "card": ("synface.store.card", "card", (), ("audit",)),
    "export": ("synface.store.export", "export", ("format", "output"), ()),
    "bin": (
        "synface.store.pair_pack",
        "build",
        ("pairs", "output"),
        ("landmarks", "detector", "detector_weights", "size"),
    ),
    "convert": (
        "synface.models.convert",
        "convert",
        ("layout", "architecture", "licence", "training_data", "output"),
        ("colour_order", "embedding_dim", "input_size", "autoencoder", "embedder"),
    ),
}

HELP = """\
usage: synface VERB [--config RECIPE.yaml] [--field VALUE ...] [--dry-run]

stages (each: `synface VERB --help` lists its fields)
  embed             images -> identities table
  pack              identities far apart on the hypersphere, or a dispersed subset of a pool
                    (--verify-realised IMAGES: how far apart they are as generated)
  generate          identities -> images table on any URI
  train recognizer  images -> face-recognition model
  train autoencoder images -> autoencoder in whose latents a small generator works
  train generator   images -> CemiFace generator for one recognizer's embeddings
  evaluate          verification accuracy, TAR@FAR, ROC of a recognizer
  evaluate ijb      1:1 TAR@FAR and 1:N identification on IJB-B and IJB-C
  evaluate tinyface rank-k identification
  audit             uniqueness, consistency, leakage of a dataset
  report            one HTML page of a run
  calibrate         CemiFace generator -> the same with a dial: a target similarity picks its m
  closed-loop       identities -> asked so that they lie far apart *as generated*
  sweep             trials of a recipe over a search space, several seeds each; the best is tested
  pipeline          all of it, from one recipe

results
  status URI        what is done there, what is missing
  verify URI        every byte against the manifest (--repair true: what is damaged is made again next time)
  export URI --format NAME --output URI
  bin URI           a verification pack (.bin) of a folder of images and a list of pairs
  convert URI       a released recognizer (--layout insightface, adaface, hyperface, cvlface, onnx) or generator
                    (idiffface) -> a weights folder
  import            RecordIO, tars, folders -> images table
  clean URI         remove files that no manifest lists (--dry-run true lists them)
  compact URI       fewer, larger files, sorted, as the table's next version
  erase URI --subject ID  remove the identities derived from one person (--dry-run true lists them)
  card URI          the dataset card (--audit AUDIT: with what an audit found of leakage)
  doctor            what this machine can run, and which weights and data it has

Configuration: defaults < --config file.yaml (one section per verb) < --a.b value.
Exit codes: 0 done, 1 failed, 2 refused input, 3 finished in part.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code. Everything the user sees is printed here."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"synface {__version__}")
        return 0
    runs.log_to_stderr()
    # Ray reads these when it is imported; the lines that the first one ends go to stdout
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(OUT_OF_MEMORY_RETRIES))
    verb, rest = _verb(argv)
    started = time.monotonic()
    ray_was_up = _ray_is_up()
    output: str | None = None
    try:
        runs.check_environment()
        if verb in STAGES:
            result, output = _run_stage(verb, rest)
            if result is None:
                return 0
        else:
            result = _run_tool(verb, rest)
        code = int(result.pop("exit_code", 0))
    except SynfaceError as error:
        runs.say(f"synface {verb}: {error}", "ERROR")
        output = getattr(error, "output", None)
        result, code = {"error": str(error), **getattr(error, "numbers", {})}, error.exit_code
    except KeyboardInterrupt:
        runs.say(f"synface {verb}: interrupted; the same command continues", "ERROR")
        result, code = {"error": "interrupted"}, 1
    except Exception as error:
        runs.say(traceback.format_exc().rstrip(), "ERROR")
        runs.say(f"synface {verb}: failed: {error}", "ERROR")
        output = getattr(error, "output", None)
        result, code = {"error": f"{type(error).__name__}: {error}"}, 1
    if not ray_was_up and _ray_is_up():
        sys.modules["ray"].shutdown()  # what Ray still has to say must not follow the result line
    _finish(verb, result, code, output, time.monotonic() - started)
    return code


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _verb(argv: list[str]) -> tuple[str, list[str]]:
    """``train recognizer`` is one verb of two words; so is ``train-recognizer``."""
    verb, rest = argv[0].replace("-", "_"), argv[1:]
    if verb in ("train", "evaluate") and rest and not rest[0].startswith("-"):
        verb, rest = f"{verb}_{rest[0]}", rest[1:]
    return verb, rest


def _run_stage(verb: str, arguments: list[str]) -> tuple[dict[str, Any] | None, str | None]:
    """Parse, then plan or run. (None, None) after ``--help``."""
    from synface import settings

    config_module, class_name, run_module = STAGES[verb]
    model = getattr(importlib.import_module(config_module), class_name)
    if "--help" in arguments or "-h" in arguments:
        print(_fields_help(verb, model), end="")
        return None, None
    overrides = settings.parse_overrides(arguments)
    if verb == "pack" and "verify_realised" in overrides:
        run_module, class_name = REALISED
        model = getattr(importlib.import_module(run_module), class_name)
    dry_run = _flag(overrides, "dry_run")
    recipe_path = overrides.pop("config", None)
    data = settings.read_recipe(recipe_path, _sections()) if recipe_path else {}
    section = _recipe_as_pipeline(data) if verb == "pipeline" else data.get(verb, {})
    if recipe_path and verb != "pipeline" and verb not in data:
        raise InputError(f"--config {recipe_path}: has no section {verb!r}; its sections: {', '.join(data)}")
    from synface.store.uri import absolute

    config = settings.build(model, settings.merge(section, overrides))
    config = config.model_copy(update={"output": absolute(config.output)})  # workers have another folder
    signals = importlib.import_module("synface.ops.signals")
    try:
        with signals.stoppable():
            stage = importlib.import_module(run_module)
            if dry_run:
                return {
                    "dry_run": True,
                    "config": config.model_dump(mode="json"),
                    "plan": stage.plan(config),
                }, None
            return stage.run(config), config.output
    except Exception as error:
        # an output that another configuration owns is not ours to write a result into
        if not isinstance(error, InputError) and not dry_run:
            error.output = config.output  # type: ignore[attr-defined]
        raise


def _sections() -> tuple[str, ...]:
    return (*STAGES, "pool", "pool_more", "embed_more", "generate_more", "generator_images")


def _recipe_as_pipeline(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's sections are the pipeline's fields; its own section (output, seed) lies beside them."""
    own = data.get("pipeline", {})
    return {**{k: v for k, v in data.items() if k not in ("pipeline", "description")}, **own}


def _flag(overrides: dict[str, Any], name: str) -> bool:
    value = overrides.pop(name, False)
    if value not in (False, "true", "false"):
        raise InputError(f"--{name.replace('_', '-')} is a switch, got {value!r}")
    return value == "true"


def _run_tool(verb: str, arguments: list[str]) -> dict[str, Any]:
    from synface import settings

    if verb == "doctor":
        doctor = importlib.import_module("synface.flows.doctor")
        return doctor.run()
    if verb not in TOOLS:
        known = [*(v.replace("_", " ") for v in STAGES), *TOOLS, "doctor"]
        raise InputError(f"unknown verb {verb!r}; known: {', '.join(known)}")
    module, function, required, optional = TOOLS[verb]
    if not arguments or arguments[0].startswith("-"):
        options = [f"--{o} VALUE" for o in required] + [f"[--{o} VALUE]" for o in optional]
        raise InputError(" ".join(["usage: synface", verb, "URI", *options]).replace("_", "-"))
    given = settings.parse_overrides(arguments[1:])
    unknown = sorted(set(given) - {*required, *optional})
    if unknown:
        raise InputError(f"unknown option --{unknown[0]}; {verb} takes: {', '.join((*required, *optional)) or 'none'}")
    missing = [o for o in required if o not in given]
    if missing:
        raise InputError(f"{verb} needs --{missing[0]}")
    return getattr(importlib.import_module(module), function)(arguments[0], **given)


def _fields_help(verb: str, model: Any) -> str:
    lines = [
        f"usage: synface {verb.replace('_', ' ')} [--config RECIPE.yaml] [--field VALUE ...] [--dry-run]",
        "",
    ]
    if model.__doc__:
        lines += [model.__doc__.strip().splitlines()[0], ""]
    lines += ["fields:", *_field_lines(model, "")]
    return "\n".join(lines) + "\n"


def _field_lines(model: Any, prefix: str) -> list[str]:
    from synface.settings import Settings

    lines: list[str] = []
    for name, field in model.model_fields.items():
        flag = f"--{prefix}{name}".replace("_", "-")
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Settings):
            lines += _field_lines(type(default), f"{prefix}{name}.")
            continue
        kind = getattr(field.annotation, "__name__", None)
        kind = kind if kind and kind not in ("Optional", "Union") else str(field.annotation).replace("typing.", "")
        state = "required" if field.is_required() else f"default {default!r}"
        about = f": {field.description}" if field.description else ""
        lines.append(f"  {flag} ({kind}, {state}){about}")
    return lines


def _finish(verb: str, result: dict[str, Any], code: int, output: str | None, seconds: float) -> None:
    """Print the result line; write it beside the output where there is one."""
    line = {**result, "verb": verb.replace("_", " "), "run": runs.run_id(), "exit_code": code}
    line["seconds"] = round(seconds, 3)
    text = json.dumps(line, allow_nan=False, default=str)
    if output is not None:
        from synface.store import uri as uris

        try:
            uris.write_bytes(uris.join(output, "_synface", f"result-{verb}.json"), (text + "\n").encode())
        except Exception as error:
            runs.say(f"synface {verb}: result file not written: {error}", "ERROR")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
