"""Keyed patterns, and a line in the file of ``MADE`` for every image that is made."""

import os

import numpy as np
import pyarrow as pa

from synface.core import rng
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity


class Counting:
    attributes = pa.struct([("brightness", pa.float32())])

    def __init__(self, config):
        self.size, self.images = config.image_size, config.images_per_identity
        self.broken = bool(config.options.get("broken"))

    @classmethod
    def describe(cls, config):
        return Description("counting", "0" * 64, "1", "CC0-1.0", {"noise": "CC0-1.0"}, "algorithmicMedia", 4096, False)

    @classmethod
    def own_identities(cls, config, labels):
        return [Identity(n, f"pattern-{n}", "pattern", n) for n in labels]

    def render(self, items):
        with open(os.environ["MADE"], "a") as stream:
            stream.writelines(f"{self.images} {i.identity.label} {i.sample}\n" for i in items)
        return [Failure("asked to fail") if self.broken else self.one(i) for i in items]

    def one(self, item):
        low = rng.generator(*item.key).integers(0, 256, (4, 4, 3), np.uint8)
        pixels = np.kron(low, np.ones((self.size // 4, self.size // 4, 1), np.uint8))
        return Sample(pixels, {"brightness": float(pixels.mean())})
