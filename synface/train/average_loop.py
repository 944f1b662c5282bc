"""The training loop of networks that are kept as an average of their weights (generator, autoencoder). No Ray.

As in `loop.py` everything that a step uses is a function of the configuration and the step's number, or stands in
the checkpoint: a resumed training ends with the same bits, at equal world size and threads.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from synface.core.rng import derived_seed
from synface.train import loop, schedules
from synface.train.data import prefetched
from synface.train.generator_config import AverageOptimizer, StepsConfig
from synface.train.loop import DTYPES, Diverged, weights_finite

#: steps whose means make one entry of the history
HISTORY_STEPS = 100
#: parts of a diffusers U-Net and of the conditioner that carry the condition into it
CONDITION_PARTS = (
    "conditioner.", "pose.", "time_emb_proj", "conv_in.", "add_k_proj", "add_v_proj", "attn2.to_k", "attn2.to_v",
    "c_proj_in", "cross_attention.to_k", "cross_attention.to_v",
)  # fmt: skip


class Trainee(nn.Module):
    """A network and its loss in one module, so that data parallelism sees one forward pass.

    Attributes:
        network: what is trained and kept.
        names: of the numbers that `forward` returns beside the loss.
    """

    names: tuple[str, ...] = ()

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(the loss to minimise, float [len(names)] of means over the batch)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Place:
    """This worker among the others."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"


@dataclass
class State:
    """What changes during training.

    Attributes:
        model: network and loss, unwrapped.
        forward: the same, wrapped for data parallelism where there are several workers.
        average: the exponential average of the network, in evaluation mode; what is kept in the end.
        optimizer: AdamW; each group has a `factor` on the learning rate.
        scaler: of float16 gradients.
        step: steps done.
        losses: numbers of the steps since the last entry of the history, over all workers.
        history: one entry per `HISTORY_STEPS`.
        facts: what was found out once, before the first step (for the weights' config.json).
    """

    model: Trainee
    forward: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    losses: list[tuple[float, ...]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def place_of(device: str) -> Place:
    """Rank and world from the process group, where there is one."""
    grouped = distributed.is_available() and distributed.is_initialized()
    if not grouped:
        return Place(device=device)
    return Place(distributed.get_rank(), distributed.get_world_size(), device)


def build_state(config: StepsConfig, make: Callable[[], Trainee], place: Place) -> State:
    """Fresh weights, a function of the seed; the same on every worker."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        model = make()
    model = model.to(place.device)
    if config.numerics.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model.network).eval().requires_grad_(False)
    optimizer = build_optimizer(model.network, config.optimizer)
    if config.numerics.compile:
        model.network.compile()
    forward: nn.Module = model
    if place.world > 1:
        # find_unused_parameters keeps the gradient buckets as they are at the first step: see loop.build_state
        forward = DistributedDataParallel(model, find_unused_parameters=True)
    scaler = torch.amp.GradScaler(place.device, enabled=config.numerics.dtype == "float16")
    return State(model, forward, average, optimizer, scaler)


def build_optimizer(network: nn.Module, settings: AverageOptimizer) -> torch.optim.Optimizer:
    """AdamW of two groups: what carries the condition (by name), and the rest."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    carries = {name: any(part in name for part in CONDITION_PARTS) for name, _ in named}
    groups = [
        {"params": [p for name, p in named if not carries[name]], "factor": 1.0},
        {"params": [p for name, p in named if carries[name]], "factor": settings.condition_lr},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def learning_rate(settings: AverageOptimizer, step: int, steps: int) -> float:
    """The learning rate of one step, before the groups' factors."""
    warmup = min(settings.warmup_steps, steps)
    return settings.lr * schedules.factor(step, steps, 1, settings.schedule, warmup, settings.power)


def train_step(config: StepsConfig, state: State, place: Place, batches: Sequence[Any]) -> tuple[float, ...]:
    """One optimizer step over some batches (gradient accumulation); (loss, the trainee's numbers) over all workers."""
    settings, numerics = config.optimizer, config.numerics
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(settings, state.step, config.steps) * group["factor"]
    state.optimizer.zero_grad(set_to_none=True)
    seen = torch.zeros(1 + len(state.model.names), dtype=torch.float64, device=place.device)
    for number, batch in enumerate(batches):
        synced = number + 1 == len(batches) or not isinstance(state.forward, DistributedDataParallel)
        with contextlib.nullcontext() if synced else state.forward.no_sync():  # type: ignore[operator]
            with torch.autocast(place.device, DTYPES[numerics.dtype], enabled=numerics.dtype != "float32"):
                loss, numbers = state.forward(batch)
            state.scaler.scale(loss / len(batches)).backward()
        seen += torch.cat([loss.detach().reshape(1), numbers]).double() / len(batches)
    if settings.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    decay = ema_decay(state.step, settings.ema)
    ema_update(state.average.parameters(), state.model.network.parameters(), decay)
    state.step += 1
    if place.world > 1:
        distributed.all_reduce(seen)
        seen /= place.world
    return tuple(seen.tolist())


def run_steps(
    config: StepsConfig,
    state: State,
    place: Place,
    batches: Iterator[Sequence[Any]],
    save: Callable[[State], None],
    stopping: Callable[[State], bool] = lambda state: False,
    watch: Callable[[State, tuple[float, ...], float], None] = lambda state, seen, lr: None,
) -> Diverged | None:
    """Train from the state's step to the end.

    Args:
        config: of the training.
        state: changed in place.
        place: this worker.
        batches: of this worker, from the state's step on: one item per step, a batch per forward pass.
        save: writes a checkpoint; called on every worker, with finite weights only.
        stopping: asked after every step, with one answer on all workers: write a checkpoint and end here?
        watch: called after every step with (state, loss and numbers, learning rate); for logs.

    Returns:
        None at the end or where it was stopped; or where the loss stopped being finite; then no later state was saved.
    """
    state.forward.train()
    for step_batches in prefetched(batches, config.how.prefetch):
        lr = learning_rate(config.optimizer, state.step, config.steps)
        seen = train_step(config, state, place, step_batches)
        state.losses.append(seen)
        if not math.isfinite(seen[0]):
            return Diverged(state.step)
        ended = state.step == config.steps
        if ended or state.step % HISTORY_STEPS == 0:
            state.history.append(history_entry(state, lr))
            state.losses.clear()
        watch(state, seen, lr)
        stop = stopping(state)
        if stop or ended or state.step % config.how.checkpoint_every == 0:
            if not weights_finite(state.model):
                return Diverged(state.step)
            save(state)
        if stop:
            return None
    return None


def history_entry(state: State, lr: float) -> dict[str, Any]:
    """Means over the steps since the last entry, no times."""
    means = (math.fsum(column) / len(column) for column in zip(*state.losses, strict=True))
    numbers = {name: round(x, 6) for name, x in zip(("loss", *state.model.names), means, strict=True)}
    return {"step": state.step, **numbers, "lr": lr}


def pack_checkpoint(state: State) -> bytes:
    """The whole state as bytes of plain tensors and numbers."""
    return loop.pack_checkpoint(state, average=state.average.state_dict(), facts=state.facts)


def unpack_checkpoint(state: State, data: bytes, device: str) -> None:
    """Put a packed state in place (read without running any code)."""
    saved = loop.unpack_checkpoint(state, data, device)
    state.average.load_state_dict(saved["average"])
    state.facts = saved["facts"]


def ema_decay(step: int, decay: float) -> float:
    """Decay at the 0-based step: ``min(decay, (1 + step) / (10 + step))``, quick at first."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def ema_update(average: Iterable[torch.Tensor], current: Iterable[torch.Tensor], decay: float) -> None:
    """``average <- decay average + (1 - decay) current`` in place, pair by pair."""
    for kept, new in zip(average, current, strict=True):
        kept.lerp_(new.to(kept.dtype), 1 - decay)
