"""The whole Ray Train loop against a bare PyTorch loop on tensors in memory: images per second, and their ratio.

    python benchmarks/train_overhead.py                      # r18 at 112, two threads: asked at least 0.95
    python benchmarks/train_overhead.py --backbone tiny --size 64 --steps 4 --batch 16    # a try

The bare loop has the same network, head, loss and optimizer, decodes and augments nothing. Both are timed twice, over
S and over 3 S steps; the difference leaves out what starting costs. Rounds alternate, so that a slower machine slows
both.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from loader import write_images
from torch.nn import functional

from common import write_result
from synface.models import recognizers
from synface.settings import build
from synface.train import margins, run
from synface.train.config import TrainRecognizerConfig

CLASSES = 16


def bare(args: argparse.Namespace, steps: int) -> float:
    """Seconds of a plain loop."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = recognizers.build(args.backbone, 512, args.size).to(memory_format=torch.channels_last).train()
    centres = torch.nn.Parameter(torch.randn(CLASSES, 512) * 0.01)
    optimizer = torch.optim.SGD([*model.parameters(), centres], lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    x = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch) % CLASSES
    start = time.perf_counter()
    for _ in range(steps):
        cos = functional.normalize(model(x)) @ functional.normalize(centres).T
        loss = functional.cross_entropy(margins.cosface(cos, labels), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), centres], 5.0)
        optimizer.step()
        loss.item()
    return time.perf_counter() - start


def whole(args: argparse.Namespace, images: str, output: Path, steps: int) -> float:
    """Seconds of the verb, from the images table to the weights."""
    config = build(
        TrainRecognizerConfig,
        {
            "images": [images],
            "output": str(output),
            "backbone": args.backbone,
            "image_size": args.size,
            "embedding_dim": 512,
            "epochs": steps,
            "global_batch_size": args.batch,
            "optimizer": {"lr": 0.01, "warmup_epochs": 0},
            "numerics": {"threads_per_worker": args.threads},
            "how": {"in_process": args.in_process, "checkpoint_seconds": 3600, "log_every": 1},
        },
    )
    start = time.perf_counter()
    run.run(config)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="r18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", action="store_true", help="without a worker process of Ray's")
    args = parser.parse_args()
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        # an epoch is one batch, so that steps are epochs
        images = write_images(str(Path(folder) / "images"), args.batch, args.size, CLASSES)
        for turn in range(args.rounds):
            times = []
            for steps in (args.steps, 3 * args.steps):
                times.append((bare(args, steps), whole(args, images, Path(folder) / f"{turn}-{steps}", steps)))
            seconds = np.subtract(times[1], times[0])
            rates.append((2 * args.steps * args.batch / seconds).tolist())
            ratios.append(float(seconds[0] / seconds[1]))
    result = {
        "backbone": args.backbone,
        "size": args.size,
        "batch": args.batch,
        "threads": args.threads,
        "bare_images_per_s": [round(b, 2) for b, _ in rates],
        "whole_images_per_s": [round(w, 2) for _, w in rates],
        "ratio": round(statistics.median(ratios), 4),
    }
    write_result(f"train_overhead-{args.backbone}-{args.size}", result)


if __name__ == "__main__":
    main()
