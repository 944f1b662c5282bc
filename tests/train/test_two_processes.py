"""The training loop of a sharded head in real processes: data parallelism, merged checkpoints, another world size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synface.settings import build
from synface.train import data, loop
from synface.train.config import TrainRecognizerConfig

ROOT = Path(__file__).parents[2]
FIELDS = {
    "output": "unused",
    "backbone": "tiny",
    "image_size": 32,
    "embedding_dim": 16,
    "epochs": 2,
    "global_batch_size": 8,
    "margin": {"s": 16, "m": 0.2},
    "head": {"sharded": True, "sample_rate": 0.7},
    "optimizer": {"lr": 0.05, "warmup_epochs": 0},
}
WORKER = """
import json, sys
import torch
from torch import distributed
from synface.settings import build
from synface.train import data, loop
from synface.train.config import TrainRecognizerConfig

fields, folder, rank, world, until = json.loads(sys.argv[1])
torch.set_num_threads(1)
store = distributed.FileStore(folder + f"/rendezvous-{world}", world)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
config = build(TrainRecognizerConfig, fields)
catalog = data.scan(config.images, config.image_size)
shape = loop.shape_of(config, catalog)
state = loop.build_state(config, shape)
saved = loop.newest_checkpoint(folder)
if saved is not None:
    loop.unpack_checkpoint(state, saved, "cpu")
source = data.ImageSource(catalog, config.image_size, 1 << 30)

class Done(Exception):
    pass

def save(state):
    loop.save_checkpoint(folder, state, rank)
    if state.step == until:
        raise Done

try:
    loop.run_steps(config, catalog, source, shape, state, lambda s, ended: s.step == until, save)
except Done:
    pass
distributed.barrier()
distributed.destroy_process_group()
"""


def run_workers(fields: dict, folder: Path, world: int, until: int) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps([fields, str(folder), rank, world, until])],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=1200)
        assert job.returncode == 0, errors[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_sharded_training_moves_between_worlds(toy_images, tmp_path):
    """Two processes, then three steps in this one: finite, learning, and the merged state is that of all rows."""
    fields = {**FIELDS, "images": [toy_images]}
    run_workers({**fields, "numerics": {"num_workers": 2}}, tmp_path, 2, 3)
    saved = loop.newest_checkpoint(str(tmp_path))
    assert saved is not None
    config = build(TrainRecognizerConfig, fields)
    catalog = data.scan(config.images, 32)
    shape = loop.shape_of(config, catalog)
    state = loop.build_state(config, shape)
    start = state.model.head.weight.detach().clone()
    loop.unpack_checkpoint(state, saved, "cpu")
    assert state.step == 3
    assert state.model.head.weight.shape == (6, 16)
    moved = (state.model.head.weight.detach() - start).norm(dim=1)
    assert (moved > 0).all()  # the rows of both workers
    momentum = state.optimizer.state_dict()["state"]
    assert max(len(v["momentum_buffer"]) for v in momentum.values() if v["momentum_buffer"].shape[1:] == (16,)) == 6
    source = data.ImageSource(catalog, 32, 1 << 30)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = loop.run_steps(config, catalog, source, shape, state, lambda s, ended: False, lambda s: None)
    torch.set_num_threads(threads)
    assert result is None and state.step == 6
    losses = [entry["loss"] for entry in state.history]
    assert len(losses) == 2 and losses[1] < losses[0] and np.isfinite(losses).all()
