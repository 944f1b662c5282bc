"""The verb ``train recognizer``: plan, train, commit the weights."""

import json
import time
from collections import Counter
from typing import Any

import torch

from synface import settings
from synface.core import ranks
from synface.core.errors import InputError
from synface.models import recognizers, weights
from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.store import artifact, cost, tables
from synface.store import uri as uris
from synface.store.formats.found import listing_digest
from synface.train import data, distributed, groups, loop, sources, steps_run, tracking
from synface.train.config import TrainRecognizerConfig

KIND = "recognizer"
CONTINUED = "continue_from"


def plan(config: TrainRecognizerConfig) -> dict[str, Any]:
    """What would be trained on how many images; reads manifests, and of foreign sources what `run` reads first."""
    check(config)
    rows = steps_run.table_rows(config)
    shards = [[f.rows or 0 for f in tables.listed_files(uri)] for uri in config.images]
    for source in config.sources:
        shards.append([found.shard.rows for found in sources.scan(source, 0)])
        rows[source.uri] = sum(shards[-1])
    repeat = config.repeat or [1.0] * len(shards)
    taken = sum(data.drawn(n, r) for part, r in zip(shards, repeat, strict=True) for n in part)
    if config.similarity_group is not None:
        taken = int(groups.read(config.similarity_group, config.images[0])[2].sum())
    steps = data.steps_per_epoch(taken, config.global_batch_size)
    return {
        "backbone": config.backbone,
        "embedding_dim": config.dim,
        "images": rows,
        "steps_per_epoch": steps,
        "steps": steps * config.epochs,
        "workers": config.numerics.num_workers,
        "min_workers": config.numerics.worlds[0],
        "decoded_gb": steps_run.decoded_gb(rows, config.image_size),
        "estimate": estimate(config, steps, steps_run.read_table(config), _classes(config)),
    }


def estimate(config: TrainRecognizerConfig, epoch_steps: int, table: cost.Table, classes: int) -> dict[str, Any]:
    """Of a fresh training (`steps_run.estimate`), with the checkpoints of network and head."""
    with torch.device("meta"):
        backbone = recognizers.build(config.backbone, config.dim, config.image_size)
    parameters = recognizers.parameter_count(backbone) + classes * config.dim
    steps = epoch_steps * config.epochs
    kept = steps_run.checkpoints(config, parameters, steps, config.how.checkpoint_every or epoch_steps)
    return steps_run.estimate(config, steps * config.global_batch_size, table, kept)


def _classes(config: TrainRecognizerConfig) -> int:
    """Identities of all tables; those of foreign sources are not known before they are read."""
    return sum(artifact.require(uri, "images").numbers["identities"] for uri in config.images)


def check(config: TrainRecognizerConfig) -> None:
    """InputError for a backbone that is not known, or a tracker that is not there."""
    recognizers.find(config.backbone)
    tracking.check(config.how.trackers)


def run(config: TrainRecognizerConfig) -> dict[str, Any]:
    """Train, or answer at once where this training is finished.

    Returns:
        uri, images, classes, parameters, epochs, steps, loss and accuracy of the last epoch, seconds, cached.
    """
    started = time.monotonic()
    check(config)
    steps_run.table_rows(config)
    opened = artifact.open_output(config, input_digests(config))
    if opened.finished is not None:
        return steps_run.result(config, opened.finished.numbers, started, cached=True)
    catalog = data.scan(config.images, config.image_size, config.merge_identities, config.sources, config.repeat)
    facts: dict[str, Any] = {}
    if config.similarity_group is not None:
        label_n, similarity_n, kept_n = groups.read(config.similarity_group, config.images[0])
        catalog = groups.select(catalog, kept_n)
        facts["similarity_group"] = ranks.part_statistics(similarity_n, label_n, kept_n)
        say(f"train: group {config.similarity_group.group} by similarity: {facts['similarity_group']}")
    data.steps_per_epoch(catalog.per_epoch, config.global_batch_size)
    if config.head.sharded and len(catalog.classes) < config.numerics.num_workers:
        raise InputError(
            f"head.sharded: {len(catalog.classes)} classes for {config.numerics.num_workers} workers; each needs one"
        )
    say(f"train: {config.backbone} on {catalog.used} images of {len(catalog.classes)} identities")
    checkpoint = distributed.fit(config, catalog)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    loop.unpack_checkpoint(state, checkpoint, "cpu")
    distributed.check_ended(config.output, state.step, shape.total_steps)
    stated = weights_config(config, opened, state)
    entries = steps_run.write_weights(config, state.model.backbone, stated, state.history)
    numbers = {
        "images": catalog.used,
        "classes": len(catalog.classes),
        "parameters": recognizers.parameter_count(state.model.backbone),
        "epochs": config.epochs,
        "steps": state.step,
        "loss": state.history[-1]["loss"],
        "accuracy": state.history[-1]["accuracy"],
        **({"steps_by_workers": steps_by_workers(state.history)} if len(config.numerics.worlds) > 1 else {}),
        **facts,
    }
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    remove_checkpoints(config.output)
    return steps_run.result(config, numbers, started, cached=False)


def steps_by_workers(history: list[dict[str, Any]]) -> dict[str, int]:
    """How many steps of an elastic training a group of each size did."""
    total: Counter[str] = Counter()
    for epoch in history:
        total.update(epoch["workers"])
    return dict(sorted(total.items()))


def input_digests(config: TrainRecognizerConfig) -> dict[str, str]:
    """Content digests of the inputs; of a training to go on from, the digest of its newest checkpoint.

    Raises:
        InputError: an input is missing; no checkpoint to go on from, or one of another training.
    """
    digests = {
        path: listing_digest(uri) if path.startswith("sources.") else artifact.content_digest(uri)
        for path, uri in settings.input_uris(config).items()
        if path != CONTINUED
    }
    if config.continue_from is None:
        return digests
    checkpoint = loop.newest_checkpoint(uris.join(config.continue_from, distributed.CHECKPOINTS))
    if checkpoint is None:
        raise InputError(f"continue_from {config.continue_from}: no checkpoint of an unfinished training there")
    digests[CONTINUED] = artifact.sha256_hex(checkpoint)
    there = json.loads(uris.read_bytes(uris.join(config.continue_from, artifact.PLAN)))["config"]["fields"]
    here = settings.hashed_fields(config, digests)["fields"]
    aside = {"numerics": 0, CONTINUED: 0}
    changed = artifact.differences({**there, **aside}, {**here, **aside})
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise InputError(f"continue_from {config.continue_from}: another training. There -> asked now:\n{lines}")
    return digests


def weights_config(config: TrainRecognizerConfig, opened: artifact.Opened, state: loop.State) -> weights.WeightsConfig:
    """What is stated beside the trained weights."""
    return weights.WeightsConfig(
        architecture=config.backbone,
        embedding_dim=config.dim,
        input_size=config.image_size,
        licence=config.licence,
        training_data=steps_run.training_data(config, opened.inputs),
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
