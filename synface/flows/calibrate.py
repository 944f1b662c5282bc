"""``synface calibrate``: measure what asked m realises, fit the dial, and test it on other people.

Two runs of the stages generate and embed: a grid of m on some identities, the same noise along a row; then the
targets, asked through the fitted dial, on others. The result is the weights again, with the dial in their
config.json and the measurements beside it.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core import dial, sphere
from synface.core.errors import InputError
from synface.embed import distributed as embedding
from synface.embed import sources
from synface.flows import sampling
from synface.flows.calibrate_config import CalibrateConfig
from synface.generate import run as generate
from synface.generate.generators.diffusion import resolve
from synface.models import weights
from synface.models.denoisers import generator as generators
from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.store import artifact, cost, schemas, tables
from synface.store import uri as uris

KIND = "generator"
WORK = "_synface/calibrate"
FILE = "calibration.json"


@dataclass(frozen=True)
class Measured:
    """Similarities of samples to their inquiries, and whether they are nearer to another one.

    Both are [people, asked, samples].
    """

    realised_igk: np.ndarray
    mislabelled_igk: np.ndarray

    def curve(self, asked_g: np.ndarray) -> list[dict[str, float]]:
        """One line per asked value: all that must be read together."""
        return [
            {
                "asked": round(float(a), 6),
                "realised": round(float(self.realised_igk[:, g].mean()), 6),
                "std_of_identity_means": round(float(self.realised_igk[:, g].mean(1).std()), 6),
                "std_of_samples": round(float(np.sqrt(self.realised_igk[:, g].var(1, ddof=1).mean())), 6),
                "mislabelled": round(float(self.mislabelled_igk[:, g].mean()), 6),
            }
            for g, a in enumerate(asked_g)
        ]


def plan(config: CalibrateConfig) -> dict[str, Any]:
    """How many images would be made, and what that takes; the inputs are read and checked."""
    stated, people = _check(config)
    asked = {"m": _schedule(np.array(config.m_range))}  # any: a target costs what an m costs
    parts = {
        "grid": sampling.estimate(config, config.num_identities, config.m_count * config.samples, asked),
        "targets": sampling.estimate(config, config.test_identities, len(config.targets) * config.samples, asked),
    }
    return {
        "weights_sha256": stated.sha256,
        "identities": people.num_rows,
        "images": config.num_identities * config.m_count * config.samples
        + config.test_identities * len(config.targets) * config.samples,
        "sampler": _sampler(config, stated),
        "estimate": {**parts, "total": cost.total(e for part in parts.values() for e in part.values())},
    }


def run(config: CalibrateConfig) -> dict[str, Any]:
    """Calibrate, or answer at once where this calibration is finished.

    Returns:
        uri, dial_slope (realised over asked m from 0 on), reach, and of the targets: mean absolute error, bias,
        spread of a sample, share of identities that rise with every target, slope, mislabel rate; whether a dial per
        identity would pay; seconds, cached.

    Raises:
        InputError: weights, scorer and identities that do not belong together; too few identities; a dial that
            reaches fewer than two of the targets.
    """
    started = time.monotonic()
    stated, people = _check(config)
    digests = {
        "weights": artifact.sha256_hex(weights.config_bytes(stated)),
        "identities": artifact.content_digest(config.identities),
        "scorer": weights.read_config(config.scorer).sha256,
    }
    opened = artifact.open_output(config, digests)
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, started, cached=True)
    grid_g = np.round(np.linspace(*config.m_range, config.m_count), 6)
    first = people.slice(0, config.num_identities)
    seen = _measure(config, "grid", first, config.weights, {"m": _schedule(grid_g), "share_noise": True}, grid_g)
    fitted = dial.fit(grid_g, seen.realised_igk)
    low, high = float(fitted.curve_g[0]), float(fitted.curve_g[-1])
    slope = dial.dial_slope(grid_g, seen.realised_igk, max(0.0, config.m_range[0]), config.m_range[1])
    say(f"calibrate: m {grid_g[0]:g} to {grid_g[-1]:g} realises {low:.3f} to {high:.3f}, slope {slope:.3f}")
    target_t = np.array([t for t in config.targets if low <= t <= high])
    if len(target_t) < 2:
        raise InputError(
            f"targets {list(config.targets)}: the dial reaches [{low:.3f}, {high:.3f}], fewer than two of them; give "
            "targets inside, more guidance, or train longer"
        )
    with_dial = _with_dial(config, stated, fitted)
    place = uris.join(config.output, WORK, "weights")
    files = {
        weights.MODEL_FILE: uris.read_bytes(uris.join(weights.locate(config.weights), weights.MODEL_FILE)),
        weights.CONFIG_FILE: weights.config_bytes(with_dial),
    }
    for name, data in files.items():
        uris.write_bytes(uris.join(place, name), data)
    others = people.slice(config.num_identities, config.test_identities)
    tested = _measure(config, "targets", others, place, {"similarity": _schedule(target_t)}, target_t)
    error = dial.evaluate(target_t, tested.realised_igk)
    pays = dial.identity_pays(grid_g, seen.realised_igk) if config.samples >= 4 else None
    numbers = {
        "dial_slope": round(slope, 6),
        "reach": [round(low, 6), round(high, 6)],
        "unreachable_targets": [t for t in config.targets if not low <= t <= high],
        **{f"target_{k}": None if np.isnan(v) else round(v, 6) for k, v in dataclasses.asdict(error).items()},
        "mislabelled": round(float(tested.mislabelled_igk.mean()), 6),
        "error_without_and_with_identity_curves": None if pays is None else [round(x, 6) for x in pays],
    }
    table = {"grid": seen.curve(grid_g), "targets": tested.curve(target_t), "numbers": numbers}
    files[FILE] = (json.dumps(table, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    entries = [artifact.write_file(config.output, name, data) for name, data in files.items()]
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    uris.delete_files(uris.join(config.output, WORK))
    return _result(config, numbers, started, cached=False)


def _check(config: CalibrateConfig) -> tuple[weights.WeightsConfig, pa.Table]:
    """What is stated of the weights, and the people in order: those of the curve, then those of the test."""
    stated = weights.read_config(config.weights, generators.GENERATOR_KIND)
    scorer = weights.read_config(config.scorer)
    generators.check_embedder(stated, config.scorer, scorer.sha256)
    resolve(config.sampler, stated, config.numerics.micro_batch)
    table = tables.read_identities(config.identities)
    metadata = schemas.metadata_of(table.schema)
    generators.check_embedder(stated, metadata.get("embedder", "unknown"), metadata.get("embedder_sha256", ""))
    below = config.inquiries_below
    if below == "threshold":
        below = stated.details.get("inquiries", {}).get("threshold")
    if below is not None:
        table = table.take(pa.array(sphere.unique_rows(schemas.embeddings(table), below)))
    wanted = config.num_identities + config.test_identities
    if table.num_rows < wanted:
        raise InputError(
            f"identities {config.identities}: {table.num_rows} (after the filter, if one was asked), but "
            f"num_identities {config.num_identities} and test_identities {config.test_identities} need {wanted}"
        )
    return stated, table


def _sampler(config: CalibrateConfig, stated: weights.WeightsConfig) -> dict[str, Any]:
    settings = dataclasses.asdict(resolve(config.sampler, stated, config.numerics.micro_batch))
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items() if k != "micro_batch"}


def _with_dial(config: CalibrateConfig, stated: weights.WeightsConfig, fitted: dial.Dial) -> weights.WeightsConfig:
    used = _sampler(config, stated)
    counts = {"identities": config.num_identities, "samples": config.samples, "scorer": config.scorer}
    details = {**stated.details, "sampler": used, "dial": {**fitted.as_dict(), **counts, "sampler": used}}
    return dataclasses.replace(stated, details=details)


def _schedule(values: np.ndarray) -> dict[str, list[float]]:
    return {"schedule": [float(v) for v in values]}


def _measure(
    config: CalibrateConfig,
    name: str,
    people: pa.Table,
    weights_uri: str,
    variation: dict[str, Any],
    asked_g: np.ndarray,
) -> Measured:
    """Generate some people's samples at every asked value, embed them, and compare with their inquiries."""
    work = uris.join(config.output, WORK, name)
    place = f"{work}.parquet"
    uris.write_bytes(place, tables.parquet_bytes(people))
    count = len(asked_g) * config.samples
    made = sampling.generate_config(config, weights_uri, place, count, variation, work)
    generate.run(made)
    return compare(people, _embeddings(config, work), len(asked_g), config.samples)


def compare(people: pa.Table, found: dict[tuple[str, int], np.ndarray], asked: int, samples: int) -> Measured:
    """Similarities and mislabels of embedded samples; sample k of a person was asked value k modulo `asked`."""
    inquiry_id = schemas.embeddings(people)
    names = people["identity_id"].to_pylist()
    x_nd = np.stack([found[name, k] for name in names for k in range(asked * samples)])
    label_n = np.repeat(np.arange(len(names)), asked * samples)
    cosine_n = np.einsum("nd,nd->n", x_nd, inquiry_id[label_n])
    wrong_n = dial.mislabelled(x_nd, label_n, inquiry_id)

    def shaped(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(names), samples, asked).transpose(0, 2, 1)

    return Measured(shaped(cosine_n.astype(np.float64)), shaped(wrong_n))


def _embeddings(config: CalibrateConfig, images: str) -> dict[tuple[str, int], np.ndarray]:
    """The scorer's unit embedding of every image, by identity and sample."""
    source = sources.open_source(images)
    asked = sampling.embed_config(config, images, f"{images}-embedded")
    folder = uris.absolute(weights.locate(config.scorer))
    found: dict[tuple[str, int], np.ndarray] = {}
    for _, part in embedding.embed_parts(asked, folder, dict(enumerate(source.parts))):
        found |= {
            (name, int(sample)): x
            for name, sample, x in zip(part.identity_id, part.sample, part.embedding, strict=True)
        }
    return found


def _result(config: CalibrateConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
