"""Curves of a training: TensorBoard event files on any URI, always; MLflow and Weights & Biases where asked.

A tracker's run is found again by the training's key, so that an interrupted training goes on in the same run. A
tracker that fails is named on stderr and left out: a training is worth more than its curves.
"""

import contextlib
import importlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from synface.core.errors import InputError
from synface.ops.runs import say
from synface.settings import canonical_json
from synface.store import artifact
from synface.store import uri as uris

FOLDER = "_synface/tensorboard"
#: where a run of MLflow keeps the training's key
KEY_TAG = "synface.key"

#: (step, curve -> value)
Add = Callable[[int, dict[str, float]], None]
#: what ends a tracker's run; whether the training ended well
End = Callable[[bool], None]


@dataclass(frozen=True)
class Tracked:
    """A training, as trackers know it.

    Attributes:
        key: the same for every attempt at one training in one place.
        output: of the verb.
        config: what decides the result.
    """

    key: str
    output: str
    config: dict[str, Any]


class TensorBoard:
    """Writes scalars below ``<output>/_synface/tensorboard``; remote outputs get the files at the end.

    Args:
        output: of the verb.
        first_step: points from here on replace those of an interrupted run.
        enabled: whether this worker writes.
    """

    def __init__(self, output: str, first_step: int, enabled: bool = True):
        self._writer: SummaryWriter | None = None
        self._remote = uris.join(output, FOLDER)
        if enabled:
            folder = uris.absolute(self._remote) if uris.is_local(output) else tempfile.mkdtemp(prefix="synface-")
            self._folder = Path(folder)
            self._writer = SummaryWriter(folder, purge_step=first_step, flush_secs=10)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Points of several curves at one step."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if not uris.is_local(self._remote):
            for path in self._folder.iterdir():
                uris.write_bytes(uris.join(self._remote, path.name), path.read_bytes())


def check(trackers: Sequence[str]) -> None:
    """InputError for a tracker whose package is not installed, or that has nowhere to write."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise InputError(f'how.trackers {name}: {name} is not installed; pip install "synface[{name}]"')
    if "mlflow" in trackers and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError("how.trackers mlflow: set MLFLOW_TRACKING_URI to your server, for the workers too")


@contextlib.contextmanager
def boards(output: str, first_step: int, trackers: Sequence[str] = (), enabled: bool = True) -> Iterator[Add]:
    """TensorBoard and the asked trackers behind one function.

    Args:
        output: of the verb, which has a plan where there are trackers.
        first_step: points from here on replace those of an interrupted run (in MLflow they stand twice, equal).
        trackers: names in `STARTS`.
        enabled: whether this worker writes.
    """
    with contextlib.ExitStack() as stack:
        adds = [stack.enter_context(TensorBoard(output, first_step, enabled)).add]
        if enabled and trackers:
            training = tracked(output)
            adds += [stack.enter_context(_guarded(name, training)) for name in trackers]

        def add(step: int, scalars: dict[str, float]) -> None:
            for one in adds:
                one(step, scalars)

        yield add


def tracked(output: str) -> Tracked:
    """The training that `output` was opened for."""
    plan = artifact.read_plan(output)
    asked = {} if plan is None else plan["config"]
    place = uris.absolute(output)
    return Tracked(artifact.sha256_hex(canonical_json([place, asked]).encode())[:16], place, asked.get("fields", {}))


@contextlib.contextmanager
def _guarded(name: str, training: Tracked) -> Iterator[Add]:
    """One tracker, whose failures end it and nothing else."""
    run: tuple[Add, End] | None = None

    def attempt(act: Callable[[], Any]) -> Any:
        nonlocal run
        try:
            return act()
        except Exception as error:  # whatever a tracker raises
            run = None
            text = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"train: {name} is left out from here on: {text}")
            return None

    def add(step: int, scalars: dict[str, float]) -> None:
        if run is not None:
            add_there = run[0]
            attempt(lambda: add_there(step, scalars))

    run = attempt(lambda: STARTS[name](training))
    well = False
    try:
        yield add
        well = True
    finally:
        if run is not None:
            end = run[1]
            attempt(lambda: end(well))


def start_mlflow(training: Tracked) -> tuple[Add, End]:
    """The training's run on the server of MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME."""
    mlflow = importlib.import_module("mlflow")  # an extra
    client = mlflow.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "synface-train"
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    before = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{training.key}'", max_results=1)
    if before:
        run_id = before[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {KEY_TAG: training.key, "synface.output": training.output}
        run_id = client.create_run(experiment, tags=tags, run_name=_title(training)).info.run_id
        params = [mlflow.entities.Param(k, v) for k, v in sorted(leaves(training.config).items())]
        for first in range(0, len(params), 100):  # a server's limit
            client.log_batch(run_id, params=params[first : first + 100])

    def add(step: int, scalars: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(run_id, [mlflow.entities.Metric(k, v, now, step) for k, v in scalars.items()])

    return add, lambda well: client.set_terminated(run_id, "FINISHED" if well else "KILLED")


def start_wandb(training: Tracked) -> tuple[Add, End]:
    """The training's run in the project WANDB_PROJECT; local files stand beside TensorBoard's, or in WANDB_DIR."""
    wandb = importlib.import_module("wandb")  # an extra
    beside = uris.join(training.output, "_synface") if uris.is_local(training.output) else tempfile.gettempdir()
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "synface",
        id=training.key,
        name=_title(training),
        resume="allow",
        config=training.config,
        dir=os.environ.get("WANDB_DIR") or uris.absolute(beside),
        settings=wandb.Settings(console="off"),
    )

    def add(step: int, scalars: dict[str, float]) -> None:
        # a step that an interrupted run has written already is passed over there; the values are equal
        run.log(scalars, step=step)

    return add, lambda well: run.finish(exit_code=0 if well else 1)


#: tracker -> what finds or makes the training's run
STARTS: dict[str, Callable[[Tracked], tuple[Add, End]]] = {"mlflow": start_mlflow, "wandb": start_wandb}


def leaves(tree: Any, path: str = "") -> dict[str, str]:
    """``a.b: value`` for every leaf of a tree of plain data."""
    if isinstance(tree, dict) and tree:
        found: dict[str, str] = {}
        for key, value in tree.items():
            found |= leaves(value, f"{path}.{key}" if path else str(key))
        return found
    return {path: tree if isinstance(tree, str) else canonical_json(tree)}


def _title(training: Tracked) -> str:
    return training.output.rstrip("/").rpartition("/")[2]
