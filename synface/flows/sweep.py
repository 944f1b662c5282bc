"""``synface sweep``: plan every trial, run those whose outcome does not stand yet, choose, test, write the tables."""

import importlib
import time
from collections import Counter
from typing import Any

from synface.core.errors import InputError, PartialError
from synface.evaluate import catalog, rendered, sources
from synface.flows import estimates, sweep_outcome, sweep_search, sweep_tune
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_outcome import DONE, FAILED, MISSING, STOPPED, Row
from synface.flows.sweep_plan import SHARED, Planner, Point, Trial, crossed, distinct, points, resolved, trials, uses
from synface.flows.wiring import STEPS
from synface.ops import cluster, signals
from synface.ops.runs import say
from synface.settings import canonical_json, input_uris
from synface.store import artifact, tables
from synface.store import uri as uris

KIND = "sweep"


def plan(config: SweepConfig) -> dict[str, Any]:
    """Trials, the stages that they share, and what is not there yet; a stage whose inputs stand is checked.

    Of each section ``done`` counts the stages that stand in the store; the estimate leaves them out.
    """
    config = resolved(config)
    planner = Planner(config)
    found = _first(config, planner)
    stages = {f"{name} {number}": (name, stage) for number, (name, stage) in enumerate(distinct(found))}
    standing = {key: name for key, (name, s) in stages.items() if artifact.load_manifest(s.output) is not None}
    for name, stage in (stages[key] for key in stages if key not in standing):
        ready = all(planner.outside(uri) for uri in input_uris(stage).values())
        if ready and not planner.missing({name: stage}):
            importlib.import_module(STEPS[name][2]).plan(stage)
    done = Counter(standing.values())
    return {
        "points": config.num_samples or len(points(config)),
        "seeds": config.seeds,
        "trials": [
            {"trial": t.index, "seed": t.seed, **({"name": t.name} if t.name else {}), "values": t.values}
            for t in found
        ],
        "stages": {name: {**counts, "done": done[name]} for name, counts in _counts(found).items()},
        "metric": config.metric,
        "estimate": estimates.estimate({key: stage for key, (_, stage) in stages.items()}, standing)["total"],
        "missing_inputs": _absent(config, planner, found),
    }


def _first(config: SweepConfig, planner: Planner) -> list[Trial]:
    """All trials, or those of the first batch of a search."""
    found = trials(config, planner)
    if config.search != "optuna":
        return found
    count = min(config.batch, config.num_samples or 0)
    return crossed(config, planner, _unique(sweep_search.suggest(config, [], count)))


def _searched(config: SweepConfig, planner: Planner, found: list[Trial], errors: dict[int, str]) -> list[Trial]:
    """Batch after batch behind the first, each proposed from the outcomes so far; `errors` gains theirs."""
    asked = config.batch
    while asked < (config.num_samples or 0):
        signals.check_stop()
        count = min(config.batch, (config.num_samples or 0) - asked)
        rows = _rows(config, planner, found, errors, tested=[])
        mean = {s.point: s.metric.mean for s in sweep_outcome.point_summaries(rows, config.metric) if s.complete}
        known = {t.point: (t.values, mean.get(t.point)) for t in found}
        new = _unique(sweep_search.suggest(config, list(known.values()), count), [t.values for t in found])
        batch = crossed(config, planner, new, found)
        errors |= _run_all(config, batch)
        found = [*found, *batch]
        asked += count
    return found


def _unique(proposed: list[Point], before: list[Point] | None = None) -> list[Point]:
    """Points that do not stand already: a proposal may come twice where values are listed."""
    seen = {canonical_json(p) for p in before or []}
    return [p for p in {canonical_json(q): q for q in proposed}.values() if canonical_json(p) not in seen]


def _absent(config: SweepConfig, planner: Planner, found: list[Trial]) -> list[str]:
    """What the sweep reads from outside and does not find, each once: the field and the URI."""
    lines = [line for name, stage in distinct(found) for line in planner.missing({name: stage})]
    for field in ("select_on", "test_on"):
        specs = catalog.parse_all(getattr(config, field)) if getattr(config, field) else ()
        lines += [f"{field} {spec.uri}" for spec in specs if spec.uri is not None and not uris.is_file(spec.uri)]
    return list(dict.fromkeys(lines))


def run(config: SweepConfig) -> dict[str, Any]:
    """Run the sweep, or answer at once where it is finished; killed at any point, the same command continues.

    Returns:
        uri, points, trials, done, stopped, failed, best (its values; n, mean, std and 95 % interval of the metric; the
        same of the test), stages (how many were made for how many uses), early_ranks, seconds, cached.

    Raises:
        InputError: a point that its sections refuse, a metric that select_on does not give, a missing input.
        PartialError: trials failed more often than `how.retries` allows; the tables hold the others.
    """
    started = time.monotonic()
    config = resolved(config)
    planner = Planner(config)
    found = _first(config, planner)
    if absent := _absent(config, planner, found):
        raise InputError(f"inputs that are not there: {'; '.join(absent)}")
    asked = config.model_copy(update={"recipe": {}})  # the trials' keys hold all of it, inputs by content
    keys = canonical_json([t.whole.evaluation.rsplit("/", 1)[-1] for t in found])
    opened = artifact.open_output(asked, {}, components={"trials": artifact.sha256_hex(keys.encode())})
    if opened.finished is not None and not opened.finished.numbers["failed"]:
        return _result(config, opened.finished.numbers, started, cached=True)
    errors = _run_all(config, found)
    if config.search == "optuna":
        found = _searched(config, planner, found, errors)
    rows = _rows(config, planner, found, errors, tested=[])
    chosen = sweep_outcome.best(sweep_outcome.point_summaries(rows, config.metric))
    tested = _tested(config, rows, None if chosen is None else chosen.point)
    for trial in tested:
        signals.check_stop()
        sweep_tune.make("evaluate", planner.test(trial))
    rows = _rows(config, planner, found, errors, tested)
    numbers = _commit(config, asked, opened, rows)
    result = _result(config, numbers, started, cached=False)
    if numbers["failed"]:
        first = next(r for r in rows if r.state in (FAILED, MISSING))
        error = PartialError(
            f"{config.output}: {numbers['failed']} of {len(rows)} trials failed; the tables hold the others, and the "
            f"same command tries them again. First: {first.trial.values} seed {first.trial.seed}: {first.error}"
        )
        error.numbers = result  # type: ignore[attr-defined]
        raise error
    return result


def _run_all(config: SweepConfig, found: list[Trial]) -> dict[int, str]:
    """Run the trials whose outcome does not stand, those that fail again; trial -> error of the last attempt."""
    asha = config.scheduler == "asha"
    pending = [t for t in found if not sweep_outcome.stands(t.whole.evaluation)]
    say(f"sweep: {len(found)} trials, the outcome of {len(found) - len(pending)} stands")
    if pending:
        cluster.connect()
        cluster.check_output_reachable(config.output)
        _render_benchmarks(config, pending)
    errors: dict[int, str] = {}
    for attempt in range(config.how.retries + 1):
        if not pending:
            break
        # ASHA judges a trial among all others: those that are done answer at once
        failures = sweep_tune.run_trials(config, found if asha and not attempt else pending)
        errors |= {index: text for index, (text, _) in failures.items()}
        pending = [t for t in pending if t.index in failures and not failures[t.index][1]]
        if pending and attempt < config.how.retries:
            say(f"sweep: {len(pending)} trials failed and are tried again")
    return errors


def _render_benchmarks(config: SweepConfig, pending: list[Trial]) -> None:
    """The pictures that select, once and before the trials, which would each render them."""
    stage: Any = pending[0].whole.stages["evaluate"]
    sizes = {t.whole.stages["train_recognizer"].image_size for t in pending}  # type: ignore[attr-defined]
    cache = stage.how.cache or catalog.cache_folder()
    for spec in catalog.parse_all(config.select_on):
        for stress in sources.needed_stresses(spec.protocols) if spec.is_heads else ():
            for size in sizes:
                signals.check_stop()
                rendered.load(cache, spec.name, stress, size)


def _tested(config: SweepConfig, rows: list[Row], chosen: int | None) -> list[Trial]:
    """The finished trials whose recognizers meet the test benchmarks."""
    if not config.test_on:
        return []
    return [r.trial for r in rows if r.state == DONE and (config.test_every_point or r.trial.point == chosen)]


def _rows(
    config: SweepConfig, planner: Planner, found: list[Trial], errors: dict[int, str], tested: list[Trial]
) -> list[Row]:
    asha = config.scheduler == "asha"
    wanted = {t.index for t in tested}
    images = {t.whole.stages["generate"].output for t in found if "generate" in t.whole.stages}
    similarity = {uri: sweep_outcome.similarity_of(uri) for uri in images if sweep_outcome.stands(uri)}
    rows = []
    for trial in found:
        test = planner.test(trial) if trial.index in wanted else None
        made = trial.whole.stages.get("generate")
        known = {} if made is None else similarity.get(made.output, {})
        rows.append(sweep_outcome.row(trial, test, known, errors.get(trial.index), asha))
    return rows


def _commit(config: SweepConfig, asked: SweepConfig, opened: artifact.Opened, rows: list[Row]) -> dict[str, Any]:
    """The tables, then the manifest."""
    found = [r.trial for r in rows]
    summaries = sweep_outcome.point_summaries(rows, config.metric)
    states = [r.state for r in rows]
    numbers = {
        "points": len({t.point for t in found}),
        "trials": len(rows),
        "done": states.count(DONE),
        "stopped": states.count(STOPPED),
        "failed": states.count(FAILED) + states.count(MISSING),
        "metric": config.metric,
        "paths": config.paths,
        "crossed": list(config.space),
        "real": next((t.point for t in found if config.real is not None and t.name == config.real), None),
        "best": sweep_outcome.shown(sweep_outcome.best(summaries)),
        "early_ranks": sweep_outcome.early_ranks(rows, config.metric),
        "stages": _counts(found),
        "store": config.how.shared or SHARED,
    }
    parts = {
        sweep_outcome.TRIALS_FILE: sweep_outcome.trials_table(rows, config.paths, config.metric),
        sweep_outcome.POINTS_FILE: sweep_outcome.points_table(summaries, config.paths),
    }
    files = [
        artifact.write_file(config.output, name, tables.parquet_bytes(table), table.num_rows)
        for name, table in parts.items()
    ]
    artifact.write_file(config.output, sweep_outcome.COSTS_FILE, sweep_outcome.costs_csv(rows, uses(found)))
    artifact.commit(asked, opened, KIND, files, numbers, cluster.versions())
    return numbers


def _counts(found: list[Trial]) -> dict[str, dict[str, int]]:
    """Section -> stages to make, and how many trainings or evaluations need them."""
    return {name: {"distinct": len(places), "uses": sum(places.values())} for name, places in uses(found).items()}


def _result(config: SweepConfig, numbers: dict[str, Any], started: float, cached: bool) -> dict[str, Any]:
    return {"uri": config.output, **numbers, "cached": cached, "seconds": round(time.monotonic() - started, 3)}
