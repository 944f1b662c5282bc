"""Small generator trainings without Ray."""

import torch

from synface.settings import build
from synface.train import average_loop, data, generator_setup, generator_worker, loop
from synface.train.average_loop import Place
from synface.train.generator_config import TrainGeneratorConfig

SMALL = {
    "widths": [16, 32], "attention": [False, False], "norm_groups": 8, "head_channels": 16, "condition_dim": 64,
}  # fmt: skip


def config_of(toy, networks, output="unused", **changes) -> TrainGeneratorConfig:
    fields = {
        "images": [toy],
        "output": str(output),
        "image_size": 32,
        "steps": 4,
        "global_batch_size": 4,
        "held_out": 2,
        "architecture": SMALL,
        "optimizer": {"warmup_steps": 0},
        "numerics": {"threads_per_worker": 1},
        "how": {"in_process": True, "checkpoint_every": 2, "samples_every": None},
        **networks,
    }
    return build(TrainGeneratorConfig, fields | changes)


def train(config: TrainGeneratorConfig, folder) -> average_loop.State:
    """Train in this process, without Ray; the state of the last checkpoint."""
    config = config.model_copy(update={"output": str(folder)})
    catalog = data.scan(config.images, config.image_size)
    assert generator_worker.train_generator(config, catalog, str(folder), "cpu") is None
    found = generator_setup.load_networks(config, "cpu")
    state = average_loop.build_state(config, lambda: generator_setup.make_trainee(config, found), Place())
    checkpoint = loop.newest_checkpoint(str(folder))
    assert checkpoint is not None
    average_loop.unpack_checkpoint(state, checkpoint, "cpu")
    return state


def same_bits(a: average_loop.State, b: average_loop.State) -> bool:
    left = [*a.model.state_dict().values(), *a.average.state_dict().values()]
    right = [*b.model.state_dict().values(), *b.average.state_dict().values()]
    return a.history == b.history and all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


def resumed_equals_undisturbed(config: TrainGeneratorConfig, folder) -> average_loop.State:
    """Two steps, and once more from their first checkpoint: equal bits; only the first are looked at."""
    how = config.how.model_copy(update={"checkpoint_every": 1})
    config = config.model_copy(update={"how": how})
    whole = looked_at(config, folder / "whole")
    (folder / "again").mkdir()
    (first,) = [p for p in (folder / "whole").iterdir() if "000000001" in p.name]
    (folder / "again" / first.name).write_bytes(first.read_bytes())
    assert same_bits(train(config, folder / "again"), whole)
    return whole


def looked_at(config: TrainGeneratorConfig, folder) -> average_loop.State:
    """Train two steps with a look at the second one."""
    how = config.how.model_copy(update={"samples_every": 2, "samples_images": 1})
    state = train(config.model_copy(update={"how": how}), folder)
    assert [p.name for p in (folder / "_synface" / "samples").iterdir()] == ["step-000000002.png"]
    return state
