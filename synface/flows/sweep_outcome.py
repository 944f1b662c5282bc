"""What a sweep leaves, read from the store of its stages: one row a trial, one a point, the best point, the costs.

Nothing here depends on how the trials were run: the same store gives the same tables. Times stand beside the tables
(`COSTS_FILE`), because a resumed sweep must end with the same tables as an undisturbed one.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.statistics import Summary, rank_correlation, summarize
from synface.flows.sweep_plan import Point, Trial
from synface.settings import StageConfig, canonical_json
from synface.store import artifact, tables
from synface.store import uri as uris

TRIALS_FILE = "data/trials.parquet"
POINTS_FILE = "data/points.parquet"
COSTS_FILE = "trials.csv"
COST_FILE = "_synface/result-sweep-stage.json"
SIMILARITY_COLUMNS = ("m", "similarity_target", "similarity_inquiry", "similarity_other")
SIMILARITIES = ("asked", "realised", "realised_std", "nearer_to_another")
#: rows of an images table that are enough for its mean similarity
SIMILARITY_ROWS = 20_000
DONE, STOPPED, FAILED, MISSING = "done", "stopped", "failed", "missing"


@dataclass(frozen=True)
class Row:
    """One trial's outcome.

    Attributes:
        trial: which.
        state: done; stopped at a rung by the scheduler; failed; missing (not run yet).
        accuracy: of the whole training on the selection benchmarks, by name; empty unless done.
        shorter: epochs -> the same of the shorter trainings that stand.
        test: the same on the test benchmarks, where they were opened.
        similarity: of its images, as `similarity_of`; empty where nobody measured it.
        error: why it failed.
    """

    trial: Trial
    state: str
    accuracy: Mapping[str, float]
    shorter: Mapping[int, Mapping[str, float]]
    test: Mapping[str, float]
    similarity: Mapping[str, float]
    error: str = ""


def accuracies(evaluation: str) -> dict[str, float]:
    """An evaluation's accuracies: ``all``, each benchmark's mean, each ``benchmark/protocol``."""
    numbers = artifact.require(evaluation, "evaluation").numbers
    return {**numbers["average"], **numbers["accuracy"]}


def stands(evaluation: str) -> bool:
    """Whether an evaluation is finished."""
    return artifact.load_manifest(evaluation) is not None


def row(
    trial: Trial, test: StageConfig | None, similarity: Mapping[str, float], error: str | None, stops: bool
) -> Row:
    """A trial's outcome, from the store.

    Args:
        trial: which.
        test: its evaluation on the test benchmarks, if it has one.
        similarity: of its images.
        error: of this run; what stands counts more.
        stops: whether the scheduler stops trials.
    """
    shorter = {r.epochs: accuracies(r.evaluation) for r in trial.rungs[:-1] if stands(r.evaluation)}
    tested = accuracies(test.output) if test is not None and stands(test.output) else {}
    if stands(trial.whole.evaluation):
        return Row(trial, DONE, accuracies(trial.whole.evaluation), shorter, tested, similarity)
    if error is not None:
        return Row(trial, FAILED, {}, shorter, tested, similarity, error)
    return Row(trial, STOPPED if stops and shorter else MISSING, {}, shorter, tested, similarity)


def similarity_of(images: str) -> dict[str, float]:
    """What was asked of an images table and what was realised, from its first `SIMILARITY_ROWS` rows or a few more.

    Returns:
        asked: mean of m, or of the target where a dial was asked; realised, realised_std: of the measured cosines to
        the inquiries; nearer_to_another: share of images that lie nearer to another inquiry. Each only where the
        table's columns hold it.
    """
    parts, rows = [], 0
    for table in tables.iter_images(images):
        parts.append(table.select([name for name in SIMILARITY_COLUMNS if name in table.column_names]))
        rows += table.num_rows
        if rows >= SIMILARITY_ROWS:
            break
    return similarity_numbers(pa.concat_tables(parts)) if parts else {}


def similarity_numbers(table: pa.Table) -> dict[str, float]:
    """`similarity_of`, of the columns `SIMILARITY_COLUMNS` (any may be missing, or null)."""
    columns = {name: table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in table.column_names}
    unknown = np.full(table.num_rows, np.nan)
    m, target = columns.get("m", unknown), columns.get("similarity_target", unknown)
    realised, other = columns.get("similarity_inquiry", unknown), columns.get("similarity_other", unknown)
    asked = np.where(np.isfinite(target), target, m)
    found = {}
    if np.isfinite(asked).any():
        found["asked"] = float(np.nanmean(asked))
    if np.isfinite(realised).any():
        found |= {"realised": float(np.nanmean(realised)), "realised_std": float(np.nanstd(realised))}
    both = np.isfinite(realised) & np.isfinite(other)
    if both.any():
        found["nearer_to_another"] = float((other[both] > realised[both]).mean())
    return found


def trials_table(rows: Sequence[Row], paths: Sequence[str], metric: str) -> pa.Table:
    """One row a trial: trial, point, its name and values, seed, epochs, state, metric, every accuracy, error."""
    names = list(dict.fromkeys(name for r in rows for name in r.accuracy))
    tested = list(dict.fromkeys(name for r in rows for name in r.test))
    epochs = sorted({e for r in rows for e in r.shorter})
    columns: dict[str, Any] = {
        "trial": pa.array([r.trial.index for r in rows], pa.int32()),
        "point": pa.array([r.trial.point for r in rows], pa.int32()),
        **_named([r.trial.name for r in rows]),
        **{path: values_column([told(r.trial.values, path) for r in rows]) for path in paths},
        "seed": pa.array([r.trial.seed for r in rows], pa.int64()),
        "epochs": pa.array([r.trial.whole.epochs for r in rows], pa.int32()),
        "state": [r.state for r in rows],
        "metric": pa.array([r.accuracy.get(metric) for r in rows], pa.float64()),
        **{n: pa.array([r.similarity.get(n) for r in rows], pa.float64()) for n in SIMILARITIES},
        **{f"accuracy {n}": pa.array([r.accuracy.get(n) for r in rows], pa.float64()) for n in names},
        **{f"test {n}": pa.array([r.test.get(n) for r in rows], pa.float64()) for n in tested},
        **{
            f"metric at {e} epochs": pa.array([r.shorter.get(e, {}).get(metric) for r in rows], pa.float64())
            for e in epochs
        },
        "images": [images_key(r.trial) for r in rows],
        "identities": pa.array([identities_key(r.trial) for r in rows], pa.string()),
        "error": [r.error for r in rows],
    }
    return pa.table(columns)


def _named(names: Sequence[str]) -> dict[str, Any]:
    """The column of the points' names, where they have any."""
    return {"name": list(names)} if any(names) else {}


def images_key(trial: Trial) -> str | None:
    """Where a trial's images stand below the store; None where its recipe brings them."""
    stage = trial.whole.stages.get("generate")
    return None if stage is None else _below_store(stage.output)


def identities_key(trial: Trial) -> str | None:
    """Where the inquiries of a trial's images stand: below the store, or a URI of the user's; None where none are."""
    stages = trial.whole.stages
    place = getattr(stages.get("generate"), "identities", None)
    return _below_store(place) if place in {stage.output for stage in stages.values()} else place


def _below_store(output: str) -> str:
    return "/".join(output.split("/")[-2:])


def told(values: Point, path: str) -> Any:
    """What a point says of a path: None where it says nothing, ``null`` where it takes a section away."""
    return "null" if path in values and values[path] is None else values.get(path)


def values_column(values: Sequence[Any]) -> pa.Array:
    """Numbers as float64 where all are numbers, else text: JSON of what is not text already."""
    known = [v for v in values if v is not None]
    if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array(
        [None if v is None else v if isinstance(v, str) else canonical_json(v) for v in values], pa.string()
    )


@dataclass(frozen=True)
class PointSummary:
    """A point over its seeds; `complete` says that every seed is done; `name` is empty where it has none."""

    point: int
    values: Point
    metric: Summary
    accuracy: Mapping[str, Summary]
    test: Mapping[str, Summary]
    complete: bool
    name: str = ""


def point_summaries(rows: Iterable[Row], metric: str) -> list[PointSummary]:
    """Every point that has a finished trial, in order."""
    by_point: dict[int, list[Row]] = {}
    for r in rows:
        by_point.setdefault(r.trial.point, []).append(r)
    found = []
    for number, group in sorted(by_point.items()):
        done = [r for r in group if r.state == DONE]
        if done:
            accuracy, test = _summaries([r.accuracy for r in done]), _summaries([r.test for r in done if r.test])
            first, complete = done[0].trial, len(done) == len(group)
            found.append(PointSummary(number, first.values, accuracy[metric], accuracy, test, complete, first.name))
    return found


def _summaries(rows: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    return {name: summarize([r[name] for r in rows]) for name in (rows[0] if rows else {})}


def best(summaries: Sequence[PointSummary]) -> PointSummary | None:
    """The highest mean among points with every seed (where none has, among all); the first of equals."""
    complete = [s for s in summaries if s.complete] or list(summaries)
    return max(complete, key=lambda s: s.metric.mean, default=None)


def points_table(summaries: Sequence[PointSummary], paths: Sequence[str]) -> pa.Table:
    """One row a point: its values, and n, mean, std, low, high of the metric and of every accuracy."""
    columns: dict[str, Any] = {
        "point": pa.array([s.point for s in summaries], pa.int32()),
        **_named([s.name for s in summaries]),
        **{path: values_column([told(s.values, path) for s in summaries]) for path in paths},
    }
    parts = {
        "metric": [s.metric for s in summaries],
        **{f"accuracy {n}": [s.accuracy.get(n) for s in summaries] for n in _names(s.accuracy for s in summaries)},
        **{f"test {n}": [s.test.get(n) for s in summaries] for n in _names(s.test for s in summaries)},
    }
    for name, column in parts.items():
        for field, kind in (("n", pa.int32()), ("mean", pa.float64()), ("std", pa.float64()), ("low", pa.float64()),
                            ("high", pa.float64())):  # fmt: skip
            columns[f"{name} {field}"] = pa.array([None if s is None else getattr(s, field) for s in column], kind)
    return pa.table(columns)


def _names(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def early_ranks(rows: Sequence[Row], metric: str) -> dict[str, dict[str, Any]]:
    """How far shorter trainings rank the points as whole ones do.

    Returns:
        Epochs -> points compared, Spearman's rho of their means over the seeds that have both (None: not defined).
    """
    found = {}
    for epochs in sorted({e for r in rows for e in r.shorter}):
        pairs: dict[int, list[tuple[float, float]]] = {}
        for r in rows:
            if r.state == DONE and epochs in r.shorter:
                pairs.setdefault(r.trial.point, []).append((r.shorter[epochs][metric], r.accuracy[metric]))
        short = [sum(a for a, _ in part) / len(part) for part in pairs.values()]
        whole = [sum(b for _, b in part) / len(part) for part in pairs.values()]
        rho = rank_correlation(short, whole)
        found[str(epochs)] = {"points": len(pairs), "spearman": None if rho is None else round(rho, 6)}
    return found


def note_cost(stage: StageConfig, result: Mapping[str, Any], gpus: float) -> None:
    """Keep how long a stage took, and on how many GPUs, beside its output."""
    text = json.dumps({"verb": stage.verb, "seconds": result["seconds"], "gpus": gpus}) + "\n"
    uris.write_bytes(uris.join(stage.output, COST_FILE), text.encode())


def cost_of(output: str) -> tuple[float, float]:
    """(seconds, GPU seconds) of a stage's last run; zeros where nobody noted them."""
    place = uris.join(output, COST_FILE)
    noted = json.loads(uris.read_bytes(place)) if uris.exists(place) else {"seconds": 0.0}
    return noted["seconds"], noted["seconds"] * noted.get("gpus", 0.0)


def costs_csv(rows: Sequence[Row], used: Mapping[str, Mapping[str, int]]) -> bytes:
    """For people: one line a trial, with the seconds of its own stages and of those that it shares with others.

    A trial's GPU hours hold its share of the shared ones, so that the lines add up to the sweep's.
    """
    count = {place: n for places in used.values() for place, n in places.items()}
    known = {place: cost_of(place) for place in count}
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        ["trial", "point", "values", "seed", "state", "own_seconds", "shared_seconds", "gpu_hours", "error"]
    )
    for r in rows:
        places = dict.fromkeys(s.output for rung in r.trial.rungs for s in rung.stages.values())
        spent = {place: known[place] for place in places}
        own = sum(s for place, (s, _) in spent.items() if count[place] == 1)
        shared = sum(s for place, (s, _) in spent.items() if count[place] > 1)
        gpu_hours = sum(g / count[place] for place, (_, g) in spent.items()) / 3600
        writer.writerow(
            [r.trial.index, r.trial.point, canonical_json(r.trial.values), r.trial.seed, r.state, round(own, 3),
             round(shared, 3), round(gpu_hours, 4), r.error]
        )  # fmt: skip
    return sink.getvalue().encode()


def shown(summary: PointSummary | None) -> dict[str, Any] | None:
    """A point's numbers for the result line."""
    if summary is None:
        return None
    test = {name: _rounded(value) for name, value in summary.test.items()}
    name = {"name": summary.name} if summary.name else {}
    return {"point": summary.point, **name, "values": summary.values, **_rounded(summary.metric), "test": test}


def _rounded(summary: Summary) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(summary).items()}
