"""What the verbs of this room will take (`store.cost`): forward passes of an embedding pool; the rest is small."""

from typing import Any

from synface.evaluate.audit_config import AuditConfig
from synface.evaluate.config import EvaluateConfig
from synface.evaluate.faces_config import EvaluateIjbConfig, EvaluateTinyfaceConfig
from synface.store import cost

Config = EvaluateConfig | AuditConfig | EvaluateIjbConfig | EvaluateTinyfaceConfig


def estimate(config: Config, pictures: int, taken: cost.Traffic | None, flip: bool) -> dict[str, Any]:
    """Hours, requests and bytes of a fresh run.

    Args:
        config: of the verb.
        pictures: that are embedded.
        taken: what is read of the store; None: unknown.
        flip: whether each picture's mirror image is embedded too.
    """
    gpu = config.numerics.device == "cuda"
    cpus, gpus = (0.0, 1.0) if gpu else (float(config.numerics.threads), 0.0)
    passes = pictures * (2 if flip else 1)
    rate = cost.rate_of(config.how.rate)
    return cost.estimate(passes, "forward passes", rate, cpus, gpus, taken, workers=config.how.actors)
