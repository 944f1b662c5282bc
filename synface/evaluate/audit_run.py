"""``synface audit``: embed a dataset, state what it is like, and look for leaked people."""

import contextlib
import functools
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from synface.core import plugins
from synface.core.errors import InputError
from synface.core.sphere import nearest_cosine
from synface.evaluate import audit, catalog, distributed, embedding_cache, estimates, face_folder, style
from synface.evaluate.audit_config import AuditConfig
from synface.models import weights
from synface.ops.cluster import versions
from synface.ops.progress import Progress, say
from synface.store import artifact, cost, schemas, tables
from synface.store.formats.verification_bin import decode_image

#: (encoded pictures, their sha256, their side, where they are from, progress) -> unit rows float64 [n, d]
Embed = Callable[[list[bytes], list[bytes], int, str, Progress], np.ndarray]
KIND = "audit"
AUDIT_FILE = "audit.json"
LEAKS_FILE = "data/leaks.parquet"
SHEET_FILE = "worst_pairs.png"
TILE_PIXELS = 96


@dataclass(frozen=True)
class Embedded:
    """A dataset's embeddings: rows in the table's order, labels numbered by first appearance."""

    uri: str
    x_nd: np.ndarray  # float32
    label_n: np.ndarray
    names: tuple[str, ...]
    digests: tuple[bytes, ...]
    inquiry_n: np.ndarray | None


def plan(config: AuditConfig) -> dict[str, Any]:
    """How many images would be embedded and how many pairs looked at."""
    images = _rows(config.images)
    reference = _rows(config.reference) if config.reference else 0
    return {
        "weights_sha256": weights.read_checked(config.weights).sha256,
        "images": images,
        "reference_images": reference,
        "pairs": images * (images - 1) // 2 + images * reference,
        "estimate": estimates.estimate(config, images + reference, _read(config), config.flip),
    }


def _read(config: AuditConfig) -> cost.Traffic:
    uris_read = [config.images, *([config.reference] if config.reference else [])]
    files = [f for uri in uris_read for f in tables.listed_files(uri)]
    return cost.read(sum(f.bytes for f in files), len(files))


def _rows(uri: str) -> int:
    return int(artifact.require(uri, "images").numbers["images"])


def run(config: AuditConfig) -> dict[str, Any]:
    """Audit, or answer from the finished output."""
    started = time.monotonic()
    recognizer = weights.read_checked(config.weights)
    inputs = {"images": config.images, "identities": config.identities, "reference": config.reference}
    digests = {name: artifact.content_digest(uri) for name, uri in inputs.items() if uri is not None}
    opened = artifact.open_output(config, {**digests, "weights": recognizer.sha256})
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, True, started)
    target = check(config)
    extract = plugins.load("style", config.style) if config.style else None
    with embedder(config, recognizer) as embed:
        data = embed_table(embed, config.images, "audit")
        reference = embed_table(embed, config.reference, "reference") if config.reference else None
    numbers = statistics(config, data, target)
    files = []
    if reference is not None:
        numbers["leakage"], leaks = find_leaks(config, data, reference)
        numbers["frechet_distance"] = style.frechet_distance(data.x_nd, reference.x_nd)
        if extract is not None:
            numbers["style"] = {"extractor": config.style, **style.compare(extract, config.images, reference.uri)}
        pictures = tables.image_files(config.images, [k.sample for k in leaks])
        real = tables.image_files(reference.uri, [k.reference for k in leaks])
        table = leaks_table(leaks, data, reference)
        files += [
            artifact.write_file(config.output, LEAKS_FILE, tables.parquet_bytes(table), table.num_rows),
            artifact.write_file(
                config.output, SHEET_FILE, picture_sheet([(pictures[k.sample], real[k.reference]) for k in leaks])
            ),
        ]
    numbers["scorer_sha256"] = recognizer.sha256
    text = json.dumps(numbers, sort_keys=True, indent=1, allow_nan=False) + "\n"
    files.append(artifact.write_file(config.output, AUDIT_FILE, text.encode()))
    artifact.commit(config, opened, KIND, files, numbers, versions())
    return _result(config, numbers, False, started)


def _result(config: AuditConfig, numbers: dict[str, Any], cached: bool, started: float) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}


@contextlib.contextmanager
def embedder(config: AuditConfig, recognizer: weights.WeightsConfig) -> Iterator[Embed]:
    """Embeds the shards of tables: what is kept from other audits is read, and actors start for the rest alone."""
    numerics, limit = config.numerics.model_dump(), config.how.embeddings_gb
    with contextlib.ExitStack() as stack:
        cache = config.how.cache or catalog.cache_folder()
        kept = stack.enter_context(embedding_cache.opened(cache, limit))

        @functools.cache
        def pool() -> distributed.EmbedPool:
            made = distributed.EmbedPool(weights.locate(config.weights), numerics, config.how)
            return stack.enter_context(made)

        def embed(encoded: list[bytes], digests: list[bytes], side: int, where: str, progress: Progress) -> np.ndarray:
            def make() -> np.ndarray:
                made = pool().embed(encoded, side, where, progress, config.flip)
                face_folder.check_embeddings(made, config.weights, where)
                return made

            name = embedding_cache.key(digests, side, config.flip, recognizer, numerics)
            return embedding_cache.kept_or_made(kept, name, limit, progress, make)

        yield embed


def embed_table(embed: Embed, uri: str, label: str) -> Embedded:
    """Embed an images table shard after shard; only embeddings and digests stay in memory.

    Raises:
        InputError: images that cannot be decoded or differ in size; dead weights; an empty table.
    """
    progress = Progress(f"embed {label}", _rows(uri), "pictures")
    parts, names, digests, inquiry = [], [], [], []
    side: int | None = None
    for table in tables.iter_images(uri, ["image", "identity_id", "similarity_inquiry"]):
        encoded = [row["bytes"] for row in table["image"].to_pylist()]
        if not encoded:
            continue
        where = f"{uri} from row {len(names)} on"
        side = side or decode_image(encoded[0], f"{where}: image 0").width
        found = [hashlib.sha256(data).digest() for data in encoded]
        parts.append(embed(encoded, found, side, where, progress).astype(np.float32))
        names += table["identity_id"].to_pylist()
        digests += found
        inquiry.append(np.asarray(table["similarity_inquiry"].to_numpy(zero_copy_only=False), np.float64))
    if not parts:
        raise InputError(f"{uri}: the images table has no rows")
    x = np.concatenate(parts)
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    measured = np.concatenate(inquiry)
    return Embedded(
        uri,
        x,
        np.array([number[n] for n in names]),
        tuple(number),
        tuple(digests),
        measured if np.isfinite(measured).all() else None,
    )


def check(config: AuditConfig) -> np.ndarray | None:
    """Refuse, before any embedding, what cannot be audited; the identities' embeddings, row by label.

    Raises:
        InputError: fewer than two identities or no identity with two images; identities that the identities
            table does not hold, or of another dimension than the recognizer's.
    """
    names = [n for t in tables.iter_images(config.images, ["identity_id"]) for n in t["identity_id"].to_pylist()]
    different = list(dict.fromkeys(names))
    if len(different) < 2 or len(names) == len(different):
        raise InputError(
            f"{config.images}: {len(names)} images of {len(different)} identities; an audit needs two identities and "
            "two images of one of them"
        )
    if config.identities is None:
        return None
    table = tables.read_identities(config.identities, weights.read_config(config.weights).embedding_dim)
    row = {name: i for i, name in enumerate(table["identity_id"].to_pylist())}
    missing = [name for name in different if name not in row]
    if missing:
        raise InputError(
            f"{config.identities}: has no identity {missing[0]!r} ({len(missing)} of {len(different)} are missing); "
            "give the identities table that these images were made from"
        )
    return schemas.embeddings(table)[[row[name] for name in different]]


def statistics(config: AuditConfig, data: Embedded, target_cd: np.ndarray | None) -> dict[str, Any]:
    """Everything that needs no reference people; `target_cd` are the identities' own embeddings."""
    x, label = data.x_nd, data.label_n
    centre = audit.class_centres(x, label).astype(np.float32)
    nearest = nearest_cosine(centre)[0]
    numbers: dict[str, Any] = {
        "images": len(x),
        "identities": len(data.names),
        "r": config.r,
        "uniqueness": audit.unique_share(centre, config.r),
        "consistency": audit.intra_consistency(x, label, centre, config.r),
        "mislabel_rate": audit.mislabel_rate(x, label, centre),
        "inter_identity_max_cosine": float(nearest.max()),
        "inter_identity_mean_nearest_cosine": float(nearest.mean(dtype=np.float64)),
        "class_separability": _separability(centre),
        "pairs": audit.pair_histogram(x, label).numbers(),
        "duplicate_images": len(data.digests) - len(set(data.digests)),
    }
    kind, similarity = "class centre", np.einsum("nd,nd->n", x, centre[label])
    if target_cd is not None:
        similarity = np.einsum("nd,nd->n", x, target_cd[label])
        kind = "identity's embedding"
        asked = nearest_cosine(target_cd)[0]
        numbers["promised_max_cosine"] = float(asked.max())
        numbers["target_to_centre_cosine"] = float(np.einsum("cd,cd->c", centre, target_cd).mean(dtype=np.float64))
    if data.inquiry_n is not None:
        kind, similarity = "inquiry image", data.inquiry_n
    numbers["similarity"] = {"to": kind, **audit.similarity_statistics(similarity, label)}
    say(f"audit: uniqueness {numbers['uniqueness']:.4f}, consistency {numbers['consistency']:.4f}")
    return numbers


def _separability(centre_cd: np.ndarray) -> float:
    """Mean cosine distance of different class centres (VIGFace's S): from the sum of all, no matrix needed."""
    count = len(centre_cd)
    total = centre_cd.sum(0, dtype=np.float64)
    mean_cosine = (float(total @ total) - float(np.square(centre_cd, dtype=np.float64).sum())) / (count * (count - 1))
    return 1 - mean_cosine


def find_leaks(config: AuditConfig, data: Embedded, reference: Embedded) -> tuple[dict[str, Any], list[audit.Leak]]:
    """Every synthetic sample against every reference image, and against every reference person's centre."""
    if reference.x_nd.shape[1] != data.x_nd.shape[1]:
        raise AssertionError("one pool embeds both")
    if config.leak_cosine is not None:
        threshold, rule = config.leak_cosine, "given"
    else:
        try:
            threshold = audit.impostor_threshold(reference.x_nd, reference.label_n, config.leak_far)
        except ValueError as error:
            raise InputError(f"{reference.uri}: {error}; or give leak_cosine") from error
        rule = f"FAR {config.leak_far:g} among the reference people"
    cosine, index = distributed.nearest_reference(data.x_nd, reference.x_nd)
    numbers, worst = audit.leakage(cosine, index, data.label_n, threshold, config.worst_pairs)
    centre = audit.class_centres(reference.x_nd, reference.label_n).astype(np.float32)
    to_centre = distributed.nearest_reference(data.x_nd, centre)[0]
    own = nearest_cosine(centre)[0]
    numbers |= {
        "threshold_rule": rule,
        "reference_images": len(reference.x_nd),
        "reference_identities": len(reference.names),
        "leaking_samples_to_centres": int((to_centre >= threshold).sum()),
        "max_cosine_to_centre": float(to_centre.max()),
        "reference_max_cosine_between_centres": float(own.max()),
    }
    say(f"audit: {numbers['leaking_samples']} of {len(cosine)} samples at or above {threshold:.4f} ({rule})")
    return numbers, worst


def leaks_table(leaks: list[audit.Leak], data: Embedded, reference: Embedded) -> pa.Table:
    """The worst pairs: rows, identities and cosine."""
    return pa.table(
        {
            "sample_row": [k.sample for k in leaks],
            "identity_id": [data.names[data.label_n[k.sample]] for k in leaks],
            "reference_row": [k.reference for k in leaks],
            "reference_identity_id": [reference.names[reference.label_n[k.reference]] for k in leaks],
            "cosine": np.array([k.cosine for k in leaks]),
        }
    )


def picture_sheet(pairs: list[tuple[bytes, bytes]], columns: int = 5) -> bytes:
    """A PNG of (synthetic, reference) pairs side by side, the most alike first, `columns` pairs a row."""
    width, gap = 2 * TILE_PIXELS, 8
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (TILE_PIXELS + gap) + gap), "white")
    for i, pair in enumerate(pairs):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (TILE_PIXELS + gap)
        for side, data in enumerate(pair):
            tile = decode_image(data, "leak").resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BICUBIC)
            sheet.paste(tile, (left + side * TILE_PIXELS, top))
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()
