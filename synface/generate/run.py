"""The verb ``generate``: plan -> execute -> card -> commit."""

import time
from typing import Any

from synface.core.errors import PartialError, SynfaceError
from synface.generate import scoring
from synface.generate.config import GenerateConfig
from synface.generate.distributed import bundles, generate
from synface.generate.estimate import gpu_estimate
from synface.generate.generators import Description, find_generator
from synface.generate.identities import Identities, open_identities
from synface.generate.plan import ShardPlan, plan_shards
from synface.generate.scoring import Scorer
from synface.generate.versions import open_table
from synface.ops import cluster
from synface.ops.runs import say
from synface.store import artifact, card, cost, erasure, ledger
from synface.store import uri as uris

KIND = "images"


def plan(config: GenerateConfig) -> dict[str, Any]:
    """What would be made, without making it; the inputs are read and checked."""
    description, scorer, identities = _prepare(config)
    shards = plan_shards(
        identities.count, config.images_per_identity, config.images_per_shard, description.images_per_minute
    )
    return {
        "identities": identities.count,
        "images": shards.images,
        "shards": shards.shards,
        "images_per_shard": shards.shard(0).images,
        "generator": description.name,
        "weights_sha256": description.weights_sha256,
        "scorer_sha256": None if scorer is None else scorer.sha256,
        "licence": description.licence,
        "core_minutes": round(shards.images / description.images_per_minute, 2),
        "estimate": estimate(config, description, shards),
        **_by_arithmetic(config, description, shards.images),
    }


def estimate(config: GenerateConfig, description: Description, shards: ShardPlan) -> dict[str, Any]:
    """Hours, requests and bytes of a fresh run (`store.cost`); the identities table, small beside them, left out."""
    actor, _ = bundles(config)
    own = None if actor["GPU"] else description.images_per_minute / 60
    rate = cost.rate_of(config.how.rate, own, f"measured once for {description.name} on one core, rounded down")
    size = table_size(config, shards).bytes
    traffic = None if size is None else cost.table_written(shards.shards, size)
    return cost.estimate(
        shards.images, "images", rate, actor["CPU"], actor["GPU"], traffic, workers=config.how.max_actors
    )


def table_size(config: GenerateConfig, shards: ShardPlan) -> cost.Table:
    """The images table as the next stage will read it."""
    each = cost.bytes_per_image(config.how.bytes_per_image, (config.format, config.quality), config.image_size)
    return cost.Table(shards.images, shards.shards, None if each is None else round(each * shards.images))


def _by_arithmetic(config: GenerateConfig, description: Description, images: int) -> dict[str, Any]:
    """GPU hours, where the generator knows its arithmetic."""
    if description.teraflop_per_image is None:
        return {}
    arithmetic = description.teraflop_per_image, description.network_gb
    return {"gpu_estimate": gpu_estimate(images, *arithmetic, config.how.cost_per_hour)}


def run(config: GenerateConfig) -> dict[str, Any]:
    """Make the images table at `config.output`; finished shards are kept, a finished table answers at once.

    Raises:
        PartialError: some images could not be made (they stand in the ledger with their keys; the table
            without them is whole and readable), or a budget is over.
        InputError: refused input, before any work.
    """
    started = time.monotonic()
    config = config.model_copy(update={"output": uris.absolute(config.output)})
    description, scorer, identities = _prepare(config)
    opened, shards = open_table(config, description, scorer, identities)
    if opened.finished is not None and not opened.finished.numbers["failed"]:
        return _result(config, opened.finished.numbers, started, cached=True)
    sources = "; ".join(f"{name}: {text}" for name, text in description.sources.items())
    say(f"generate: licence of the images: {description.licence} (made with {sources})")
    ledger.write_work(config.output, shards.shards, shards.images)
    versions = cluster.versions() | {f"generator:{description.name}": description.version}
    entries = generate(config, identities, shards, versions, erasure.erased(config.output))
    numbers = _numbers(config, description, scorer, identities, shards, entries)
    _commit(config, opened, entries, numbers, versions)
    result = _result(config, numbers, started, cached=False)
    if numbers["failed"]:
        error = PartialError(
            f"{config.output}: {numbers['failed']} of {shards.images} images could not be made; the others are "
            f"whole and readable. First: {numbers['first_failure']}. The same command tries them again"
        )
        error.numbers = result  # type: ignore[attr-defined]
        raise error
    return result


def _prepare(config: GenerateConfig) -> tuple[Description, Scorer | None, Identities]:
    """What is known before any work; everything that can be refused is."""
    kind = find_generator(config.generator)
    description = kind.describe(config)
    scoring.check(config)
    scorer = scoring.describe(config)
    if config.num_identities is not None and not config.contexts.uniform:
        kind.own_identities(config, range(1))
    return description, scorer, open_identities(config, description, scorer)


def _numbers(
    config: GenerateConfig,
    description: Description,
    scorer: Scorer | None,
    identities: Identities,
    shards: ShardPlan,
    entries: dict[int, ledger.ShardEntry],
) -> dict[str, Any]:
    """The result's main numbers, from the ledger's entries."""
    missing = [s for s in range(shards.shards) if s not in entries]
    if missing:
        raise SynfaceError(f"{config.output}: shards {missing[:8]} are not in the ledger; run the same command again")
    made = [entries[s] for s in range(shards.shards)]
    lost = [f for e in made for f in e.failed]
    failed = ledger.to_try_again(lost)
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
    digest = identities.digest(identities.count)
    if digest is not None:
        numbers["identities_sha256"] = digest
    if identities.groups is not None:
        numbers["groups"] = identities.groups
    if scorer is not None:
        numbers |= {"scorer": scorer.name, "scorer_sha256": scorer.sha256, "refused": len(lost) - len(failed)}
    if failed:
        first = failed[0]
        numbers["first_failure"] = f"{first['identity_id']}, sample {first['sample']}: {first['error']}"
    return numbers


def _commit(
    config: GenerateConfig,
    opened: artifact.Opened,
    entries: dict[int, ledger.ShardEntry],
    numbers: dict[str, Any],
    versions: dict[str, str],
) -> None:
    """The card, then the manifest."""
    earlier = artifact.earlier_versions(config.output)
    if earlier:
        numbers["version"] = max(earlier) + 1
    numbers |= erasure.numbers(config.output)
    files = ledger.files(config.output, entries)
    card.publish(config.output, artifact.build_manifest(config, opened, KIND, files, numbers, versions))


def _result(config: GenerateConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
