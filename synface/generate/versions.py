"""Versions of an images table: the same command continues; ``how.append`` adds identities or samples.

A version's plan holds the parts of all versions before it, each with its own configuration's hash, so that a shard is
made, checked and made again under the name that its rows carry. No image is made twice and no file moves: readers
of an earlier manifest find everything that it lists.
"""

import copy
from typing import Any

from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.generators import Description
from synface.generate.identities import Identities, input_digests
from synface.generate.plan import Part, ShardPlan, plan_shards
from synface.generate.scoring import Scorer
from synface.settings import config_hash
from synface.store import artifact

#: what may differ between two versions of a table; everything else is another table
GROWING = ("num_identities", "images_per_identity", "identities")
PARTS = "parts"


def open_table(
    config: GenerateConfig, description: Description, scorer: Scorer | None, identities: Identities
) -> tuple[artifact.Opened, ShardPlan]:
    """Claim the output, as its next version where that is asked, and say what of it is whose.

    Raises:
        InputError: another configuration owns the output, or what is asked is no growth of what stands there.
    """
    digests = input_digests(config, description, scorer)
    components = {description.name: description.version, "weights": description.weights_sha256}
    fields = artifact.asked_fields(config, digests, components)
    found = artifact.read_plan(config.output) if config.how.append else None
    if found is not None and config_hash(found["config"]) != config_hash(fields):
        _append(config, description, identities, found, fields)
    opened = artifact.open_output(config, digests, components)
    found = artifact.read_plan(config.output) or {}
    plan = _plan(found, config.output) or _fresh(config, description, identities.count)
    return opened, plan.named(opened.config_hash)


def _fresh(config: GenerateConfig, description: Description, count: int, before: ShardPlan | None = None) -> ShardPlan:
    return plan_shards(
        count, config.images_per_identity, config.images_per_shard, description.images_per_minute, before
    )


def _plan(found: dict[str, Any], output: str) -> ShardPlan | None:
    """The parts that a plan's file names; None for a first version."""
    if PARTS not in found:
        return None
    try:
        return ShardPlan(tuple(Part.from_list(part) for part in found[PARTS]))
    except (ValueError, TypeError) as error:
        raise InputError(f"{output}/{artifact.PLAN}: damaged plan ({error}); restore it from a copy") from error


def _append(
    config: GenerateConfig,
    description: Description,
    identities: Identities,
    found: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    """Keep the manifest that stands and write the plan of the next version."""
    old = found["config"]
    if _without_growth(old) != _without_growth(fields):
        return  # another table: open_output refuses it and shows the differences
    manifest = artifact.load_manifest(config.output)
    if manifest is None or manifest.config_hash != config_hash(old):
        raise InputError(
            f"{config.output}: the version that stands there is not finished; run its own command to the end, then "
            "append"
        )
    before = _plan(found, config.output)
    if before is None:
        first = config.model_copy(
            update={"images_per_identity": old["fields"].get("images_per_identity", _default("images_per_identity"))}
        )
        before = _fresh(first, description, int(manifest.numbers["identities"]))
    before = before.named(manifest.config_hash)
    _check_growth(config, description, identities, before, manifest)
    artifact.keep_version(config.output)
    plan = _fresh(config, description, identities.count, before)
    artifact.write_plan(config.output, fields, parts=[part.as_list() for part in plan.parts])


def _check_growth(
    config: GenerateConfig,
    description: Description,
    identities: Identities,
    before: ShardPlan,
    manifest: artifact.Manifest,
) -> None:
    there, asked = (before.identities, before.images_per_identity), (identities.count, config.images_per_identity)
    if asked[0] < there[0] or asked[1] < there[1]:
        raise InputError(
            f"how.append: {config.output} holds {there[0]} identities x {there[1]} images, asked are {asked[0]} x "
            f"{asked[1]}; a table only grows"
        )
    if before.shards != manifest.numbers["shards"]:
        raise InputError(
            f"how.append: {config.output} was made in {manifest.numbers['shards']} shards, this version of synface "
            f"plans {before.shards}; choose a new output"
        )
    if identities.digest(there[0]) != manifest.numbers.get("identities_sha256"):
        raise InputError(
            f"how.append: the first {there[0]} rows of {config.identities} are not the identities of {config.output}; "
            "append new identities behind the old ones, all else unchanged"
        )
    cone = config.variation.cone
    if cone is not None and cone.separate and asked[0] > there[0]:
        raise InputError(
            "how.append: variation.cone.separate bounds each cone by the nearest of all identities, so that more of "
            "them change the images that stand; choose a new output, or append samples only"
        )
    if description.negative is not None and asked[0] > there[0]:
        raise InputError(
            f"how.append: negative = {description.negative!r} picks among all identities of the run, so that more of "
            "them change the images that stand; choose a new output, or append samples only"
        )


def _without_growth(fields: dict[str, Any]) -> dict[str, Any]:
    rest = copy.deepcopy(fields)
    for name in GROWING:
        rest["fields"].pop(name, None)
    rest["fields"].get("scoring", {}).pop("references", None)  # they grow with the identities
    return rest


def _default(name: str) -> Any:
    return GenerateConfig.model_fields[name].default
