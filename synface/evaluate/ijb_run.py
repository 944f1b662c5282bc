"""``synface evaluate ijb``: faces -> templates -> 1:1 and 1:N numbers, streaming: no face's feature is kept."""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core import identification, scores
from synface.core.crops import ALIGNMENT
from synface.core.errors import InputError
from synface.evaluate import distributed, estimates, face_folder
from synface.evaluate.faces_config import EvaluateIjbConfig
from synface.evaluate.outcome import ROC_FILE, threshold_column
from synface.evaluate.templates import TemplateSums, pair_scores
from synface.evaluate.verification import point_numbers
from synface.models import weights
from synface.ops.cluster import versions
from synface.ops.progress import Progress, say
from synface.store import artifact, tables
from synface.store.formats import ijb
from synface.store.formats.found import listing_digest

KIND = "ijb_evaluation"
RESULTS_FILE = "results.json"


def plan(config: EvaluateIjbConfig) -> dict[str, Any]:
    """How many faces and pairs; the protocol files are read and checked."""
    files = ijb.find_files(config.protocol)
    faces = ijb.read_faces(files)
    return {
        "set": files.set_name,
        "weights_sha256": weights.read_checked(config.weights).sha256,
        "faces": len(faces.names),
        "templates": len(np.unique(faces.template_n)),
        "pairs": len(ijb.read_pairs(files)[0]),
        "galleries": len(files.galleries),
        "estimate": estimates.estimate(config, len(faces.names), None, config.flip),
    }


def run(config: EvaluateIjbConfig) -> dict[str, Any]:
    """Evaluate, or answer from the finished output.

    Raises:
        InputError: weights, protocol files or faces that cannot be used.
    """
    started = time.monotonic()
    files = ijb.find_files(config.protocol)
    stated = weights.read_checked(config.weights)
    digests = {
        "weights": stated.sha256,
        "faces": listing_digest(config.faces),
        "protocol": artifact.sha256_hex("".join(face_folder.file_digest(f) for f in files.all).encode()),
    }
    opened = artifact.open_output(config, digests, {"alignment": ALIGNMENT})
    if opened.finished is not None:
        return face_folder.result(config, opened.finished.numbers, started, cached=True)
    sums = embed(config, ijb.read_faces(files), stated.embedding_dim)
    unit = sums.unit()
    pairs, curve = verification(config, sums, unit, *ijb.read_pairs(files))
    found = identify(config, sums, unit, files)
    content = {
        "set": files.set_name,
        "verification": pairs,
        "identification": found,
        "far_rule": config.far_rule,
        "template": "sum over media of their faces' mean, normalised"
        + (", faces weighted by detector score" if config.detector_score else "")
        + (", norm kept" if config.keep_norm else ", unit faces"),
        "recognizer": {"sha256": stated.sha256, "architecture": stated.architecture},
    }
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"
    table = pa.table({"far": curve.far_k, "tar": curve.tar_k, "threshold": threshold_column(curve.threshold_k)})
    entries = [
        artifact.write_file(config.output, RESULTS_FILE, text.encode()),
        artifact.write_file(config.output, ROC_FILE, tables.parquet_bytes(table), table.num_rows),
    ]
    numbers = {"tar_at_far": {far: p["tar"] for far, p in pairs["tar_at_far"].items()}}
    numbers |= {"rank": found["mean"]["rank"]} if found else {}
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    return face_folder.result(config, numbers, started, cached=False)


def embed(config: EvaluateIjbConfig, faces: ijb.Faces, dim: int) -> TemplateSums:
    """Templates of all faces; each face's feature is added as it comes and forgotten."""
    sums = TemplateSums(faces.template_n, faces.media_n, dim)
    progress = Progress("embed faces", len(faces.names), "faces")
    first = 0
    with distributed.EmbedPool(weights.locate(config.weights), config.numerics.model_dump(), config.how) as pool:
        for feature in pool.faces(config.faces, faces.names, faces.landmark_n52, config.flip, progress):
            face_folder.check_embeddings(feature, config.weights, f"{config.faces} from {faces.names[first]} on")
            part = slice(first, first + len(feature))
            kept = feature if config.keep_norm else scores.unit_rows(feature)
            sums.add(first, kept, faces.score_n[part] if config.detector_score else None)
            first += len(feature)
    return sums


def verification(
    config: EvaluateIjbConfig, sums: TemplateSums, unit_td: np.ndarray, left: np.ndarray, right: np.ndarray,
    same_n: np.ndarray,
) -> tuple[dict[str, Any], scores.Roc]:  # fmt: skip
    """1:1 numbers and the corners of the ROC."""
    try:
        cosine = pair_scores(unit_td, sums.rows_of(left), sums.rows_of(right))
    except ValueError as error:
        raise InputError(f"{config.protocol}: {error}") from error
    genuine, impostor = np.sort(cosine[same_n]), np.sort(cosine[~same_n])
    curve = scores.corner_roc(genuine, impostor)
    points = {f"{f:g}": scores.sorted_point(genuine, impostor, f, config.far_rule) for f in config.far}
    numbers = {
        "pairs": len(cosine),
        "genuine": len(genuine),
        "impostor": len(impostor),
        "tar_at_far": {key: point_numbers(p) for key, p in points.items()},
        "eer": scores.eer(curve),
        "auc": scores.sorted_auc(genuine, impostor),
    }
    shown = ", ".join(f"TAR@FAR={far} {100 * p.tar:.2f}" for far, p in points.items())
    say(f"evaluate ijb: {shown}")
    return numbers, curve


def identify(
    config: EvaluateIjbConfig, sums: TemplateSums, unit_td: np.ndarray, files: ijb.Files
) -> dict[str, Any] | None:
    """1:N: the probes in each gallery alone, as the protocol says, and the mean over galleries; None without files."""
    if not files.galleries or files.probes is None:
        return None
    probe, probe_subject = ijb.read_subjects(files.probes)
    found: dict[str, Any] = {}
    try:
        probes = unit_td[sums.rows_of(probe)]
        for uri in files.galleries:
            template, subject = ijb.read_subjects(uri)
            searched = identification.search(probes, probe_subject, unit_td[sums.rows_of(template)], subject)
            rates = identification.rank_rates(searched, config.ranks)
            points = {f"{f:g}": identification.tpir_at_fpir(searched, f, config.far_rule) for f in config.fpir}
            found[uri.rsplit("_", 1)[-1].removesuffix(".csv")] = {
                "gallery": len(template),
                "probes": len(probe),
                "mated": int(searched.mated_p.sum()),
                "rank": {str(k): rate for k, rate in rates.items()},
                "tpir_at_fpir": {key: p.tar for key, p in points.items()},
            }
    except ValueError as error:
        raise InputError(f"{config.protocol}: {error}") from error
    galleries = list(found.values())
    found["mean"] = {
        kind: {k: float(np.mean([g[kind][k] for g in galleries])) for k in galleries[0][kind]}
        for kind in ("rank", "tpir_at_fpir")
    }
    say(f"evaluate ijb: rank-{config.ranks[0]} {100 * found['mean']['rank'][str(config.ranks[0])]:.2f}")
    return found
