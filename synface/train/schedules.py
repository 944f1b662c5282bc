"""Learning-rate and margin schedules: pure functions of the step, so that resuming needs no state."""

import math
from collections.abc import Callable, Sequence


def cosine(progress: float) -> float:
    """``(1 + cos(pi p)) / 2`` for progress p in [0, 1]."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def polynomial(progress: float, power: float) -> float:
    """``(1 - p) ** power`` for progress p in [0, 1]."""
    return (1 - progress) ** power


def stepwise(epoch: float, milestones: Sequence[float], gamma: float) -> float:
    """``gamma ** (number of milestones, in epochs, that lie behind)``."""
    return gamma ** sum(epoch >= m for m in milestones)


def warm_up(step: int, warmup_steps: int) -> float:
    """Linear from ``1 / warmup_steps`` to 1; 1 without warm-up."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def factor(
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    name: str = "polynomial",
    warmup_epochs: float = 0.0,
    power: float = 2.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> float:
    """What the base learning rate is multiplied by at `step` (0-based).

    The decay runs over the steps after the warm-up; milestones count epochs from the start.
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return warm_up(step, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return SCHEDULES[name](progress, step / steps_per_epoch, power, milestones, gamma)


#: name -> factor of (progress after warm-up, epoch, power, milestones, gamma)
SCHEDULES: dict[str, Callable[[float, float, float, Sequence[float], float], float]] = {
    "constant": lambda progress, epoch, power, milestones, gamma: 1.0,
    "cosine": lambda progress, epoch, power, milestones, gamma: cosine(progress),
    "polynomial": lambda progress, epoch, power, milestones, gamma: polynomial(progress, power),
    "step": lambda progress, epoch, power, milestones, gamma: stepwise(epoch, milestones, gamma),
}


def ramp(step: int, ramp_steps: int) -> float:
    """Share of the full margin at `step`: linear from 0, 1 from `ramp_steps` on."""
    return min(1.0, step / ramp_steps) if ramp_steps else 1.0
