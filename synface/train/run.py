"""The verb ``train recognizer``: plan, train, commit the weights."""

import json
import time
from typing import Any

from synface.core.errors import unknown_name
from synface.models import recognizers, weights
from synface.ops.cluster import versions
from synface.ops.progress import say
from synface.store import artifact, tables
from synface.store import uri as uris
from synface.train import data, distributed, loop
from synface.train.config import TrainRecognizerConfig

KIND = "recognizer"
HISTORY_FILE = "history.json"


def plan(config: TrainRecognizerConfig) -> dict[str, Any]:
    """What would be trained on how many images; reads manifests, no images."""
    check(config)
    rows = [sum(f.rows or 0 for f in tables.listed_files(uri)) for uri in _tables(config)]
    steps = data.steps_per_epoch(sum(rows), config.global_batch_size)
    return {
        "backbone": config.backbone,
        "embedding_dim": config.dim,
        "images": dict(zip(config.images, rows, strict=True)),
        "steps_per_epoch": steps,
        "steps": steps * config.epochs,
        "workers": config.numerics.num_workers,
        "decoded_gb": round(sum(rows) * config.image_size**2 * 3 / data.GIB, 3),
    }


def check(config: TrainRecognizerConfig) -> None:
    """InputError for a backbone that is not known."""
    if config.backbone not in recognizers.RECOGNIZERS:
        raise unknown_name("backbone", config.backbone, recognizers.RECOGNIZERS)


def run(config: TrainRecognizerConfig) -> dict[str, Any]:
    """Train, or answer at once where this training is finished.

    Returns:
        uri, images, classes, parameters, epochs, steps, loss and accuracy of the last epoch, seconds, cached.
    """
    started = time.monotonic()
    check(config)
    _tables(config)
    opened = artifact.open_output(config)
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, started, cached=True)
    catalog = data.scan(config.images, config.image_size, config.merge_identities)
    data.steps_per_epoch(len(catalog), config.global_batch_size)
    say(f"train: {config.backbone} on {len(catalog)} images of {len(catalog.classes)} identities")
    checkpoint = distributed.fit(config, catalog)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    loop.unpack_checkpoint(state, checkpoint, "cpu")
    distributed.check_ended(config.output, state.step, shape.total_steps)
    files = weights.save_files(state.model.backbone, weights_config(config, opened, state))
    files[HISTORY_FILE] = (json.dumps(state.history, sort_keys=True, indent=1) + "\n").encode()
    entries = [artifact.write_file(config.output, name, content) for name, content in files.items()]
    numbers = {
        "images": len(catalog),
        "classes": len(catalog.classes),
        "parameters": recognizers.parameter_count(state.model.backbone),
        "epochs": config.epochs,
        "steps": state.step,
        "loss": state.history[-1]["loss"],
        "accuracy": state.history[-1]["accuracy"],
    }
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    remove_checkpoints(config.output)
    return _result(config, numbers, started, cached=False)


def weights_config(config: TrainRecognizerConfig, opened: artifact.Opened, state: loop.State) -> weights.WeightsConfig:
    """What is stated beside the trained weights."""
    digests = ", ".join(opened.inputs[f"images.{i}"][:12] for i in range(len(config.images)))
    return weights.WeightsConfig(
        architecture=config.backbone,
        embedding_dim=config.dim,
        input_size=config.image_size,
        licence=config.licence,
        training_data=config.training_data or f"images tables with content digests {digests}",
        dtype=config.store_dtype,
        details={
            "config_hash": opened.config_hash,
            "margin": config.margin.name,
            "seed": config.seed,
            "steps": state.step,
        },
    )


def remove_checkpoints(output: str) -> None:
    """Drop what only an interrupted training needs."""
    uris.delete_files(uris.join(output, distributed.CHECKPOINTS))


def _tables(config: TrainRecognizerConfig) -> list[str]:
    for uri in config.images:
        artifact.require(uri, "images")
    return config.images


def _result(config: TrainRecognizerConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {
        "uri": config.output,
        **numbers,
        "cached": cached,
        "seconds": round(time.monotonic() - started, 3),
    }
