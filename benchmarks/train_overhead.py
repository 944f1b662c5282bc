"""The whole Ray Train loop against a bare PyTorch loop on tensors in memory: images per second, and their ratio.

    python benchmarks/train_overhead.py                      # r18 at 112, two threads: asked at least 0.95
    python benchmarks/train_overhead.py --backbone tiny --size 64 --steps 16 --batch 16    # a try

The bare loop has the same network, head, loss and optimizer, decodes and augments nothing. The two take turns step by
step in one process, a worker of Ray Train: a machine whose speed changes slows both. The turn is given by the backbone
itself, whose forward pass first takes one bare step. A step of the whole loop is everything from there to the next
forward pass: batch, loss, optimizer, curves, epochs' ends. Batches are made ahead on another thread, in either one's
turn; the ratio assumes the worst, all of them in the bare loop's: what a batch costs, `loader_seconds` of CPU time, is
taken from its steps and added to the others.
"""

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from loader import write_images
from torch import nn
from torch.nn import functional

from common import write_result
from synface.models import recognizers
from synface.settings import build
from synface.train import data, loop, margins, run
from synface.train.config import TrainRecognizerConfig

CLASSES = 16
EPOCH_STEPS = 8
WARM_STEPS = 3
#: what the worker process is told, and where it writes a line [bare, whole] of seconds for every step
ASKED, LINES = "TRAIN_OVERHEAD_ASKED", "TRAIN_OVERHEAD_LINES"


def bare(backbone: str, size: int, batch: int) -> Iterator[None]:
    """A plain loop; one step for each turn."""
    model = recognizers.build(backbone, 512, size).to(memory_format=torch.channels_last).train()
    centres = nn.Parameter(torch.randn(CLASSES, 512) * 0.01)
    optimizer = torch.optim.SGD([*model.parameters(), centres], lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % CLASSES
    while True:
        cos = functional.normalize(model(x)) @ functional.normalize(centres).T
        loss = functional.cross_entropy(margins.cosface(cos, labels), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), centres], 5.0)
        optimizer.step()
        loss.item()
        yield


class Turns(nn.Module):
    """A backbone that takes a bare step before each of its own training passes."""

    def __init__(self, backbone: str, embedding_dim: int, size: int, batch: int):
        super().__init__()
        self.network = recognizers.build(backbone, embedding_dim, size)
        self._bare = functools.partial(bare, backbone, size, batch)
        self._turn: Iterator[None] | None = None
        self._resumed = 0.0

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """As the network's."""
        if self.training:
            entered = time.perf_counter()
            if self._turn is None:
                with torch.random.fork_rng(devices=[]):
                    self._turn = self._bare()
            next(self._turn)
            left = time.perf_counter()
            if self._resumed:
                with open(os.environ[LINES], "a") as sink:
                    print(json.dumps([left - entered, entered - self._resumed]), file=sink)
            self._resumed = time.perf_counter()
        return self.network(x_nchw)


def make(embedding_dim: int, input_size: int) -> nn.Module:
    """The plug-in backbone."""
    asked = json.loads(os.environ[ASKED])
    return Turns(asked["backbone"], embedding_dim, input_size, asked["batch"])


def loader_seconds(config: TrainRecognizerConfig) -> float:
    """CPU seconds that a batch takes to be made."""
    catalog = data.scan(config.images, config.image_size)
    source = data.ImageSource(catalog, config.image_size, config.how.memory_gb * data.GIB, threads=1)
    try:
        batches = loop.batches(config, catalog, source, loop.shape_of(config, catalog), 0)
        next(batches)
        start = time.process_time()
        for _ in range(EPOCH_STEPS):
            next(batches)
        return (time.process_time() - start) / EPOCH_STEPS
    finally:
        source.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="r18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--in-process", action="store_true", help="without a worker process of Ray's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[ASKED] = json.dumps({"backbone": args.backbone, "batch": args.batch})
        os.environ[LINES] = str(Path(folder) / "lines")
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        config = build(
            TrainRecognizerConfig,
            {
                "images": [write_images(f"{folder}/images", EPOCH_STEPS * args.batch, args.size, CLASSES)],
                "output": f"{folder}/recognizer",
                "backbone": f"{Path(__file__).stem}:make",
                "image_size": args.size,
                "embedding_dim": 512,
                "epochs": -(-args.steps // EPOCH_STEPS),
                "global_batch_size": args.batch,
                "optimizer": {"lr": 0.01, "warmup_epochs": 0},
                "numerics": {"threads_per_worker": args.threads},
                "how": {"in_process": args.in_process, "checkpoint_seconds": 3600, "log_every": 1},
            },
        )
        loading = loader_seconds(config)
        run.run(config)
        seconds = [json.loads(line) for line in Path(os.environ[LINES]).read_text().splitlines()][WARM_STEPS:]
    bare_s, whole_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    result = {
        "backbone": args.backbone,
        "size": args.size,
        "batch": args.batch,
        "threads": args.threads,
        "steps": len(seconds),
        "bare_images_per_s": round(args.batch / bare_s, 3),
        "whole_images_per_s": round(args.batch / whole_s, 3),
        "loader_seconds": round(loading, 4),
        "ratio_of_sums": round(sum(b for b, _ in seconds) / sum(w for _, w in seconds), 4),
        "ratio": round(statistics.median((b - loading) / (w + loading) for b, w in seconds), 4),
    }
    write_result(f"train_overhead-{args.backbone}-{args.size}", result)


if __name__ == "__main__":
    main()
