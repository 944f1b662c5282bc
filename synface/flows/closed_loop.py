"""``synface closed-loop``: generate, embed again, correct what is asked; keep the best round.

Packing in a learned embedding may leave what the generator can render: far apart as asked, alike as realised. So the
loop never trusts the asked embeddings: every round is judged by the identities as generated. Nor need it trust its
scorer, which it drives apart: an independent judge may say which rounds count.
"""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core import sphere
from synface.core.errors import InputError
from synface.embed import run as embed
from synface.flows import realised, sampling
from synface.flows.closed_loop_config import ClosedLoopConfig
from synface.generate import run as generate
from synface.generate.config import GenerateConfig
from synface.models import weights
from synface.models.denoisers import generator as generators
from synface.ops import signals
from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.pack import correction
from synface.store import artifact, cost, schemas, tables
from synface.store import uri as uris

KIND = "identities"
WORK = "_synface/closed_loop"
FILE = "closed_loop.json"
MARGIN = "judge_margin"
#: what a round's line says, of `realised.measured` and `realised.against_asked`
STATED = ("max_cosine", "mean_nearest_cosine", "cosine_to_asked_mean", "nearer_to_another")


def plan(config: ClosedLoopConfig) -> dict[str, Any]:
    """How many images would be made, and what that takes; the inputs are read and checked."""
    table = _check(config)
    generate.plan(_images(config, config.identities, config.output))
    a_round = sampling.estimate(config, table.num_rows, config.samples, config.variation)
    if config.judge is not None:
        a_round["judge"] = a_round["embed"]
    return {
        "identities": table.num_rows,
        "rounds": config.rounds,
        "images": (config.rounds + 1) * table.num_rows * config.samples,
        "estimate": {"a_round": a_round, "total": cost.total([*a_round.values()] * (config.rounds + 1))},
    }


def run(config: ClosedLoopConfig) -> dict[str, Any]:
    """Close the loop, or answer at once where this loop is finished; a killed one continues with its rounds.

    Returns:
        uri, num_identities, best_round, of the first and the best round (``first_*`` and plain): max_cosine and
        mean_nearest_cosine of the realised identities, cosine_to_asked_mean, nearer_to_another, judge_margin where
        there is a judge; seconds, cached.

    Raises:
        InputError: weights, scorer and identities that do not belong together, settings that the generator refuses.
    """
    started = time.monotonic()
    table = _check(config)
    digests = {
        "identities": artifact.content_digest(config.identities),
        "weights": artifact.sha256_hex(weights.config_bytes(weights.read_config(config.weights, "generator"))),
        "scorer": weights.read_config(config.scorer).sha256,
    }
    if config.judge is not None:
        digests["judge"] = weights.read_config(config.judge).sha256
    opened = artifact.open_output(config, digests)
    if opened.finished is not None:
        return _result(config, opened.finished.numbers, started, cached=True)
    wanted_nd = schemas.embeddings(table)
    rounds: list[tuple[np.ndarray, dict[str, Any]]] = []
    sent_nd = wanted_nd
    for number in range(config.rounds + 1):
        signals.check_stop()
        came_nd = _realise(config, table, sent_nd, number)
        rounds.append((sent_nd, _line(table, sent_nd, came_nd, wanted_nd) | _judged(config, number)))
        say(f"closed loop: round {number} of {config.rounds}: {rounds[-1][1]}")
        if number < config.rounds:
            sent_nd = step(config, sent_nd, came_nd, wanted_nd)
    lines = [line for _, line in rounds]
    best = best_round(lines, config.objective, config.least_followed)
    numbers = {
        "num_identities": table.num_rows,
        "best_round": best,
        **lines[best],
        **{f"first_{name}": value for name, value in lines[0].items()},
    }
    entries = [
        tables.write_identities(config.output, _with_embeddings(table, rounds[best][0])),
        artifact.write_file(config.output, FILE, (json.dumps(lines, indent=1, sort_keys=True) + "\n").encode()),
    ]
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    uris.delete_files(uris.join(config.output, WORK))
    return _result(config, numbers, started, cached=False)


def step(config: ClosedLoopConfig, sent_nd: np.ndarray, came_nd: np.ndarray, wanted_nd: np.ndarray) -> np.ndarray:
    """What the next round asks, unit rows float32 [n, d]."""
    if config.objective == "follow":
        return correction.follow(sent_nd, came_nd, wanted_nd, config.gain)
    return correction.spread(sent_nd, came_nd, config.angle, config.sharpness)


def best_round(lines: list[dict[str, Any]], objective: str, least_followed: float) -> int:
    """The round to keep, of those that still do as they are asked.

    spread: the least mean nearest cosine; follow: the largest mean cosine to the embeddings that were wanted. A round
    whose images no longer follow what is asked (garbage also spreads apart), or whose people an independent judge
    tells apart less well than the first's, does not count; the first always does.
    """
    floor, apart = least_followed * lines[0]["cosine_to_asked_mean"], lines[0].get(MARGIN, 0.0)
    kept = [
        i
        for i, line in enumerate(lines)
        if i == 0 or (line["cosine_to_asked_mean"] >= floor and line.get(MARGIN, 0.0) >= apart)
    ]
    if objective == "follow":
        return max(kept, key=lambda i: lines[i]["cosine_to_wanted_mean"])
    return min(kept, key=lambda i: lines[i]["mean_nearest_cosine"])


def _check(config: ClosedLoopConfig) -> pa.Table:
    stated = weights.read_config(config.weights, generators.GENERATOR_KIND)
    generators.check_embedder(stated, config.scorer, weights.read_config(config.scorer).sha256)
    table = tables.read_identities(config.identities)
    if table.num_rows < 2:
        raise InputError(f"identities {config.identities}: one identity; far apart needs at least two")
    if config.judge is not None:
        _check_judge(config, config.judge)
    metadata = schemas.metadata_of(table.schema)
    generators.check_embedder(stated, metadata.get("embedder", "unknown"), metadata.get("embedder_sha256", ""))
    return table


def _check_judge(config: ClosedLoopConfig, name: str) -> None:
    judge, scorer = weights.read_config(name), weights.read_config(config.scorer)
    if judge.sha256 == scorer.sha256:
        raise InputError(
            f"judge {name}: has the scorer's own weights, and would agree with it; give another recognizer"
        )
    size = weights.read_config(config.weights, generators.GENERATOR_KIND).input_size
    if judge.input_size != size:
        raise InputError(
            f"judge {name}: takes crops of {judge.input_size} pixels, the generator makes images of {size}; give a "
            "recognizer of that size"
        )


def _images(config: ClosedLoopConfig, identities: str, output: str) -> GenerateConfig:
    return sampling.generate_config(config, config.weights, identities, config.samples, config.variation, output)


def _realise(config: ClosedLoopConfig, table: pa.Table, sent_nd: np.ndarray, number: int) -> np.ndarray:
    """Generate a round and embed it: the identities' mean directions, in the table's order."""
    work = uris.join(config.output, WORK, f"round-{number:03d}")
    place = f"{work}.parquet"
    uris.write_bytes(place, tables.parquet_bytes(_with_embeddings(table, sent_nd)))
    generate.run(_images(config, place, work))
    asked = sampling.embed_config(config, work, f"{work}-embedded")
    found = tables.read_identities(embed.run(asked)["uri"])
    row = {name: i for i, name in enumerate(found["identity_id"].to_pylist())}
    names = table["identity_id"].to_pylist()
    missing = [name for name in names if name not in row]
    if missing:
        raise InputError(f"round {number}: no image of {len(missing)} identities, first {missing[0]!r}; ask for less")
    return schemas.embeddings(found)[[row[name] for name in names]]


def _judged(config: ClosedLoopConfig, number: int) -> dict[str, float]:
    """The judge's `margin` of a round's images."""
    if config.judge is None:
        return {}
    work = uris.join(config.output, WORK, f"round-{number:03d}")
    made = embed.run(sampling.embed_config(config, work, f"{work}-judged", config.judge))["uri"]
    own_n = tables.read_similarities(made)[1]
    return {MARGIN: round(margin(own_n, schemas.embeddings(tables.read_identities(made))), 6)}


def margin(own_n: np.ndarray, centre_id: np.ndarray) -> float:
    """How well people are told apart: images' mean cosine to their own person's centre [n], less the mean nearest
    cosine of the unit centres float32 [i, d].
    """
    return float(own_n.mean(dtype=np.float64) - sphere.nearest_cosine(centre_id)[0].mean(dtype=np.float64))


def _line(table: pa.Table, sent_nd: np.ndarray, came_nd: np.ndarray, wanted_nd: np.ndarray) -> dict[str, Any]:
    names = table["identity_id"].to_pylist()
    numbers = realised.measured(came_nd) | realised.against_asked(names, came_nd, names, sent_nd)
    wanted = float(np.einsum("nd,nd->n", came_nd.astype(np.float64), wanted_nd).mean())
    return {name: round(numbers[name], 6) for name in STATED} | {"cosine_to_wanted_mean": round(wanted, 6)}


def _with_embeddings(table: pa.Table, x_nd: np.ndarray) -> pa.Table:
    """The table's identities, asked by other embeddings; its per-identity numbers held for the old ones."""
    return schemas.identities_table(
        table["identity_id"].to_pylist(),
        x_nd,
        table["source"].to_pylist(),
        table["seed"].to_numpy(),
        schemas.metadata_of(table.schema),
    )


def _result(config: ClosedLoopConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
