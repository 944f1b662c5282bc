"""What synface adds to Arc2Face: its generator against diffusers' bare pipeline, on the same small random weights.

    python benchmarks/arc2face_overhead.py

Both draw batches of the same faces with the same networks, steps and guidance, taking turns in one process; the bare
pipeline is given its prompts ready-made and draws plain noise. And a batch of 8 against batches of 1. Asked: at least
0.95 of its images/s, and a batch of 8 at least as fast per picture as batches of 1. Needs synface[arc2face].
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from transformers import CLIPTokenizer

from common import write_result
from synface.core import rng
from synface.generate.config import GenerateConfig
from synface.generate.generators.arc2face import Arc2faceGenerator
from synface.generate.plan import Identity, Item
from synface.settings import build

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import arc2face_miniature


def load(places: dict[str, str], asked: argparse.Namespace, batch: int) -> Arc2faceGenerator:
    fields = {
        "generator": "arc2face",
        "identities": "unread",
        "arc2face": {
            "weights": places["weights"],
            "base": places["base"],
            "steps": asked.steps,
            "decode_batch": batch,
        },
        "numerics": {"micro_batch": batch, "threads_per_actor": asked.threads},
        "output": "unused",
    }
    return Arc2faceGenerator(build(GenerateConfig, fields))


def bare(made: Arc2faceGenerator, places: dict[str, str], x: np.ndarray, steps: int) -> Callable[[], None]:
    """The pipeline over the generator's own networks, called with a whole batch of prompts."""
    model = made._model
    tokenizer = CLIPTokenizer.from_pretrained(Path(places["base"]) / "tokenizer", model_max_length=77)
    pipeline = StableDiffusionPipeline(
        vae=model._vae,
        text_encoder=model._encoder,
        tokenizer=tokenizer,
        unet=model._unet,
        scheduler=DPMSolverMultistepScheduler.from_config(model._schedule),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        prompts = model.encode(torch.from_numpy(x))
        empty = model._null.expand(len(x), -1, -1)
    return lambda: pipeline(
        prompt_embeds=prompts,
        negative_prompt_embeds=empty,
        num_inference_steps=steps,
        guidance_scale=model.settings.guidance,
        output_type="np",
    )


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    x = rng.generator(0).standard_normal((asked.batch, 512))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    items = [Item(Identity(i, f"p{i}", "toy", 0, face), 0, (0, f"p{i}", 0)) for i, face in enumerate(x)]
    with tempfile.TemporaryDirectory() as folder:
        places = arc2face_miniature.build(Path(folder))
        many, one = load(places, asked, asked.batch), load(places, asked, 1)
        ways = {
            "synface": lambda: many.render(items),
            "pipeline": bare(many, places, x, asked.steps),
            "synface_batch_1": lambda: [one.render([item]) for item in items],
        }
        for work in ways.values():
            work()
        seconds = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, work in ways.items():
                seconds[name].append(seconds_of(work))
    share = [p / s for s, p in zip(seconds["synface"], seconds["pipeline"], strict=True)]
    gain = [o / s for s, o in zip(seconds["synface"], seconds["synface_batch_1"], strict=True)]
    result = {
        "batch": asked.batch,
        "steps": asked.steps,
        "threads": asked.threads,
        "rounds": asked.rounds,
        "images_per_s": {k: round(asked.batch / statistics.median(v), 2) for k, v in seconds.items()},
        "share_of_the_pipeline": round(statistics.median(share), 3),
        "faster_than_batch_1": round(statistics.median(gain), 3),
    }
    write_result("arc2face_overhead", result)


if __name__ == "__main__":
    main()
