"""One shard through one generator: items to an images table. No Ray, no files."""

from typing import Any

import pyarrow as pa

from synface.generate.config import GenerateConfig
from synface.generate.generators import Description, Failure, Generator, Sample
from synface.generate.plan import Item
from synface.store import huggingface, images, schemas


def shard_schema(attributes: pa.StructType, description: Description) -> pa.Schema:
    """The images schema with the generator and the features of Hugging Face's reader in its metadata."""
    plain = schemas.images_schema(attributes)
    return schemas.images_schema(
        attributes,
        {
            "generator": description.name,
            "generator_version": description.version,
            "digital_source_type": description.source_type,
            **huggingface.metadata(plain),
        },
    )


def render_shard(
    generator: Generator, description: Description, config: GenerateConfig, config_hash: str, items: list[Item]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Render and encode `items`; also the list of those that failed, each with its key and the error.

    The table's bytes depend on the items alone: not on the micro-batch they came in (a generator must keep
    that promise), nor on which others failed.
    """
    size = config.numerics.micro_batch
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        for item, result in zip(batch, render_batch(generator, batch), strict=True):
            made = _row(item, result, description, config, config_hash)
            if isinstance(made, Failure):
                failed.append({"identity_id": item.identity.identity_id, "sample": item.sample, "error": made.error})
            else:
                rows.append(made)
    schema = shard_schema(generator.attributes, description)
    return pa.Table.from_pylist(rows, schema=schema), failed


def render_batch(generator: Generator, batch: list[Item]) -> list[Sample | Failure]:
    """One micro-batch; where it fails as a whole, each item by itself, so that one bad image costs one image."""
    try:
        results = generator.render(batch)
        if len(results) != len(batch):
            raise ValueError(f"the generator returned {len(results)} results for {len(batch)} items")
        return results
    except Exception as error:
        if len(batch) == 1:
            return [Failure(f"{type(error).__name__}: {error}")]
        return [result for item in batch for result in render_batch(generator, [item])]


def _row(
    item: Item, result: Sample | Failure, description: Description, config: GenerateConfig, config_hash: str
) -> dict[str, Any] | Failure:
    if isinstance(result, Failure):
        return result
    expected = (config.image_size, config.image_size, 3)
    if result.pixels.shape != expected:
        return Failure(f"image of shape {list(result.pixels.shape)}, expected {list(expected)}")
    try:
        data = images.encode(result.pixels, config.format, config.quality, description.source_type)
    except (ValueError, OSError) as error:
        return Failure(f"encoding: {error}")
    # by label: an identity_id may hold any characters
    name = f"{item.identity.label:07d}_{item.sample:05d}.{images.IMAGE_FORMATS[config.format]}"
    return {
        "image": {"bytes": data, "path": name},
        "label": item.identity.label,
        "identity_id": item.identity.identity_id,
        "sample": item.sample,
        "m": result.m,
        "similarity_target": result.similarity_target,
        "similarity_inquiry": None,
        "attributes": result.attributes or None,
        "seed": item.seed,
        "generator": description.name,
        "weights_sha256": description.weights_sha256,
        "config_hash": config_hash,
    }
