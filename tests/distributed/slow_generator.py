"""A generator whose images depend on their keys alone and take as long as the environment says.

``SLOW_SECONDS`` per image; identities from label ``GATED_FROM`` on wait until the file ``GATE`` exists.
"""

import os
import time

import numpy as np
import pyarrow as pa

from synface.core.rng import generator as keyed
from synface.generate.config import GenerateConfig
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity, Item

GATED_FROM = 12
LICENCE = "CC0-1.0"


class SlowGenerator:
    """Keyed noise."""

    attributes = pa.struct([pa.field("brightness", pa.float32())])

    def __init__(self, config: GenerateConfig) -> None:
        self.size = config.image_size
        self.seconds = float(os.environ.get("SLOW_SECONDS", "0"))
        self.gate = os.environ.get("GATE", "")

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        return Description("slow", "0" * 64, "1", LICENCE, {"noise": LICENCE}, "algorithmicMedia", 60, False)

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        return [Identity(label, f"noise-{label}", "noise", label) for label in labels]

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Sample | Failure:
        time.sleep(self.seconds)
        while self.gate and item.identity.label >= GATED_FROM and not os.path.exists(self.gate):
            time.sleep(0.2)
        pixels = keyed(*item.key).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        return Sample(pixels, {"brightness": float(pixels.mean())})


class BrokenGenerator(SlowGenerator):
    """Cannot make the images of identity 1."""

    def _one(self, item: Item) -> Sample | Failure:
        return Failure("broken on purpose") if item.identity.label == 1 else super()._one(item)
