"""Sampling speed of a CemiFace generator on this machine's cores, at stated settings.

    python benchmarks/cemiface_speed.py                                  # cemiface-tiny, fresh weights
    python benchmarks/cemiface_speed.py --weights runs/cemiface_tiny/calibrated   # at the weights' own sampler

As generation runs it: one process of one thread per core, each drawing padded micro-batches and decoding them. A
network's speed does not depend on what it learned, so that fresh weights of the same shape say the same.
"""

import argparse
import dataclasses
import multiprocessing
import time

import numpy as np
import torch

from common import write_result
from synface.generate.generators.diffusion import resolve
from synface.generate.variation_config import SamplerOptions
from synface.models import sampling, weights
from synface.models.autoencoder import AutoencoderConfig
from synface.models.denoisers import generator as generators
from synface.models.denoisers.config import DENOISERS
from synface.models.sampling import SamplerSettings


def load(asked: argparse.Namespace) -> tuple[generators.Generator, SamplerSettings]:
    given = {"solver": asked.solver, "steps": asked.steps, "guidance": asked.guidance}
    options = SamplerOptions(**{k: v for k, v in given.items() if v is not None})
    if asked.weights:
        module, stated = generators.from_pretrained(asked.weights)
        return module, resolve(options, stated, asked.micro_batch)
    settings = SamplerSettings(**options.model_dump(exclude_none=True), micro_batch=asked.micro_batch)
    return generators.build(DENOISERS[asked.denoiser], AutoencoderConfig()), settings


def worker(asked: argparse.Namespace, ready, go, results) -> None:
    torch.set_num_threads(1)
    module, settings = load(asked)
    module = module.to(memory_format=torch.channels_last)
    x = np.random.default_rng(0).standard_normal((settings.micro_batch, module.denoiser.config.embedding_dim))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    m = np.full(len(x), 0.5, np.float32)

    def draw(number: int) -> None:
        keys = [("speed", number, row) for row in range(len(x))]
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.dtype == "bfloat16"):
            latents = sampling.sample(module.denoiser, x, m, 0, keys, settings)
            sampling.to_images(latents, module.autoencoder, settings.micro_batch)

    draw(-1)
    ready.put(None)
    go.wait()
    started, cpu = time.monotonic(), time.process_time()
    for number in range(asked.batches):
        draw(number)
    results.put((time.monotonic() - started, time.process_time() - cpu))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="")
    parser.add_argument("--denoiser", default="cemiface-tiny", choices=sorted(DENOISERS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--solver")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, results, go = context.Queue(), context.Queue(), context.Event()
    processes = [context.Process(target=worker, args=(asked, ready, go, results)) for _ in range(asked.workers)]
    for p in processes:
        p.start()
    for _ in processes:
        ready.get()
    go.set()
    seconds = [results.get() for _ in processes]
    for p in processes:
        p.join()
    _, settings = load(asked)
    images = asked.batches * asked.micro_batch
    result = {
        "denoiser": asked.denoiser
        if not asked.weights
        else weights.read_config(asked.weights, "generator").architecture,
        "weights": weights.read_config(asked.weights, "generator").sha256 if asked.weights else "fresh",
        "sampler": dataclasses.asdict(settings),
        "workers": asked.workers,
        "dtype": asked.dtype,
        "images_per_s": round(sum(images / wall for wall, _ in seconds), 2),
        "images_per_cpu_second": round(images * len(seconds) / sum(cpu for _, cpu in seconds), 2),
    }
    write_result("cemiface_speed", result)


if __name__ == "__main__":
    main()
