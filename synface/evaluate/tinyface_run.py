"""``synface evaluate tinyface``: probes of low resolution in a gallery with distractors, rank-k.

The folder holds TinyFace's testing set as aligned crops in its own three folders; a file's name begins with its
identity and ``_`` (Cheng et al., "Low-resolution face recognition", ACCV 2018). Distractors have no identity.
"""

import json
import time
from typing import Any

import numpy as np

from synface.core import identification, scores
from synface.core.errors import InputError
from synface.evaluate import distributed, estimates, face_folder
from synface.evaluate.faces_config import EvaluateTinyfaceConfig
from synface.models import weights
from synface.ops.cluster import versions
from synface.ops.progress import Progress, say
from synface.store import artifact
from synface.store import uri as uris
from synface.store.formats.found import IMAGE_SUFFIXES, listing_digest

KIND = "tinyface_evaluation"
RESULTS_FILE = "results.json"
PROBE, MATCH, DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
NOBODY = -1


def plan(config: EvaluateTinyfaceConfig) -> dict[str, Any]:
    """How many images stand in the three folders."""
    names, _ = find_images(config.faces)
    found = counts(names) | {"estimate": estimates.estimate(config, len(names), None, config.flip)}
    return {"weights_sha256": weights.read_checked(config.weights).sha256, **found}


def counts(names: list[str]) -> dict[str, int]:
    """Images of each folder."""
    return {part: sum(n.startswith(f"{part}/") for n in names) for part in (PROBE, MATCH, DISTRACTOR)}


def find_images(folder: str) -> tuple[list[str], np.ndarray]:
    """Files below the three folders and their identities, int64 (distractors: -1).

    Raises:
        InputError: a folder without images, or a name without an identity.
    """
    names = [p for p, _ in uris.list_files(folder) if p.lower().endswith(IMAGE_SUFFIXES)]
    names = [p for p in names if p.split("/")[0] in (PROBE, MATCH, DISTRACTOR)]
    empty = [part for part, count in counts(names).items() if not count and part != DISTRACTOR]
    if empty:
        raise InputError(
            f"{folder}: no images in {empty[0]}/; TinyFace's testing set has {PROBE}, {MATCH}, {DISTRACTOR}"
        )
    labels = []
    for name in names:
        text = name.rsplit("/", 1)[-1].split("_")[0]
        if name.startswith(f"{DISTRACTOR}/"):
            labels.append(NOBODY)
        elif text.isdigit():
            labels.append(int(text))
        else:
            raise InputError(f"{folder}/{name}: the name must begin with the identity's number and _")
    return names, np.array(labels)


def run(config: EvaluateTinyfaceConfig) -> dict[str, Any]:
    """Evaluate, or answer from the finished output.

    Raises:
        InputError: weights or images that cannot be used.
    """
    started = time.monotonic()
    names, label = find_images(config.faces)
    stated = weights.read_checked(config.weights)
    digests = {"weights": stated.sha256, "faces": listing_digest(config.faces)}
    opened = artifact.open_output(config, digests)
    if opened.finished is not None:
        return face_folder.result(config, opened.finished.numbers, started, cached=True)
    progress = Progress("embed faces", len(names), "faces")
    with distributed.EmbedPool(weights.locate(config.weights), config.numerics.model_dump(), config.how) as pool:
        feature = np.concatenate(list(pool.faces(config.faces, names, None, config.flip, progress)))
    face_folder.check_embeddings(feature, config.weights, config.faces)
    unit = scores.unit_rows(feature).astype(np.float32)
    is_probe = np.array([n.startswith(f"{PROBE}/") for n in names])
    found = identification.search(unit[is_probe], label[is_probe], unit[~is_probe], label[~is_probe])
    if not found.mated_p.any():
        raise InputError(f"{config.faces}: no probe's identity stands in {MATCH}/")
    rates = {str(k): rate for k, rate in identification.rank_rates(found, config.ranks).items()}
    say("evaluate tinyface: " + ", ".join(f"rank-{k} {100 * rate:.2f}" for k, rate in rates.items()))
    content = {
        "rank": rates,
        "mated_probes": int(found.mated_p.sum()),
        **counts(names),
        "recognizer": {"sha256": stated.sha256, "architecture": stated.architecture},
    }
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"
    entries = [artifact.write_file(config.output, RESULTS_FILE, text.encode())]
    numbers = {"rank": rates}
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    return face_folder.result(config, numbers, started, cached=False)
