"""What workers gain from keeping freed memory (`ops.cluster.KEPT_MEMORY`): CPU seconds of networks' passes.

    python benchmarks/kept_memory.py --rounds 5

Each round runs fresh processes of one thread in turns, with the variables and without, one for each kind of work:
1,280 crops of 64 pixels embedded by heads-fr-tiny, 8 training steps of 128 crops (bfloat16), and 32 images drawn by
cemiface-tiny; each is done twice and the second time counts. Medians of CPU seconds and page faults, and the ratio.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch

from common import write_result
from synface.models import recognizers, sampling
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.ops.cluster import KEPT_MEMORY

SIDES = ("given back", "kept")


def embedding() -> Callable[[], object]:
    embedder = Embedder.from_pretrained("heads-fr-tiny", threads=1)
    crops = np.random.default_rng(0).integers(0, 255, (1280, 64, 64, 3), dtype=np.uint8)
    return lambda: [embedder.features(crops[start : start + 256]) for start in range(0, 1280, 256)]


def training() -> Callable[[], object]:
    network = recognizers.build("tiny", 256, 64).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x = torch.randn(128, 3, 64, 64).to(memory_format=torch.channels_last)

    def work() -> None:
        for _ in range(8):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(x).float().square().mean()
            loss.backward()
            optimizer.step()

    return work


def drawing() -> Callable[[], object]:
    module, stated = generators.from_pretrained("cemiface-tiny")
    module = module.to(memory_format=torch.channels_last)
    own = {**stated.details["sampler"], "guidance_interval": tuple(stated.details["sampler"]["guidance_interval"])}
    settings = sampling.SamplerSettings(**own)
    people = torch.nn.functional.normalize(torch.randn(32, stated.embedding_dim), dim=1).numpy()
    keys: list[sampling.Key] = [(f"p{n}", 0) for n in range(len(people))]

    def work() -> None:
        m = np.full(len(people), 0.75, np.float32)
        latents = sampling.sample(module.denoiser, people, m, 0, keys, settings)
        sampling.to_images(latents, module.autoencoder, settings.micro_batch)

    return work


KINDS: dict[str, Callable[[], Callable[[], object]]] = {"embed": embedding, "train": training, "draw": drawing}


def measured(kind: str) -> dict[str, float]:
    """CPU seconds and page faults of the second time, in this process."""
    torch.set_num_threads(1)
    work = KINDS[kind]()
    work()
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_mib": after.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kind:
        print(json.dumps(measured(asked.kind)))
        return
    plain = {k: v for k, v in os.environ.items() if k not in KEPT_MEMORY}
    environments = dict(zip(SIDES, (plain, plain | KEPT_MEMORY), strict=True))
    found: dict[str, dict[str, list[dict[str, float]]]] = {kind: {side: [] for side in SIDES} for kind in KINDS}
    for _ in range(asked.rounds):
        for kind in KINDS:
            for side, environment in environments.items():
                command = [sys.executable, __file__, "--kind", kind]
                made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                found[kind][side].append(json.loads(made.stdout.splitlines()[-1]))
    medians = {
        kind: {
            side: {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]}
            for side, rounds in sides.items()
        }
        for kind, sides in found.items()
    }
    ratio = {k: round(v["kept"]["cpu_seconds"] / v["given back"]["cpu_seconds"], 3) for k, v in medians.items()}
    write_result("kept_memory", {"rounds": asked.rounds, "medians": medians, "kept_over_given_back": ratio})


if __name__ == "__main__":
    main()
