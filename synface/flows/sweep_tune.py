"""Trials on Ray Tune: a light driver a trial, its stages in a task beside it, each stage made by one trial at a time.

A trial's driver holds no CPU: `trial_driver` where the cluster has that resource (nodes that are never preempted),
else a little memory. So trainings that want every CPU still find them, and drivers cannot starve their own workers.
Tune places a driver in a placement group, which would capture all that the stages start; the task is pinned to the
driver's node instead, and what it starts is placed freely.
"""

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.flows import sweep_outcome
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Rung, Trial
from synface.flows.wiring import STEPS
from synface.ops import demand, remote_stop, signals
from synface.ops.runs import say
from synface.settings import StageConfig
from synface.store import uri as uris
from synface.train.distributed import worker_resources

DRIVER = "trial_driver"
#: where Tune keeps its own files; nothing of a sweep's result is read from there
TUNE_FOLDER = "_synface/tune"
POLL_SECONDS = 0.5
#: from a stop signal to the end of the trials
CHECKPOINT_SECONDS = 8.0
#: quiet, no handler of SIGINT (`ops.signals` has it), and no loggers that nobody asked for
ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
#: of a trial's trainings: another trial may hold the CPUs for longer than Ray Train's minute
PATIENCE = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600"}
#: tracker -> (module and class of its callback, what to install)
CALLBACKS = {
    "tensorboard": ("ray.tune.logger", "TBXLoggerCallback", "tensorboardX"),
    "mlflow": ("ray.air.integrations.mlflow", "MLflowLoggerCallback", "mlflow"),
    "wandb": ("ray.air.integrations.wandb", "WandbLoggerCallback", "wandb"),
}


class Desk:
    """Who makes which stage's output now, and which trials have failed and why."""

    def __init__(self) -> None:
        self._makers: dict[str, int] = {}
        self._failures: dict[int, tuple[str, bool]] = {}

    def take(self, place: str, trial: int) -> bool:
        """Whether it is this trial's turn at an output (again: a trial may take what it holds)."""
        return self._makers.setdefault(place, trial) == trial

    def give(self, trial: int, place: str | None = None) -> None:
        """End a trial's turn at one output, or at all."""
        self._makers = {p: t for p, t in self._makers.items() if t != trial or place not in (None, p)}

    def fail(self, trial: int, error: str, refused: bool) -> None:
        """Note why a trial failed, and whether it would fail again."""
        self._failures[trial] = (error, refused)

    def lose(self, trial: int) -> None:
        """A driver ended with an error: its turns are over, and if it noted no failure itself, it was lost."""
        self.give(trial)
        self._failures.setdefault(trial, ("its driver was lost with its process or node", False))

    def failures(self) -> dict[int, tuple[str, bool]]:
        """Trial -> (error, whether it would fail again)."""
        return self._failures


class _Losses(tune.Callback):
    """Tells the desk of drivers that ended with an error."""

    def __init__(self, desk: Any):
        self._desk = desk

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._desk.lose.remote(trial.config["trial"])


class _StopAll(tune.Stopper):
    """Ends the experiment behind a stop signal, when trainings have had time to write a checkpoint."""

    def __init__(self) -> None:
        self._seen: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._seen is None and signals.stop_requested():
            self._seen = time.monotonic()
        return self._seen is not None and time.monotonic() - self._seen > CHECKPOINT_SECONDS


def run_trials(config: SweepConfig, trials: Sequence[Trial]) -> dict[int, tuple[str, bool]]:
    """Run trials until each has ended; what they made stands in the store.

    Returns:
        Of each trial that failed: its error, and whether it would fail again.
    """
    limit = concurrency(config, trials)
    say(f"sweep: {len(trials)} trials, {limit} at once")
    desk = ray.remote(num_cpus=0)(Desk).remote()
    by_index = {trial.index: trial for trial in trials}
    shares = {i: shared_out(trial, limit) for i, trial in by_index.items()}
    trainable = tune.with_parameters(_drive, desk=desk, trials=shares, metric=config.metric)
    filesystem, path = uris.resolve(uris.join(config.output, TUNE_FOLDER))
    tuner = tune.Tuner(
        tune.with_resources(trainable, driver_resources(config)),
        param_space={"trial": tune.grid_search(sorted(by_index)), "point": _shown(by_index)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=limit, scheduler=_scheduler(config, trials), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=path,
            storage_filesystem=filesystem,
            stop=_StopAll(),
            verbose=0,
            callbacks=[_Losses(desk), JsonLoggerCallback(), *callbacks(config)],
        ),
    )
    with _environment(), remote_stop.passed_on(), contextlib.redirect_stdout(sys.stderr):
        tuner.fit()
    signals.check_stop()
    return dict(ray.get(desk.failures.remote()))


def concurrency(config: SweepConfig, trials: Sequence[Trial]) -> int:
    """How many trials run at once: as many as the cluster has room for worker groups, and for their drivers."""
    groups = _groups(trials)
    fit = min((demand.places(bundle, demand.nodes(labels)) // count for bundle, count, labels in groups), default=1)
    drivers = demand.places(driver_resources(config), demand.nodes())
    wanted = config.how.max_concurrent or (len(trials) if demand.autoscaled() else fit)
    return int(max(1, min(wanted, drivers, len(trials))))


def driver_resources(config: SweepConfig) -> dict[str, float]:
    """What a trial's driver asks for: never a CPU."""
    if any(node.get(DRIVER) for node in demand.nodes()):
        return {DRIVER: 1}
    return {"CPU": 0, "memory": config.how.driver_memory_gb * 2**30}


def _groups(trials: Sequence[Trial]) -> list[tuple[dict[str, float], int, dict[str, str]]]:
    """(what one worker asks for, how many, labels of its nodes) of every group that must be whole before it works.

    A training in the trial's own process asks Ray for nothing and counts as the one worker that it is.
    """
    groups = []
    for stage in (s for trial in trials for rung in trial.rungs for s in rung.stages.values()):
        how: Any = getattr(stage, "how", None)
        numerics: Any = getattr(stage, "numerics", None)
        if stage.verb.startswith("train_"):
            groups.append((worker_resources(stage), numerics.num_workers, how.labels))  # type: ignore[arg-type]
        elif stage.verb == "pack" and how.workers > 1:
            groups.append(({"CPU": how.cpus_per_worker or float(numerics.threads)}, how.workers, how.labels))
    return groups


def shared_out(trial: Trial, limit: int) -> Trial:
    """The trial with pools of actors no larger than its share of the cluster.

    Two evaluations that each ask for an actor per CPU would each hold half of them and wait for ever.
    """

    def share(stage: StageConfig) -> StageConfig:
        how = getattr(stage, "how", None)
        if how is None or "actors" not in type(how).model_fields or how.actors is not None or limit == 1:
            return stage
        numerics = stage.numerics  # type: ignore[attr-defined]
        of_kind = int(demand.amount("GPU" if numerics.device == "cuda" else "CPU", how.labels))
        have = of_kind if numerics.device == "cuda" else of_kind // numerics.threads
        return stage.model_copy(update={"how": how.model_copy(update={"actors": max(1, have // limit)})})

    def shared(rung: Rung) -> Rung:
        return Rung(rung.epochs, {name: share(stage) for name, stage in rung.stages.items()})

    return Trial(trial.index, trial.point, trial.values, trial.seed, tuple(map(shared, trial.rungs)))


def _shown(trials: dict[int, Trial]) -> Any:
    """For trackers: the point and the seed of each trial."""
    rows = {i: {**trial.values, "seed": trial.seed} for i, trial in trials.items()}
    return tune.sample_from(lambda config: rows[config["trial"]])


def _scheduler(config: SweepConfig, trials: Sequence[Trial]) -> ASHAScheduler | None:
    if config.scheduler == "none" or config.rungs is None:
        return None
    longest = max(trial.whole.epochs for trial in trials)
    return ASHAScheduler(
        time_attr="epochs",
        metric="metric",
        mode="max",
        max_t=longest + 1,
        grace_period=config.rungs.first,
        reduction_factor=config.rungs.factor,
    )


def callbacks(config: SweepConfig) -> list[Any]:
    """Tune's callbacks of the asked trackers.

    Raises:
        InputError: a tracker whose package is not installed.
    """
    made = []
    for name in config.how.trackers:
        module, attribute, package = CALLBACKS[name]
        try:
            importlib.import_module(package)
            made.append(getattr(importlib.import_module(module), attribute)(**_options(name)))
        except ImportError as error:
            raise InputError(f"how.trackers {name}: {package} is not installed; pip install {package}") from error
    return made


def _options(tracker: str) -> dict[str, str]:
    """Of a tracker's callback. W&B logs from actors, which have the cluster's environment and not this process's."""
    if tracker == "mlflow":
        return {"experiment_name": "synface-sweep"}
    if tracker == "wandb":
        mode = os.environ.get("WANDB_MODE")
        return {"project": os.environ.get("WANDB_PROJECT", "synface")} | ({"mode": mode} if mode else {})
    return {}


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _drive(config: dict[str, Any], desk: Any, trials: dict[int, Trial], metric: str) -> None:
    """One trial, in Tune's actor: each rung's stages in turn, then its outcome to Tune."""
    trial = trials[config["trial"]]
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    for rung in trial.rungs:
        if remote_stop.asked():
            raise PartialError(f"trial {trial.index}: not started, the sweep was stopped")
        try:
            ray.get(_make.options(scheduling_strategy=here).remote(rung.stages, desk, trial.index))  # type: ignore[attr-defined]
        except Exception as error:
            text, refused = explained(error)
            ray.get(desk.fail.remote(trial.index, text, refused))
            say(f"sweep: trial {trial.index} {trial.values} seed {trial.seed} failed: {text}")
            raise SynfaceError(text) from None
        finally:
            ray.get(desk.give.remote(trial.index))
        found = sweep_outcome.accuracies(rung.evaluation)
        told = f"{metric} {100 * found[metric]:.2f} % after {rung.epochs} epochs"
        say(f"sweep: trial {trial.index} {trial.values} seed {trial.seed}: {told}")
        tune.report({"metric": found[metric], "epochs": rung.epochs, **{f"accuracy/{k}": v for k, v in found.items()}})


def explained(error: Exception) -> tuple[str, bool]:
    """(first line of an error, whether the same work would meet it again)."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    refused = isinstance(cause, SynfaceError) and cause.exit_code == InputError.exit_code
    text = str(cause).strip() or type(cause).__name__
    return text if isinstance(cause, SynfaceError) else f"{type(cause).__name__}: {text.splitlines()[-1]}", refused


@ray.remote(num_cpus=0, max_retries=0)
def _make(stages: dict[str, StageConfig], desk: Any, trial: int) -> None:
    """A rung's stages, in order."""
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    for name, stage in stages.items():
        while not ray.get(desk.take.remote(stage.output, trial)):
            time.sleep(POLL_SECONDS)
        make(name, stage)
        ray.get(desk.give.remote(trial, stage.output))


def make(name: str, stage: StageConfig) -> dict[str, Any]:
    """One stage; what it cost, if it was not there, stands beside its output."""
    try:
        result = importlib.import_module(STEPS[name][2]).run(stage)
    except SynfaceError as error:
        error.args = (f"section {name}: {error}",)
        raise
    if not result.get("cached") and "seconds" in result:
        sweep_outcome.note_cost(stage, result, gpus_held(stage))
    return result


def gpus_held(stage: StageConfig) -> float:
    """GPUs that a stage keeps while it works; a pool without a stated size takes what the cluster has."""
    numerics: Any = getattr(stage, "numerics", None)
    how: Any = getattr(stage, "how", None)
    if getattr(numerics, "device", "cpu") != "cuda":
        return 0.0
    if stage.verb.startswith("train_"):
        return numerics.num_workers * how.gpus_per_worker
    have = demand.amount("GPU", how.labels)
    actors = getattr(how, "max_actors", None) or getattr(how, "actors", None)
    return min(have, actors * (getattr(how, "gpus_per_actor", 0.0) or 1.0)) if actors else have
