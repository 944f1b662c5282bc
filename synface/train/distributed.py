"""Training on Ray Train: worker groups, lost workers, checkpoints on any URI.

Ray Train starts the workers and their process group and starts them again when one is lost. Checkpoints are
whole objects at ``<output>/_synface/train``, named by step and digest, so that a kill at any moment of the
worker, the driver or the node leaves the newest whole one; the next worker group, of this run or of the
next, continues from it.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from torch import distributed

from synface.core.errors import SynfaceError
from synface.ops import cluster
from synface.ops.progress import Progress, say
from synface.store import uri as uris
from synface.train import loop
from synface.train.config import TrainRecognizerConfig
from synface.train.data import GIB, Catalog, ImageSource
from synface.train.tracking import TensorBoard

CHECKPOINTS = "_synface/train"
DIVERGED = "diverged"
#: helpers of Ray Train that a single machine does without; each is a process, or doubles every line of log
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}
ENVIRONMENT = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}


class _Trainer(TorchTrainer):
    """Without the actor that watches over placement groups.

    They end with the job in any case, and without a dashboard the actor logs an error every second.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if type(c).__name__ != "PlacementGroupCleanerCallback"]


def fit(config: TrainRecognizerConfig, catalog: Catalog) -> bytes:
    """Train to the end and return the last checkpoint.

    Raises:
        SynfaceError: the loss stopped being finite (the last good checkpoint is kept), or workers were lost
            more often than `how.max_failures`.
    """
    for name, value in (ENVIRONMENT | ({} if os.environ.get("RAY_ADDRESS") else LOCAL_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    cluster.connect()
    cluster.check_output_reachable(config.output)
    folder = uris.join(uris.absolute(config.output), CHECKPOINTS)
    uris.delete_file(uris.join(folder, DIVERGED))
    filesystem, path = uris.resolve(folder)
    trainer = _Trainer(
        train_worker,
        train_loop_config={"config": config.model_dump(mode="json"), "catalog": ray.put(catalog), "folder": folder},
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
        trainer.fit()
    except train.TrainingFailedError as error:
        raise SynfaceError(f"{config.output}: training failed; the same command continues. {error}") from error
    finally:
        torch.set_num_threads(threads)
    if uris.exists(uris.join(folder, DIVERGED)):
        step = uris.read_bytes(uris.join(folder, DIVERGED)).decode()
        raise SynfaceError(
            f"{config.output}: the loss or a weight was no longer finite at step {step}; the last good checkpoint "
            f"is kept in {folder}. Lower optimizer.lr ({config.optimizer.lr}), raise optimizer.warmup_epochs, or "
            "set optimizer.clip_norm; such a change needs another output"
        )
    data = loop.newest_checkpoint(folder)
    if data is None:
        raise SynfaceError(f"{folder}: training ended, but its last checkpoint is gone; run the same command again")
    return data


def scaling(config: TrainRecognizerConfig) -> train.ScalingConfig:
    """Resources of the worker group; none where the one worker is this process."""
    numerics, how = config.numerics, config.how
    if how.in_process:
        return train.ScalingConfig(num_workers=0, use_gpu=numerics.device == "cuda")
    gpu = numerics.device == "cuda"
    available = ray.cluster_resources().get("CPU", 1.0)
    cpus = how.cpus_per_worker or min(float(numerics.threads_per_worker), available / numerics.num_workers)
    resources = {"CPU": cpus} | ({"GPU": how.gpus_per_worker} if gpu else {})
    return train.ScalingConfig(num_workers=numerics.num_workers, use_gpu=gpu, resources_per_worker=resources)


def train_worker(payload: dict[str, Any]) -> None:
    """What each worker of the group does."""
    config = TrainRecognizerConfig.model_validate(payload["config"])
    catalog: Catalog = ray.get(payload["catalog"])
    torch.set_num_threads(config.numerics.threads_per_worker)
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    shape = loop.shape_of(config, catalog, device.type)
    state = loop.build_state(config, shape)
    data = loop.newest_checkpoint(payload["folder"])
    if data is not None:
        loop.unpack_checkpoint(state, data, device.type)
        if shape.rank == 0:
            say(f"train: continues at step {state.step} of {shape.total_steps}")
    if state.step >= shape.total_steps:
        return
    source = ImageSource(
        catalog, config.image_size, config.how.memory_gb * GIB, config.shuffle_shards, config.how.decode_threads
    )
    with TensorBoard(config.output, state.step, enabled=shape.rank == 0) as board:
        diverged = loop.run_steps(
            config, catalog, source, shape, state, checkpoint_rule(config, shape), saver(payload["folder"], shape),
            watcher(config, shape, state.step, board),
        )  # fmt: skip
    source.close()
    if diverged is not None and shape.rank == 0:
        uris.write_bytes(uris.join(payload["folder"], DIVERGED), str(diverged.step).encode())


def checkpoint_rule(config: TrainRecognizerConfig, shape: loop.Shape) -> Callable[[loop.State, bool], bool]:
    """Every N steps; or at the end of an epoch, if the last checkpoint is old enough by rank 0's clock."""
    last = time.monotonic()

    def due(state: loop.State, ended: bool) -> bool:
        nonlocal last
        if config.how.checkpoint_every is not None:
            return state.step % config.how.checkpoint_every == 0
        if not ended:
            return False
        answer = torch.tensor([time.monotonic() - last >= config.how.checkpoint_seconds], device=shape.device)
        if shape.world > 1:
            distributed.broadcast(answer, 0)
        if bool(answer):
            last = time.monotonic()
        return bool(answer)

    return due


def saver(folder: str, shape: loop.Shape) -> Callable[[loop.State], None]:
    """Rank 0 writes; the others wait, so that none runs ahead of a checkpoint that fails."""

    def save(state: loop.State) -> None:
        if shape.rank == 0:
            loop.save_checkpoint(folder, state)
        if shape.world > 1:
            distributed.barrier()

    return save


def watcher(
    config: TrainRecognizerConfig, shape: loop.Shape, first_step: int, board: TensorBoard
) -> Callable[[loop.State, float, float], None]:
    """Progress on stderr and TensorBoard, from rank 0."""
    if shape.rank != 0:
        return lambda state, loss, lr: None
    batch = config.global_batch_size
    progress = Progress("train", shape.total_steps * batch, "images", done=first_step * batch)

    def watch(state: loop.State, loss: float, lr: float) -> None:
        epoch = -(-state.step // shape.epoch_steps)
        progress.advance(batch, f"epoch {epoch}/{config.epochs} loss {loss:.3f}")
        if state.step % config.how.log_every == 0:
            board.add(state.step, {"train/loss": loss, "train/lr": lr})
        if state.step % shape.epoch_steps == 0:
            entry = state.history[-1]
            board.add(state.step, {"epoch/loss": entry["loss"], "epoch/accuracy": entry["accuracy"]})

    return watch
