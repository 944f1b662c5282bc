"""The verb ``embed``: plan, embed what is missing, write the identities table."""

import io
import time
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.embed import distributed, means, sources
from synface.embed.config import EmbedConfig
from synface.embed.distributed import Embedded
from synface.models import weights
from synface.ops.cluster import versions
from synface.ops.progress import Progress
from synface.store import artifact, cost, tables
from synface.store import uri as uris
from synface.store.schemas import embeddings, identities_table

PARTS = "_synface/parts"


def plan(config: EmbedConfig) -> dict[str, Any]:
    """How many images in how many parts would be embedded."""
    recognizer = weights.read_checked(config.weights)
    source = open_source(config)
    return {
        "images": source.images,
        "parts": len(source.parts),
        "image_size": recognizer.input_size,
        "embedding_dim": recognizer.embedding_dim,
        "weights_sha256": recognizer.sha256,
        "estimate": estimate(config, source_table(source), recognizer.embedding_dim),
    }


def source_table(source: sources.Source) -> cost.Table:
    """What is read; the bytes of a plain folder are unknown before."""
    sizes = [part.entry.bytes for part in source.parts if part.entry is not None]
    return cost.Table(source.images, len(source.parts), sum(sizes) if len(sizes) == len(source.parts) else None)


def estimate(config: EmbedConfig, table: cost.Table, dim: int) -> dict[str, Any]:
    """Hours, requests and bytes of a fresh run (`store.cost`); each part's embeddings are kept until the end."""
    gpu = config.numerics.device == "cuda"
    cpus, gpus = (0.0, config.how.gpus_per_actor) if gpu else (float(config.numerics.threads), 0.0)
    taken = table.read()
    kept = cost.written(4 * dim * -(-table.images // table.shards)) * table.shards
    traffic = None if taken is None else taken + kept + cost.written(4 * dim * table.images)
    amount = table.images * (2 if config.flip else 1)
    return cost.estimate(
        amount, "forward passes", cost.rate_of(config.how.rate), cpus, gpus, traffic, workers=config.how.actors
    )


def run(config: EmbedConfig) -> dict[str, Any]:
    """Embed, or answer at once where this embedding is finished.

    Each part's embeddings are kept until the end: a killed run continues with the parts that are missing.

    Returns:
        uri, identities, images, embedding_dim, seconds, cached.
    """
    started = time.monotonic()
    recognizer = weights.read_checked(config.weights)
    source = open_source(config)
    opened = artifact.open_output(config, {"images": source.digest, "weights": recognizer.sha256})
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, started, cached=True)
    found = dict(enumerate(source.parts))
    done = {i: kept for i, part in found.items() if (kept := load_part(config.output, i, part)) is not None}
    progress = Progress("embed", source.images, "images", done=sum(len(e.sample) for e in done.values()))
    folder = uris.absolute(weights.locate(config.weights))
    missing = {i: part for i, part in found.items() if i not in done}
    for number, result in distributed.embed_parts(config, folder, missing):
        save_part(config.output, number, found[number], result)
        done[number] = result
        progress.advance_or_stop(len(result.sample))
    table, images = build_table(config, recognizer, [done[i] for i in sorted(done)])
    entries = [tables.write_identities(config.output, table)]
    if config.similarities:
        entries.append(write_similarities(config.output, table, [done[i] for i in sorted(done)], source.digest))
    numbers = {"identities": table.num_rows, "images": images, "embedding_dim": recognizer.embedding_dim}
    artifact.commit(config, opened, "identities", entries, numbers, versions())
    remove_parts(config.output)
    return _result(config, numbers, started, cached=False)


def open_source(config: EmbedConfig) -> sources.Source:
    """The images; InputError where similarities of a plain folder are asked, whose order no other stage knows."""
    if config.similarities:
        artifact.require(config.images, "images")
    return sources.open_source(config.images)


def build_table(config: EmbedConfig, recognizer: weights.WeightsConfig, parts: list[Embedded]) -> tuple[pa.Table, int]:
    """The identities table, sorted by identity_id, and the number of images that it stands on."""
    identity = [name for part in parts for name in part.identity_id]
    if not identity:
        raise InputError(f"{config.images}: no images to embed")
    sample = np.concatenate([part.sample for part in parts])
    embedding = np.concatenate([part.embedding for part in parts])
    source = [name for part in parts for name in part.source]
    seed = np.concatenate([part.seed for part in parts])
    rows = means.first_samples(identity, sample, config.images_per_identity)
    first = [int(index[0]) for index in rows.values()]
    metadata = {
        "embedder": config.weights if config.weights in weights.PRETRAINED else recognizer.architecture,
        "embedder_sha256": recognizer.sha256,
        "crop": f"{recognizer.crop} {recognizer.input_size}",
        "flip": str(config.flip).lower(),
    }
    table = identities_table(
        list(rows), means.identity_means(embedding, rows), [source[i] for i in first], seed[first], metadata
    )
    return table, int(sum(len(index) for index in rows.values()))


def write_similarities(output: str, table: pa.Table, parts: list[Embedded], digest: str) -> artifact.FileEntry:
    """Each image's cosine to its identity's mean direction, in float64, in the order of the images table."""
    row = {name: i for i, name in enumerate(table["identity_id"].to_pylist())}
    identity = [name for part in parts for name in part.identity_id]
    mean_nd = embeddings(table).astype(np.float64)[[row[name] for name in identity]]
    x_nd = np.concatenate([part.embedding for part in parts]).astype(np.float64)
    return tables.write_similarities(output, identity, np.einsum("nd,nd->n", x_nd, mean_nd), digest)


def part_path(number: int, part: sources.Part) -> str:
    """Named by number and content of what was embedded."""
    return f"{PARTS}/{number:05d}-{part.digest[:12]}.npz"


def save_part(output: str, number: int, part: sources.Part, result: Embedded) -> None:
    """Keep one part's embeddings until the table is written."""
    sink = io.BytesIO()
    np.savez(
        sink,
        identity_id=np.array(result.identity_id, np.str_),
        sample=result.sample,
        seed=result.seed,
        source=np.array(result.source, np.str_),
        embedding=result.embedding,
    )
    uris.write_bytes(uris.join(output, part_path(number, part)), sink.getvalue())


def load_part(output: str, number: int, part: sources.Part) -> Embedded | None:
    """A kept part; None where there is none or it cannot be read."""
    place = uris.join(output, part_path(number, part))
    if not uris.exists(place):
        return None
    try:
        with np.load(io.BytesIO(uris.read_bytes(place)), allow_pickle=False) as saved:
            return Embedded(
                saved["identity_id"].tolist(),
                saved["sample"],
                saved["seed"],
                saved["source"].tolist(),
                saved["embedding"],
            )
    except (ValueError, KeyError, OSError, EOFError):
        return None


def remove_parts(output: str) -> None:
    """Drop what only an interrupted run needs."""
    uris.delete_files(uris.join(output, PARTS))


def _result(config: EmbedConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
