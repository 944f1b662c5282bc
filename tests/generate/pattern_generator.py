"""A generator of our own, as a user would write one: `pattern_generator:Pattern`, cheap and deterministic.

`options` make it slow or faulty in the ways that machines and networks are. So does the environment where the result
must be the undisturbed one to the last byte, the configuration's hash included.
"""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from synface.core import rng
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity

#: ``FILE:TIMES``: so often does making person 3 fill the memory until somebody kills the process; FILE counts
FILLS_MEMORY = "PATTERN_FILLS_MEMORY"


def fill_memory() -> None:
    place, _, times = os.environ[FILLS_MEMORY].rpartition(":")
    with open(place, "ab") as stream:
        if stream.tell() >= int(times):
            return
        stream.write(b"x")
    held = []
    for _ in range(256):
        held.append(b"\1" * (64 << 20))
        time.sleep(0.02)
    raise AssertionError("16 GiB taken, and nobody killed this process")


class Pattern:
    attributes = pa.struct([("brightness", pa.float32()), ("name", pa.string())])

    def __init__(self, config):
        self.size, self.options = config.image_size, config.options
        if "pid_file" in self.options:
            with open(self.options["pid_file"], "a") as stream:
                stream.write(f"{os.getpid()}\n")
        if self.options.get("refuse_to_load"):
            raise RuntimeError("weights do not fit")

    @classmethod
    def describe(cls, config):
        return Description(
            name="pattern",
            weights_sha256="0" * 64,
            version="1",
            licence=config.options.get("licence", "CC0-1.0"),
            sources={"noise": "CC0-1.0"},
            source_type="algorithmicMedia",
            images_per_minute=4096,
            needs_embedding=bool(config.options.get("needs_embedding")),
        )

    @classmethod
    def own_identities(cls, config, labels):
        return [Identity(n, f"pattern-{n:06d}", "pattern", n) for n in labels]

    def render(self, items):
        options = self.options
        bad = options.get("bad_samples", [])
        time.sleep(options.get("seconds_per_image", 0.0) * len(items))
        slow = options.get("slow_identities", {})
        time.sleep(max(slow.get(str(i.identity.label), 0.0) for i in items))
        if FILLS_MEMORY in os.environ and items[0].identity.label <= 3 <= items[-1].identity.label:
            fill_memory()
        if options.get("bad_batch") and any([i.identity.label, i.sample] in bad for i in items):
            raise RuntimeError("one of the batch is bad")
        return [Failure("asked to fail") if [i.identity.label, i.sample] in bad else self.one(i) for i in items]

    def one(self, item):
        flag = self.options.get("die_once")
        if flag and item.identity.label == 3 and item.sample == 0 and not Path(flag).exists():
            Path(flag).touch()
            os._exit(1)
        if self.options.get("die_always") and item.identity.label == 3:
            os._exit(1)
        random = rng.generator(*item.key)
        low = random.integers(0, 256, (4, 4, 3), np.uint8)
        if item.identity.embedding is not None:
            low[0, 0, 0] = int(127 * (item.identity.embedding[0] + 1))
        repeat = -(-self.size // 4)
        pixels = np.kron(low, np.ones((repeat, repeat, 1), np.uint8))[: self.size, : self.size]
        return Sample(pixels, {"brightness": float(pixels.mean()), "name": item.identity.identity_id})
