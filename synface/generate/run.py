"""The verb ``generate``: plan -> execute -> card -> commit."""

import time
from typing import Any

from synface.core.errors import PartialError, SynfaceError
from synface.generate.config import GenerateConfig
from synface.generate.distributed import generate
from synface.generate.generators import Description, find_generator
from synface.generate.identities import Identities, input_digests, open_identities
from synface.generate.plan import ShardPlan, plan_shards
from synface.ops import cluster
from synface.store import artifact, card, ledger
from synface.store import uri as uris

KIND = "images"


def plan(config: GenerateConfig) -> dict[str, Any]:
    """What would be made, without making it; the inputs are read and checked."""
    _, description, identities, shards = _prepare(config)
    return {
        "identities": identities.count,
        "images": shards.images,
        "shards": shards.shards,
        "images_per_shard": shards.images_in(0),
        "generator": description.name,
        "weights_sha256": description.weights_sha256,
        "licence": description.licence,
        "core_minutes": round(shards.images / description.images_per_minute, 2),
    }


def run(config: GenerateConfig) -> dict[str, Any]:
    """Make the images table at `config.output`; finished shards are kept, a finished table answers at once.

    Raises:
        PartialError: some images could not be made (they stand in the ledger with their keys; the table
            without them is whole and readable), or the time budget is over.
        InputError: refused input, before any work.
    """
    started = time.monotonic()
    config = config.model_copy(update={"output": uris.absolute(config.output)})
    _, description, identities, shards = _prepare(config)
    components = {description.name: description.version, "weights": description.weights_sha256}
    opened = artifact.open_output(config, input_digests(config, description), components=components)
    if opened.finished is not None and not opened.finished.numbers["failed"]:
        return _result(config, opened.finished.numbers, started, cached=True)
    ledger.write_work(config.output, shards.shards, shards.images)
    versions = cluster.versions() | {f"generator:{description.name}": description.version}
    entries = generate(config, opened.config_hash, identities, shards, versions)
    numbers = _commit(config, opened, description, shards, entries, versions)
    result = _result(config, numbers, started, cached=False)
    if numbers["failed"]:
        error = PartialError(
            f"{config.output}: {numbers['failed']} of {shards.images} images could not be made; the others are "
            f"whole and readable. First: {numbers['first_failure']}. The same command tries them again"
        )
        error.numbers = result  # type: ignore[attr-defined]
        raise error
    return result


def _prepare(config: GenerateConfig) -> tuple[Any, Description, Identities, ShardPlan]:
    kind = find_generator(config.generator)
    description = kind.describe(config)
    if config.num_identities is not None:
        kind.own_identities(config, range(1))
    identities = open_identities(config, description)
    shards = plan_shards(
        identities.count, config.images_per_identity, config.images_per_shard, description.images_per_minute
    )
    return kind, description, identities, shards


def _commit(
    config: GenerateConfig,
    opened: artifact.Opened,
    description: Description,
    shards: ShardPlan,
    entries: dict[int, ledger.ShardEntry],
    versions: dict[str, str],
) -> dict[str, Any]:
    """The card, then the manifest, from the ledger's entries."""
    missing = [s for s in range(shards.shards) if s not in entries]
    if missing:
        raise SynfaceError(f"{config.output}: shards {missing[:8]} are not in the ledger; run the same command again")
    made = [entries[s] for s in range(shards.shards)]
    failed = [f for e in made for f in e.failed]
    numbers = {
        "images": sum(e.rows for e in made),
        "identities": shards.identities,
        "shards": shards.shards,
        "bytes": sum(e.bytes for e in made),
        "failed": len(failed),
        "generator": description.name,
        "weights_sha256": description.weights_sha256,
        "image_size": config.image_size,
        "licence": description.licence,
        "sources": description.sources,
        "source_type": description.source_type,
    }
    if failed:
        first = failed[0]
        numbers["first_failure"] = f"{first['identity_id']}, sample {first['sample']}: {first['error']}"
    files = [e.file for e in made]
    manifest = artifact.build_manifest(config, opened, KIND, files, numbers, versions)
    card.write_card(config.output, manifest)
    artifact.write_manifest(config.output, manifest)
    return numbers


def _result(config: GenerateConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
