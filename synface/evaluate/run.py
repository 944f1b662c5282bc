"""``synface evaluate``: embed the benchmarks' pictures, score their pairs, write the numbers."""

import hashlib
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.evaluate import (
    catalog,
    distributed,
    embedding_cache,
    estimates,
    face_folder,
    groups,
    outcome,
    published,
    rendered,
    sources,
)
from synface.evaluate import heads_benchmark as hb
from synface.evaluate.config import EvaluateConfig
from synface.evaluate.verification import Measured, Protocol, measure
from synface.models import weights
from synface.ops.cluster import versions
from synface.ops.progress import Progress, say
from synface.store import artifact, cost, tables
from synface.store import uri as uris
from synface.store.formats.verification_bin import read_pack

KIND = "evaluation"


def plan(config: EvaluateConfig) -> dict[str, Any]:
    """What would be embedded and rendered; inputs are read and checked."""
    recognizer = weights.read_checked(config.weights)
    size = recognizer.input_size
    rows = {}
    for spec in catalog.parse_all(config.benchmarks):
        if spec.uri is not None:
            pack = read_pack(spec.uri)
            rows[spec.name] = {"images": len(pack.encoded), "pairs": pack.pairs, "uri": spec.uri}
            continue
        stresses = sources.needed_stresses(spec.protocols)
        cold = [s for s in stresses if not rendered.is_cached(_cache(config), spec.name, s, size)]
        per_stress = hb.IDENTITIES * hb.PICTURES
        rows[spec.name] = {
            "images": per_stress * len(stresses),
            "pairs": 6000 * len(spec.protocols),
            "images_to_render": per_stress * len(cold),
            "sha256": hb.pinned(spec.name)["sha256"],
        }
    return {
        "weights_sha256": recognizer.sha256,
        "image_size": size,
        "benchmarks": rows,
        "forward_passes": 2 * sum(row["images"] for row in rows.values()),
        "estimate": estimates.estimate(config, sum(row["images"] for row in rows.values()), cost.Traffic(), flip=True),
    }


def pictures_of(config: EvaluateConfig) -> int:
    """Pictures of all benchmarks, before any weights are known."""
    return sum(
        len(read_pack(spec.uri).encoded)
        if spec.uri is not None
        else hb.IDENTITIES * hb.PICTURES * len(sources.needed_stresses(spec.protocols))
        for spec in catalog.parse_all(config.benchmarks)
    )


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, or answer from the finished output.

    Raises:
        InputError: weights or benchmarks that cannot be read or used; see `plan`.
    """
    started = time.monotonic()
    recognizer = weights.read_checked(config.weights)
    specs = catalog.parse_all(config.benchmarks)
    packs = {spec.name: read_pack(spec.uri) for spec in specs if spec.uri is not None}
    hashed = config.model_copy(update={"benchmarks": tuple(_content_name(spec) for spec in specs)})
    digests = {"weights": recognizer.sha256}
    if config.real is not None:
        digests["real"] = artifact.require(config.real, KIND).content_digest
    opened = artifact.open_output(hashed, digests)
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, True, started)
    results: outcome.Results = {}
    provenance: dict[str, Any] = {}
    measured: list[tuple[str, Protocol, Measured]] = []
    with embedding_cache.opened(_cache(config), config.how.embeddings_gb) as kept:
        for spec in specs:
            if spec.name in packs:
                benchmark = sources.from_pack(spec, packs[spec.name])
                provenance[spec.name] = {"sha256": artifact.content_digest(str(spec.uri))}
            else:
                benchmark = _rendered(config, spec, recognizer.input_size)
                provenance[spec.name] = {"sha256": hb.pinned(spec.name)["sha256"]}
            provenance[spec.name] |= {"image_size": benchmark.side, "images": len(benchmark.encoded)}
            for protocol, scored in _evaluate(config, recognizer, benchmark, kept):
                measured.append((spec.name, protocol, scored))
                results.setdefault(spec.name, {})[protocol.name] = scored.numbers
    content = outcome.results_content(results, provenance, recognizer, config.far_rule)
    content |= _comparisons(config, results)
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    files = [
        artifact.write_file(config.output, outcome.RESULTS_FILE, (text + "\n").encode()),
        _write_table(config, outcome.SCORES_FILE, outcome.scores_table(measured)),
        _write_table(config, outcome.ROC_FILE, outcome.roc_table(measured)),
    ]
    numbers = _numbers(results, content["average"])
    artifact.commit(hashed, opened, KIND, files, numbers, versions())
    return _result(config, numbers, False, started)


def _comparisons(config: EvaluateConfig, results: outcome.Results) -> dict[str, Any]:
    """Statistics over groups of people, and the gap to real, where there are any.

    Raises:
        InputError: the evaluation to compare with has no protocol in common.
    """
    found: dict[str, Any] = {}
    spread = groups.over_slices(results) | groups.over_benchmarks(results, config.groups)
    if spread:
        found["groups"] = spread
    if config.real is not None:
        real = json.loads(uris.read_bytes(uris.join(config.real, outcome.RESULTS_FILE)))
        try:
            found["gap_to_real"] = published.gaps(real["results"], results)
        except ValueError as error:
            raise InputError(f"real {config.real}: {error}") from error
    return found


def _content_name(spec: catalog.Spec) -> str:
    """A benchmark by what it holds, not where it stands: equal content gives an equal configuration hash."""
    content = hb.pinned(spec.name)["sha256"] if spec.is_heads else artifact.content_digest(str(spec.uri))
    protocols = "" if not spec.is_heads or spec.protocols == catalog.PROTOCOLS else "/" + "+".join(spec.protocols)
    return f"{spec.name}{protocols}@{content}"


def _cache(config: EvaluateConfig) -> str:
    return config.how.cache or catalog.cache_folder()


def _rendered(config: EvaluateConfig, spec: catalog.Spec, size: int) -> sources.Benchmark:
    cache = _cache(config)
    encoded = {s: rendered.load(cache, spec.name, s, size) for s in sources.needed_stresses(spec.protocols)}
    return sources.from_renders(spec, encoded, size, spec.name)


def _evaluate(
    config: EvaluateConfig, recognizer: weights.WeightsConfig, benchmark: sources.Benchmark, kept: str | None
) -> list[tuple[Protocol, Measured]]:
    embedding = _embeddings(config, recognizer, benchmark, kept)
    found = []
    for protocol in benchmark.protocols:
        scored = measure(embedding, protocol, config.far, config.far_rule)
        found.append((protocol, scored))
        say(f"evaluate: {benchmark.name}/{protocol.name} {summary(scored.numbers)}")
    return found


def _embeddings(
    config: EvaluateConfig, recognizer: weights.WeightsConfig, benchmark: sources.Benchmark, kept: str | None
) -> np.ndarray:
    """The benchmark's embeddings float64 [n, d]: those that are kept in the folder `kept`, else made and kept."""
    numerics = config.numerics.model_dump()
    digests = (hashlib.sha256(data).digest() for data in benchmark.encoded)
    key = embedding_cache.key(digests, benchmark.side, True, recognizer, numerics)
    progress = Progress(f"embed {benchmark.name}", len(benchmark.encoded), "pictures")

    def make() -> np.ndarray:
        with distributed.EmbedPool(weights.locate(config.weights), numerics, config.how) as pool:
            made = pool.embed(benchmark.encoded, benchmark.side, benchmark.where, progress)
        face_folder.check_embeddings(made, config.weights, benchmark.where)
        return made

    return embedding_cache.kept_or_made(kept, key, config.how.embeddings_gb, progress, make)


def summary(numbers: dict[str, Any]) -> str:
    """One protocol's main numbers in a line."""
    tar = ", ".join(f"TAR@FAR={far} {100 * p['tar']:.2f}" for far, p in numbers["tar_at_far"].items())
    accuracy = f"accuracy {100 * numbers['accuracy']:.2f} +- {100 * numbers['accuracy_std']:.2f}"
    return f"{accuracy}, AUC {numbers['auc']:.4f}, EER {100 * numbers['eer']:.2f}, {tar}"


def _numbers(results: outcome.Results, mean: dict[str, Any]) -> dict[str, Any]:
    accuracy = {f"{b}/{p}": row["accuracy"] for b, protocols in results.items() for p, row in protocols.items()}
    return {"accuracy": accuracy, "average": {name: row["accuracy"] for name, row in mean.items()}}


def _result(config: EvaluateConfig, numbers: dict[str, Any], cached: bool, started: float) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}


def _write_table(config: EvaluateConfig, path: str, table: pa.Table) -> artifact.FileEntry:
    return artifact.write_file(config.output, path, tables.parquet_bytes(table), table.num_rows)
