"""One shard through one generator: items to an images table. No Ray, no files."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from synface.generate import scoring
from synface.generate.config import GenerateConfig
from synface.generate.generators import Description, Failure, Generator, Sample
from synface.generate.plan import Item
from synface.generate.scoring import Judge, Scorer
from synface.store import huggingface, images, ledger, schemas

Row = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A filter refused the image; another key may do better."""

    reason: str


def shard_schema(attributes: pa.StructType, description: Description, scorer: Scorer | None = None) -> pa.Schema:
    """The images schema with generator, scorer and the features of Hugging Face's reader in its metadata."""
    scored = scorer is not None
    plain = schemas.images_schema(attributes, scored=scored)
    metadata = {
        "generator": description.name,
        "generator_version": description.version,
        "digital_source_type": description.source_type,
        **huggingface.metadata(plain),
        **({} if scorer is None else scorer.metadata),
    }
    return schemas.images_schema(attributes, metadata, scored)


def render_shard(
    generator: Generator,
    description: Description,
    config: GenerateConfig,
    config_hash: str,
    items: list[Item],
    judge: Judge | None = None,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Render, encode and score `items`; also the list of those that are left out, each with its key and why.

    An image that a filter refuses is made again under the key of its next attempt, `config.scoring.attempts` times in
    all. The table's bytes depend on the items alone: not on the micro-batch they came in (a generator must keep that
    promise), nor on which others failed or were made again.
    """
    size = config.numerics.micro_batch
    rows: dict[int, Row] = {}
    left_out: dict[int, dict[str, Any]] = {}
    waiting = dict(enumerate(items))
    for attempt in range(1, config.scoring.attempts + 1):
        again: dict[int, Item] = {}
        places = list(waiting)
        for part in (places[start : start + size] for start in range(0, len(places), size)):
            batch = [waiting[place] for place in part]
            made = make_batch(generator, description, config, config_hash, batch, judge)
            for place, item, result in zip(part, batch, made, strict=True):
                key = (item.identity.identity_id, item.sample)
                if isinstance(result, Failure):
                    left_out[place] = ledger.failure(*key, result.error)
                elif not isinstance(result, Refusal):
                    rows[place] = result
                elif attempt < config.scoring.attempts:
                    again[place] = item.again()
                else:
                    reason = f"refused {attempt} times, the last time: {result.reason}"
                    left_out[place] = ledger.failure(*key, reason, refused=True)
        waiting = again
    schema = shard_schema(generator.attributes, description, None if judge is None else judge.scorer)
    table = pa.Table.from_pylist([rows[place] for place in sorted(rows)], schema=schema)
    return table, [left_out[place] for place in sorted(left_out)]


def make_batch(
    generator: Generator,
    description: Description,
    config: GenerateConfig,
    config_hash: str,
    batch: list[Item],
    judge: Judge | None,
) -> list[Row | Failure | Refusal]:
    """One micro-batch: rendered, encoded, scored and filtered."""
    samples = render_batch(generator, batch)
    made: list[Row | Failure | Refusal] = [
        _row(item, sample, description, config, config_hash) for item, sample in zip(batch, samples, strict=True)
    ]
    if judge is None:
        return made
    good = [i for i, row in enumerate(made) if isinstance(row, dict)]
    scores = judge.measure([made[i]["image"]["bytes"] for i in good], [batch[i].identity for i in good])  # type: ignore[index]
    for i, score in zip(good, scores, strict=True):
        sample = samples[i]
        assert isinstance(sample, Sample)
        reason = None if sample.copied else scoring.refusal(score, config.scoring, sample.similarity_target)
        made[i] = {**made[i], **score.columns, "attempt": batch[i].attempt} if reason is None else Refusal(reason)  # type: ignore[dict-item]
    return made


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
) -> Row | Failure:
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
