"""What the verbs of training have in common: plan, inputs, provenance, weights, result."""

import json
import math
import time
from typing import Any

from synface.models import weights
from synface.store import artifact, cost, tables
from synface.train import data
from synface.train.config import TrainRecognizerConfig
from synface.train.generator_config import StepsConfig

HISTORY_FILE = "history.json"
TrainConfig = TrainRecognizerConfig | StepsConfig


def table_rows(config: TrainConfig) -> dict[str, int]:
    """Images of each table, from its manifest.

    Raises:
        InputError: a table that is not there, or not finished.
    """
    rows = {}
    for uri in config.images:
        artifact.require(uri, "images")
        rows[uri] = sum(f.rows or 0 for f in tables.listed_files(uri))
    return rows


def planned(config: StepsConfig, parameters: int) -> dict[str, Any]:
    """What both trainings say before any work."""
    rows = table_rows(config)
    seen = config.steps * config.global_batch_size
    kept = checkpoints(config, parameters, config.steps, config.how.checkpoint_every)
    return {
        "images": rows,
        "steps": config.steps,
        "workers": config.numerics.num_workers,
        "images_seen": seen,
        "decoded_gb": decoded_gb(rows, config.image_size),
        "estimate": estimate(config, seen, read_table(config), kept),
    }


def read_table(config: TrainConfig) -> cost.Table:
    """All tables together, as their manifests list them."""
    files = [f for uri in config.images for f in tables.listed_files(uri)]
    return cost.Table(sum(f.rows or 0 for f in files), len(files), sum(f.bytes for f in files))


def estimate(config: TrainConfig, seen: int, table: cost.Table, kept: cost.Traffic) -> dict[str, Any]:
    """Hours, requests and bytes of a fresh training (`store.cost`), foreign sources left out.

    The driver reads every file once, for labels; each worker once, or, with `shuffle_shards` and images that do not
    fit into its memory decoded, once for every pass over them. `kept`: see `checkpoints`.
    """
    numerics, how = config.numerics, config.how
    fits = table.images * config.image_size**2 * 3 <= how.memory_gb * data.GIB
    streams = getattr(config, "shuffle_shards", None) is not None and not fits
    times = max(1, round(seen / max(table.images, 1))) if streams else 1
    cpus = how.cpus_per_worker or float(numerics.threads_per_worker)
    gpus = how.gpus_per_worker if numerics.device == "cuda" else 0.0
    taken = table.read(1 + numerics.num_workers * times)
    traffic = None if taken is None else taken + kept
    return cost.estimate(seen, "images", cost.rate_of(how.rate), cpus, gpus, traffic, workers=numerics.num_workers)


def checkpoints(config: TrainConfig, parameters: int, steps: int, every: int) -> cost.Traffic:
    """What the checkpoints of a training write, at most: fp32 weights and the optimizer's moments, a running average.

    An epoch that ends before `how.checkpoint_seconds` writes none, so there may be fewer.
    """
    sgd = isinstance(config, TrainRecognizerConfig) and config.optimizer.name == "sgd"
    copies = 1 + (1 if sgd else 2) + isinstance(config, StepsConfig)
    return cost.written(4 * copies * parameters) * math.ceil(steps / every)


def decoded_gb(rows: dict[str, int], image_size: int) -> float:
    """Memory of all images' pixels, GiB."""
    return round(sum(rows.values()) * image_size**2 * 3 / data.GIB, 3)


def input_digests(config: StepsConfig, **known: str) -> dict[str, str]:
    """Content digests of the images tables, with those of other inputs that are known already."""
    images = {f"images.{i}": artifact.content_digest(uri) for i, uri in enumerate(config.images)}
    return {**images, **known}


def training_data(config: TrainConfig, inputs: dict[str, str]) -> str:
    """The sentence for config.json."""
    digests = ", ".join(digest[:12] for path, digest in inputs.items() if path.startswith(("images.", "sources.")))
    return config.training_data or f"images tables with content digests {digests}"


def write_weights(
    config: TrainConfig, module: Any, stated: weights.WeightsConfig, history: list[dict[str, Any]]
) -> list[artifact.FileEntry]:
    """The weights folder and the history, written; their entries."""
    files = weights.save_files(module, stated)
    files[HISTORY_FILE] = (json.dumps(history, sort_keys=True, indent=1) + "\n").encode()
    return [artifact.write_file(config.output, name, content) for name, content in files.items()]


def remedy(config: StepsConfig) -> str:
    """What to change where the loss stops being finite."""
    return (
        f"Lower optimizer.lr ({config.optimizer.lr}) or optimizer.condition_lr, raise optimizer.warmup_steps, or set "
        "optimizer.clip_norm lower"
    )


def result(config: TrainConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    """The verb's result line."""
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
