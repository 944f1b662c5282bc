"""Training on Ray Train: worker groups, lost workers, checkpoints on any URI.

Ray Train starts the workers and their process group and starts them again when one is lost, an elastic group with as
many as there is room for (one that grows is ended and started anew, from the newest checkpoint). Checkpoints are
whole objects at ``<output>/_synface/train``, named by step and digest, so that a kill at any moment of the
worker, the driver or the node leaves the newest whole one; the next worker group, of this run or of the
next, continues from it.
"""

import os
import time
from collections.abc import Callable
from typing import Any, cast

import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from torch import distributed

from synface.core.errors import DivergedError, PartialError, SynfaceError
from synface.models import weights
from synface.ops import cluster, demand, metrics, remote_stop, runs, signals
from synface.ops.progress import Progress, say
from synface.settings import with_input_uris
from synface.store import uri as uris
from synface.train import average_loop, loop
from synface.train.average_loop import Place
from synface.train.config import TrainHow, TrainRecognizerConfig
from synface.train.data import GIB, Catalog, ImageSource
from synface.train.generator_config import StepsConfig
from synface.train.loop import Diverged
from synface.train.tracking import Add, boards

CHECKPOINTS = "_synface/train"
DIVERGED = "diverged"
#: how often rank 0 asks whether the driver was told to stop
STOP_POLL_SECONDS = 1.0
#: helpers of Ray Train that a single machine does without; each is a process, or doubles every line of log
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}
ENVIRONMENT = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}


class Stopped(Exception):  # noqa: N818 (an end, not an error)
    """Raised on every worker behind the checkpoint that a stop signal asked for."""


class _Trainer(TorchTrainer):
    """Without the actor that watches over placement groups, and without a handler of SIGINT.

    The groups end with the job in any case, and without a dashboard the actor logs an error every second. The
    handler would leave with exit code 0; `ops.signals` has taken the signal.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if type(c).__name__ != "PlacementGroupCleanerCallback"]

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


#: a training's loop asks it after every step, on every worker
Stopping = Callable[[loop.State | average_loop.State], bool]
Work = Callable[[Any, Catalog, str, str, Stopping], Diverged | None]


def fit(config: TrainRecognizerConfig, catalog: Catalog) -> bytes:
    """Train a recognizer to the end and return the last checkpoint; see `launch`."""
    remedy = f"Lower optimizer.lr ({config.optimizer.lr}), raise optimizer.warmup_epochs, or set optimizer.clip_norm"
    return launch(config, train_recognizer, catalog, remedy)


def launch(config: TrainRecognizerConfig | StepsConfig, work: Work, catalog: Catalog, remedy: str) -> bytes:
    """Do `work` on a group of workers until it ends, and return the last checkpoint.

    Args:
        config: of the training.
        work: what each worker does, with (config, catalog, folder of checkpoints, device, whether to stop); it
            continues from the newest checkpoint, and writes one before it stops.
        catalog: the images.
        remedy: what to change where the loss stops being finite.

    Raises:
        DivergedError: the loss stopped being finite (the last good checkpoint is kept).
        SynfaceError: workers were lost more often than `how.max_failures`.
        InputError: the cluster has no room for the worker group.
        PartialError: a stop signal came; a checkpoint of that moment is kept.
    """
    for name, value in (ENVIRONMENT | ({} if os.environ.get("RAY_ADDRESS") else LOCAL_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    cluster.connect()
    cluster.check_output_reachable(config.output)
    if not config.how.in_process:
        least = [worker_resources(config)] * config.numerics.worlds[0]
        demand.check_demand("train: worker group", least, labels=config.how.labels)
    folder = uris.join(uris.absolute(config.output), CHECKPOINTS)
    uris.delete_file(uris.join(folder, DIVERGED))
    filesystem, path = uris.resolve(folder)
    trainer = _Trainer(
        train_worker,
        train_loop_config={"config": placed(config), "work": work, "catalog": ray.put(catalog), "folder": folder},
        torch_config=TorchConfig(backend="nccl" if config.numerics.device == "cuda" else "gloo"),
        scaling_config=scaling(config),
        run_config=train.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=train.FailureConfig(max_failures=config.how.max_failures),
        ),
    )
    threads = torch.get_num_threads()
    try:
        with remote_stop.passed_on():
            trainer.fit()
        signals.check_stop()
    except train.TrainingFailedError as error:
        raise SynfaceError(f"{config.output}: training failed; the same command continues. {error}") from error
    finally:
        torch.set_num_threads(threads)
    if uris.exists(uris.join(folder, DIVERGED)):
        step = uris.read_bytes(uris.join(folder, DIVERGED)).decode()
        raise DivergedError(
            f"{config.output}: the loss or a weight was no longer finite at step {step}; the last good checkpoint "
            f"is kept in {folder}. {remedy}; such a change needs another output"
        )
    data = loop.newest_checkpoint(folder)
    if data is None:
        raise SynfaceError(f"{folder}: training ended, but its last checkpoint is gone; run the same command again")
    return data


def placed(config: TrainRecognizerConfig | StepsConfig) -> TrainRecognizerConfig | StepsConfig:
    """The configuration with the places of its inputs made absolute: Ray Train gives workers another folder."""
    return with_input_uris(config, lambda uri: uri if uri in weights.PRETRAINED else uris.absolute(uri))


def check_ended(output: str, step: int, steps: int) -> None:
    """PartialError for a training whose last checkpoint is not its end: a stop signal of another process came."""
    if step < steps:
        raise PartialError(f"{output}: stopped at step {step} of {steps}; the same command continues")


def scaling(config: TrainRecognizerConfig | StepsConfig) -> train.ScalingConfig:
    """Resources of the worker group; none where the one worker is this process."""
    numerics, how = config.numerics, config.how
    if how.in_process:
        return train.ScalingConfig(num_workers=0, use_gpu=numerics.device == "cuda")
    worlds = numerics.worlds
    resize = {"elastic_resize_monitor_interval_s": how.resize_seconds} if isinstance(how, TrainHow) else {}
    return train.ScalingConfig(
        num_workers=worlds[0] if len(worlds) == 1 else (worlds[0], worlds[-1]),
        use_gpu=numerics.device == "cuda",
        resources_per_worker=cast(dict, worker_resources(config)),
        label_selector=how.labels or None,
        **cast(Any, resize),
    )


def worker_resources(config: TrainRecognizerConfig | StepsConfig) -> dict[str, float]:
    """What one worker of the group asks of the cluster."""
    numerics, how = config.numerics, config.how
    threads = numerics.threads_per_worker
    # an autoscaler starts nodes for all that is asked, an elastic group takes what there is; elsewhere threads may
    # outnumber the CPUs
    whole = len(numerics.worlds) > 1 or demand.autoscaled()
    share = float(threads) if whole else demand.cpu_share(threads, how.labels, numerics.num_workers)
    cpus = how.cpus_per_worker or share
    return {"CPU": cpus} | ({"GPU": how.gpus_per_worker} if numerics.device == "cuda" else {})


def train_worker(payload: dict[str, Any]) -> None:
    """Set up one worker of the group, do its work, and tell the driver where the loss stopped being finite."""
    config, folder = payload["config"], payload["folder"]
    torch.set_num_threads(config.numerics.threads_per_worker)
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    place = average_loop.place_of(device.type)
    with runs.about(place.rank):
        diverged = payload["work"](config, ray.get(payload["catalog"]), folder, device.type, stop_rule(place))
    if diverged is not None and not (distributed.is_initialized() and distributed.get_rank()):
        uris.write_bytes(uris.join(folder, DIVERGED), str(diverged.step).encode())


def train_recognizer(
    config: TrainRecognizerConfig, catalog: Catalog, folder: str, device: str, stopping: Stopping
) -> Diverged | None:
    """What each worker of a recognizer's training does."""
    shape = loop.shape_of(config, catalog, device)
    state = loop.build_state(config, shape)
    data = loop.newest_checkpoint(folder)
    if data is None and config.continue_from is not None:
        data = loop.newest_checkpoint(uris.join(config.continue_from, CHECKPOINTS))
    if data is not None:
        loop.unpack_checkpoint(state, data, device)
        if shape.rank == 0:
            say(f"train: continues at step {state.step} of {shape.total_steps}")
    if shape.rank == 0 and len(config.numerics.worlds) > 1:
        say(f"train: from step {state.step} on {shape.world} of {config.numerics.num_workers} workers")
    if state.step >= shape.total_steps:
        return None
    source = ImageSource(
        catalog, config.image_size, config.how.memory_gb * GIB, config.shuffle_shards, config.how.decode_threads
    )
    try:
        with boards(config.output, state.step, config.how.trackers, enabled=shape.rank == 0) as add:
            return loop.run_steps(
                config, catalog, source, shape, state, checkpoint_rule(config, shape, stopping),
                saver(folder, shape, stopping), watcher(config, shape, state.step, add),
            )  # fmt: skip
    except Stopped:
        return None
    finally:
        source.close()


def stop_rule(place: Place) -> Stopping:
    """Whether the driver was asked to stop: one answer per step for all workers, by what rank 0 knows."""
    next_look, step, answer = 0.0, -1, False

    def stopping(state: loop.State | average_loop.State) -> bool:
        nonlocal next_look, step, answer
        if state.step != step:
            asked = False
            if place.rank == 0 and time.monotonic() >= next_look:
                asked = remote_stop.asked()
                next_look = time.monotonic() + STOP_POLL_SECONDS
            step, answer = state.step, agreed(asked, place)
        return answer

    return stopping


def agreed(answer: bool, place: Place | loop.Shape) -> bool:
    """Rank 0's answer, on every worker."""
    if place.world == 1:
        return answer
    sent = torch.tensor([answer], device=place.device)
    distributed.broadcast(sent, 0)
    return bool(sent)


def checkpoint_rule(
    config: TrainRecognizerConfig, shape: loop.Shape, stopping: Stopping
) -> Callable[[loop.State, bool], bool]:
    """Every N steps; or at the end of an epoch, if the last is old enough by rank 0's clock; or before a stop."""
    last = time.monotonic()

    def due(state: loop.State, ended: bool) -> bool:
        nonlocal last
        if stopping(state):
            return True
        if config.how.checkpoint_every is not None:
            return state.step % config.how.checkpoint_every == 0
        if not ended:
            return False
        answer = agreed(time.monotonic() - last >= config.how.checkpoint_seconds, shape)
        if answer:
            last = time.monotonic()
        return answer

    return due


def saver(folder: str, shape: loop.Shape, stopping: Stopping) -> Callable[[loop.State], None]:
    """Rank 0 writes; the others wait, so that none runs ahead of a checkpoint that fails."""

    def save(state: loop.State) -> None:
        loop.save_checkpoint(folder, state, shape.rank)
        if shape.world > 1:
            distributed.barrier()
        if stopping(state):
            raise Stopped

    return save


def watcher(
    config: TrainRecognizerConfig, shape: loop.Shape, first_step: int, add: Add
) -> Callable[[loop.State, float, float], None]:
    """Progress on stderr and points of the curves, from rank 0."""
    if shape.rank != 0:
        return lambda state, loss, lr: None
    batch = config.global_batch_size
    progress = Progress("train", shape.total_steps * batch, "images", done=first_step * batch)

    def watch(state: loop.State, loss: float, lr: float) -> None:
        epoch = -(-state.step // shape.epoch_steps)
        progress.advance(batch, f"epoch {epoch}/{config.epochs} loss {loss:.3f}")
        metrics.show(metrics.LOSS, "train", loss)
        metrics.show(metrics.STEP, "train", state.step)
        if state.step % config.how.log_every == 0:
            add(state.step, {"train/loss": loss, "train/lr": lr})
        if state.step % shape.epoch_steps == 0:
            entry = state.history[-1]
            add(state.step, {"epoch/loss": entry["loss"], "epoch/accuracy": entry["accuracy"]})

    return watch
