"""The whole way from one recipe: each section's stage in turn; finished ones answer at once."""

import importlib
import time
from typing import Any

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.flows import estimates
from synface.flows.config import PipelineConfig
from synface.flows.wiring import STEPS, steps
from synface.ops import signals
from synface.ops.progress import duration, say
from synface.settings import input_uris
from synface.store import artifact


def plan(config: PipelineConfig) -> dict[str, Any]:
    """Every section's resolved configuration and, where its inputs exist already, its plan; what all of it takes."""
    stages = steps(config)
    found: dict[str, Any] = {"estimate": estimates.estimate(stages)}
    for name, stage_config in stages.items():
        made_here = [u for u in input_uris(stage_config).values() if u.startswith(config.output)]
        missing = [u for u in made_here if artifact.load_manifest(u) is None]
        found[name] = {"config": stage_config.model_dump(mode="json")}
        if missing:
            found[name]["plan"] = {"waits_for": missing}
        else:
            found[name]["plan"] = importlib.import_module(STEPS[name][2]).plan(stage_config)
    return found


def run(config: PipelineConfig) -> dict[str, Any]:
    """Run the sections in order; the result holds each one's numbers under its name.

    Raises:
        SynfaceError: the section that failed, by name; what the sections before it made is kept.
    """
    started = time.monotonic()
    results: dict[str, Any] = {}
    stages = steps(config)
    for index, (name, stage_config) in enumerate(stages.items(), 1):
        signals.check_stop()
        say(f"pipeline: {index}/{len(stages)} {name} -> {stage_config.output}")
        stage_started = time.monotonic()
        try:
            result = importlib.import_module(STEPS[name][2]).run(stage_config)
        except SynfaceError as error:
            # the exit code is the kind's; a stop signal is a kind of PartialError
            kind = next((k for k in (InputError, PartialError) if isinstance(error, k)), SynfaceError)
            raise kind(f"section {name}: {error}") from error
        result["seconds"] = round(time.monotonic() - stage_started, 3)
        state = "already done" if result.get("cached") else "done"
        say(f"pipeline: {name} {state} in {duration(result['seconds'])}")
        results[name] = result
    return {
        "uri": config.output,
        "recipe": config.recipe,
        "cached": all(r.get("cached") for r in results.values()),
        "sections": results,
        "seconds": round(time.monotonic() - started, 3),
    }
