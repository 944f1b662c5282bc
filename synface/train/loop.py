"""The training loop of one worker: state, step, checkpoint. No Ray; a process group if there is one.

Everything that a step uses is a function of the configuration and the step's number (order, augmentation,
learning rate, margin), or stands in the checkpoint. So a resumed training ends with the same bits as one
that was never disturbed, at equal world size and threads.
"""

import contextlib
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from synface.core.errors import InputError
from synface.core.rng import derived_seed
from synface.models import recognizers
from synface.store import uri as uris
from synface.train import augment, schedules
from synface.train.config import Optimizer, TrainRecognizerConfig
from synface.train.data import Catalog, ImageSource, epoch_order, prefetched, rank_slice, steps_per_epoch
from synface.train.head import MarginHead, Trainee
from synface.train.partial_fc import ShardedForward, ShardedHead, Workers, clip_gradients

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHECKPOINT_SUFFIX = ".pt"
KEPT_CHECKPOINTS = 2


@dataclass
class State:
    """What changes during training.

    Attributes:
        model: backbone and head, unwrapped.
        forward: the model, wrapped for data parallelism where there are several workers.
        optimizer: its optimizer.
        scaler: of float16 gradients.
        step: steps done.
        losses: (loss, share of hits, number of workers) of the steps of the running epoch, over all workers.
        history: one entry per finished epoch.
    """

    model: Trainee
    forward: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    losses: list[tuple[float, float, int]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    """Sizes that follow from configuration and data, and this worker's place among the others."""

    classes: int
    epoch_steps: int
    total_steps: int
    rank: int = 0
    world: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Diverged:
    """The loss (or a weight) was no longer finite at this step."""

    step: int


def shape_of(config: TrainRecognizerConfig, catalog: Catalog, device: str = "cpu") -> Shape:
    """The sizes of a training; rank and world from the process group."""
    per_epoch = steps_per_epoch(catalog.per_epoch, config.global_batch_size)
    grouped = distributed.is_available() and distributed.is_initialized()
    return Shape(
        classes=len(catalog.classes),
        epoch_steps=per_epoch,
        total_steps=per_epoch * config.epochs,
        rank=distributed.get_rank() if grouped else 0,
        world=distributed.get_world_size() if grouped else 1,
        device=device,
    )


def build_state(config: TrainRecognizerConfig, shape: Shape) -> State:
    """Fresh weights, a function of the seed; the same on every worker."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        backbone = recognizers.build(config.backbone, config.dim, config.image_size)
        model = Trainee(backbone, build_head(config, shape))
    model = model.to(shape.device)
    if config.numerics.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.optimizer, shape.device)
    if config.numerics.compile:
        model.backbone.compile()
    replicated: torch.nn.Module = model.backbone if config.head.sharded else model
    if shape.world > 1:
        # find_unused_parameters keeps the gradient buckets as they are at the first step: the order of a
        # sum over three or more workers, and so its last bits, is then the same after a resume
        replicated = DistributedDataParallel(replicated, find_unused_parameters=True)
    forward = ShardedForward(replicated, model.head) if isinstance(model.head, ShardedHead) else replicated
    scaler = torch.amp.GradScaler(shape.device, enabled=config.numerics.dtype == "float16")
    return State(model, forward, optimizer, scaler)


def build_head(config: TrainRecognizerConfig, shape: Shape) -> MarginHead:
    """All classes, or this worker's."""
    if not config.head.sharded:
        return MarginHead(shape.classes, config.dim, config.margin)
    workers = Workers(shape.rank, shape.world, distributed.group.WORLD if shape.world > 1 else None)
    return ShardedHead(shape.classes, config.dim, config.margin, config.head.sample_rate, config.seed, workers)


def build_optimizer(model: Trainee, settings: Optimizer, device: str) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; the head may have its own weight decay."""
    decay = settings.weight_decay if settings.head_weight_decay is None else settings.head_weight_decay
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad]},
        {"params": list(model.head.parameters()), "weight_decay": decay},
    ]
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, fused=True, **common)
    return torch.optim.AdamW(groups, fused=True, **common)


def learning_rate(settings: Optimizer, step: int, shape: Shape) -> float:
    """The learning rate of one step."""
    return settings.lr * schedules.factor(
        step,
        shape.total_steps,
        shape.epoch_steps,
        settings.schedule,
        settings.warmup_epochs,
        settings.power,
        settings.milestones,
        settings.gamma,
    )


def batches(
    config: TrainRecognizerConfig, catalog: Catalog, source: ImageSource, shape: Shape, first_step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(network input float32 [b, s, s, 3], labels int64 [b]) of this worker, from `first_step` to the end."""
    rows = [shard.rows for shard in catalog.shards]
    for epoch in range(first_step // shape.epoch_steps, config.epochs):
        order = epoch_order(rows, config.shuffle_shards, config.seed, epoch, catalog.repeat)
        order = order if catalog.kept is None else order[catalog.kept[order]]
        start = first_step - epoch * shape.epoch_steps if epoch == first_step // shape.epoch_steps else 0
        for step in range(start, shape.epoch_steps):
            index = order[rank_slice(step, config.global_batch_size, shape.rank, shape.world)]
            draws = augment.draw(config.augmentation, config.seed, epoch, index, config.image_size)
            yield augment.apply(source.take(index), draws), catalog.labels[index]


def train_step(
    config: TrainRecognizerConfig, state: State, shape: Shape, x_nhwc: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """One optimizer step; (loss, share of hits) over all workers."""
    settings, numerics = config.optimizer, config.numerics
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(settings, state.step, shape)
    x = torch.from_numpy(x_nhwc).to(shape.device, non_blocking=True).permute(0, 3, 1, 2)
    if not numerics.channels_last:
        x = x.contiguous()
    labels_n = torch.from_numpy(labels).to(shape.device, non_blocking=True)
    share = schedules.ramp(state.step, round(config.margin.warmup_epochs * shape.epoch_steps))
    head = state.model.head
    if isinstance(head, ShardedHead):
        head.step = state.step
    state.optimizer.zero_grad(set_to_none=True)
    parts = numerics.accumulate
    losses, hits = [], []
    for number, (x_part, labels_part) in enumerate(zip(x.chunk(parts), labels_n.chunk(parts), strict=True), 1):
        with contextlib.nullcontext() if number == parts else unsynchronised(state.forward):
            with torch.autocast(shape.device, DTYPES[numerics.dtype], enabled=numerics.dtype != "float32"):
                loss, hit = state.forward(x_part, labels_part, share)
            state.scaler.scale(loss / parts).backward()
        losses.append(loss.detach().double() / parts)
        hits.append(hit.double() / len(labels))
    if settings.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        if isinstance(head, ShardedHead):
            clip_gradients(state.model.backbone, head, settings.clip_norm)
        else:
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    seen = torch.stack([sum(losses[1:], losses[0]), sum(hits[1:], hits[0])])
    if shape.world > 1:
        distributed.all_reduce(seen)
        seen /= shape.world
    return tuple(seen.tolist())  # type: ignore[return-value]


def unsynchronised(forward: torch.nn.Module) -> contextlib.AbstractContextManager:
    """Where gradients stay on their worker: all but the last of a step's accumulated parts."""
    replicated = forward.backbone if isinstance(forward, ShardedForward) else forward
    return replicated.no_sync() if isinstance(replicated, DistributedDataParallel) else contextlib.nullcontext()


def run_steps(
    config: TrainRecognizerConfig,
    catalog: Catalog,
    source: ImageSource,
    shape: Shape,
    state: State,
    due: Callable[[State, bool], bool],
    save: Callable[[State], None],
    watch: Callable[[State, float, float], None] = lambda state, loss, lr: None,
) -> Diverged | None:
    """Train from the state's step to the end.

    Args:
        config: of the training.
        catalog: the images.
        source: their pixels.
        shape: sizes and this worker's place.
        state: changed in place.
        due: called after every step with (state, whether an epoch ended): write a checkpoint now? The same
            answer on every worker.
        save: writes a checkpoint; called on every worker, with finite weights only.
        watch: called after every step with (state, loss, learning rate); for logs.

    Returns:
        None at the end, or where the loss stopped being finite; then no later state was saved.
    """
    state.forward.train()
    for x, labels in prefetched(batches(config, catalog, source, shape, state.step), config.how.prefetch):
        lr = learning_rate(config.optimizer, state.step, shape)
        with step_noise(config, state.step, shape):
            loss, hits = train_step(config, state, shape, x, labels)
        state.losses.append((loss, hits, shape.world))
        if not math.isfinite(loss):
            return Diverged(state.step)
        ended = state.step % shape.epoch_steps == 0
        if ended:
            state.history.append(epoch_entry(state, lr, shape, elastic=len(config.numerics.worlds) > 1))
            state.losses.clear()
        watch(state, loss, lr)
        if due(state, ended) or state.step == shape.total_steps:
            if not finite_everywhere(state.model, shape):
                return Diverged(state.step)
            save(state)
    return None


@contextlib.contextmanager
def step_noise(config: TrainRecognizerConfig, step: int, shape: Shape) -> Iterator[None]:
    """What a network draws in a step (dropout, masks) is a function of seed, step and rank.

    The global generators are put back behind it.
    """
    devices = [torch.cuda.current_device()] if shape.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(config.seed, "step noise", step, shape.rank))
        yield


def finite_everywhere(model: torch.nn.Module, shape: Shape) -> bool:
    """Whether every parameter of every worker is finite: one answer, also where each holds other class centres."""
    answer = torch.tensor([weights_finite(model)], dtype=torch.int32, device=shape.device)
    if shape.world > 1:
        distributed.all_reduce(answer, distributed.ReduceOp.MIN)
    return bool(answer.item())


def epoch_entry(state: State, lr: float, shape: Shape, elastic: bool = False) -> dict[str, Any]:
    """An epoch's line of the history: means over its steps, no times; of an elastic group the steps by its size."""
    losses, hits = ([step[i] for step in state.losses] for i in range(2))
    entry = {
        "epoch": state.step // shape.epoch_steps,
        "step": state.step,
        "loss": round(math.fsum(losses) / len(losses), 6),
        "accuracy": round(math.fsum(hits) / len(hits), 6),
        "lr": lr,
    }
    if elastic:
        entry["workers"] = {str(size): steps for size, steps in sorted(Counter(s[2] for s in state.losses).items())}
    return entry


def weights_finite(model: torch.nn.Module) -> bool:
    """Whether every parameter is finite."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


class Resumable(Protocol):
    """What the checkpoint of any training holds."""

    model: Any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int
    losses: list[Any]
    history: list[dict[str, Any]]


def pack_checkpoint(state: Resumable, **more: Any) -> bytes:
    """The whole state as bytes of plain tensors and numbers; `more` is what another kind of state has besides.

    A sharded head is merged: every worker takes part, and the bytes of rank 0 are the checkpoint.
    """
    parts = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "losses": state.losses,
        "history": state.history,
        **more,
    }
    head = sharded_head(state)
    sink = io.BytesIO()
    torch.save(parts if head is None else head.merged(parts), sink)
    return sink.getvalue()


def sharded_head(state: Resumable) -> ShardedHead | None:
    """The head whose rows lie on several workers, if the state has one."""
    head = getattr(state.model, "head", None)
    return head if isinstance(head, ShardedHead) else None


def unpack_checkpoint(state: Resumable, data: bytes, device: str) -> dict[str, Any]:
    """Put a packed state in place (read without running any code); all that was packed."""
    head = sharded_head(state)
    # the rows of all classes may not fit on one device
    saved = torch.load(io.BytesIO(data), map_location=device if head is None else "cpu", weights_only=True)
    saved = saved if head is None else head.split(saved)
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.scaler.load_state_dict(saved["scaler"])
    state.step, state.losses, state.history = saved["step"], saved["losses"], saved["history"]
    return saved


def save_checkpoint(folder: str, state: State, rank: int = 0) -> None:
    """Write the state as one whole checkpoint file, by rank 0; with a sharded head every worker must call this."""
    if rank == 0 or sharded_head(state) is not None:
        data = pack_checkpoint(state)
        if rank == 0:
            write_checkpoint(folder, state.step, data)


def write_checkpoint(folder: str, step: int, data: bytes) -> None:
    """Write one whole checkpoint file, then delete all but the newest few.

    The name holds step and digest: a file that was cut short is known and passed over.
    """
    digest = hashlib.sha256(data).hexdigest()[:16]
    uris.write_bytes(uris.join(folder, f"step-{step:09d}-{digest}{CHECKPOINT_SUFFIX}"), data)
    for name in checkpoint_names(folder)[KEPT_CHECKPOINTS:]:
        uris.delete_file(uris.join(folder, name))


def checkpoint_names(folder: str) -> list[str]:
    """Checkpoint files, newest first."""
    names = [name for name, _ in uris.list_files(folder, recursive=False)]
    return sorted((n for n in names if n.startswith("step-") and n.endswith(CHECKPOINT_SUFFIX)), reverse=True)


def newest_checkpoint(folder: str) -> bytes | None:
    """The newest whole checkpoint, or None."""
    for name in checkpoint_names(folder):
        try:
            data = uris.read_bytes(uris.join(folder, name))
        except InputError:  # deleted by another process between the listing and now
            continue
        if hashlib.sha256(data).hexdigest()[:16] == name.removesuffix(CHECKPOINT_SUFFIX).rpartition("-")[2]:
            return data
    return None
