"""What a run tells Prometheus, through Ray's own export on every node: ``ray_synface_images_total`` and so on.

A shard's number is the value of a metric and no label: every value of a label is a time series that the server keeps.
The labels are the run's id, as in the log lines and the ledger, and the stage.
"""

import functools

import ray
from ray.util import metrics

from synface.ops.runs import run_id

LABELS = ("run", "stage")
IMAGES = "synface_images"
IMAGES_FAILED = "synface_images_failed"
SHARDS_DONE = "synface_shards_done"
LAST_SHARD = "synface_last_shard"
PASSES = "synface_pack_passes"
MAX_COSINE = "synface_pack_max_cosine"
STEP = "synface_train_step"
LOSS = "synface_train_loss"
WORK_LOST = "synface_work_lost"
WORK_DONE = "synface_work_done"
WORK_ASKED = "synface_work_asked"

#: what only ever grows; Prometheus shows it with `_total` behind its name
COUNTERS = {
    IMAGES: "images generated, embedded or trained on",
    IMAGES_FAILED: "images that could not be made, or that a filter refused",
    SHARDS_DONE: "shards of an images table, written with their ledger entries",
    PASSES: "passes of a packing",
    WORK_LOST: "times that workers were lost and their work was given to others",
}
GAUGES = {
    LAST_SHARD: "number of the shard that was finished last, as in its ledger entry",
    MAX_COSINE: "largest cosine between two identities of the packing",
    STEP: "steps of the training, those before a restart included",
    LOSS: "loss of the last step",
    WORK_DONE: "units of the stage's progress line that are done, those of earlier runs included",
    WORK_ASKED: "units of the stage's progress line in all",
}


def add(name: str, stage: str, amount: float = 1) -> None:
    """Count; nothing happens where no Ray runs."""
    if amount > 0 and ray.is_initialized():
        _counter(name).inc(float(amount), _labels(stage))


def show(name: str, stage: str, value: float) -> None:
    """Set a gauge; nothing happens where no Ray runs."""
    if ray.is_initialized():
        _gauge(name).set(float(value), _labels(stage))


def exported(name: str) -> str:
    """A metric's name as Prometheus reads it."""
    return f"ray_{name}_total" if name in COUNTERS else f"ray_{name}"


def _labels(stage: str) -> dict[str, str]:
    return {"run": run_id(), "stage": stage}


@functools.cache
def _counter(name: str) -> metrics.Counter:
    return metrics.Counter(name, COUNTERS[name], LABELS)


@functools.cache
def _gauge(name: str) -> metrics.Gauge:
    return metrics.Gauge(name, GAUGES[name], LABELS)
