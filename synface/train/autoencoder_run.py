"""The verb ``train autoencoder``: plan, train, standardise the latents, commit the weights."""

import time
from typing import Any

import numpy as np
import torch

from synface.core import crops, rng
from synface.models import autoencoder as autoencoders
from synface.models import recognizers
from synface.models.autoencoder import Autoencoder
from synface.models.denoisers import generator as generators
from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.store import artifact
from synface.train import autoencoder, average_loop, data, distributed, generator_worker, steps_run
from synface.train.average_loop import Place
from synface.train.generator_config import TrainAutoencoderConfig
from synface.train.run import remove_checkpoints

KIND = "autoencoder"
#: images that the latents' mean and spread, and the PSNR, are taken from
MEASURED_IMAGES = 1024


def plan(config: TrainAutoencoderConfig) -> dict[str, Any]:
    """What would be trained on how many images; reads manifests, no images."""
    described = autoencoder.describe(config)
    return {"autoencoder": described.as_dict(), **steps_run.planned(config, parameters(config))}


def parameters(config: TrainAutoencoderConfig) -> int:
    """Of the autoencoder that is asked for."""
    with torch.device("meta"):
        return recognizers.parameter_count(autoencoders.build(autoencoder.describe(config)))


def run(config: TrainAutoencoderConfig) -> dict[str, Any]:
    """Train, or answer at once where this training is finished.

    Returns:
        uri, images, parameters, steps, loss and PSNR (dB, of a fixed choice of training images), seconds, cached.
    """
    started = time.monotonic()
    plan(config)
    opened = artifact.open_output(config, steps_run.input_digests(config))
    if opened.finished is not None:
        return steps_run.result(config, opened.finished.numbers, started, cached=True)
    catalog = data.scan(config.images, config.image_size)
    say(f"train: autoencoder {config.autoencoder} on {len(catalog)} images")
    checkpoint = distributed.launch(config, generator_worker.train_autoencoder, catalog, steps_run.remedy(config))
    state = average_loop.build_state(config, lambda: autoencoder.AutoencoderTrainee(config), Place())
    average_loop.unpack_checkpoint(state, checkpoint, "cpu")
    distributed.check_ended(config.output, state.step, config.steps)
    assert isinstance(state.average, Autoencoder)
    quality = finish(config, catalog, state.average)
    stated = generators.autoencoder_weights_config(
        state.average,
        config.licence,
        steps_run.training_data(config, opened.inputs),
        config.store_dtype,
        config_hash=opened.config_hash,
        steps=state.step,
        psnr=quality,
    )
    entries = steps_run.write_weights(config, state.average, stated, state.history)
    numbers = {
        "images": len(catalog),
        "parameters": recognizers.parameter_count(state.average),
        "steps": state.step,
        "loss": state.history[-1]["loss"],
        "psnr": quality,
    }
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    remove_checkpoints(config.output)
    return steps_run.result(config, numbers, started, cached=False)


def finish(config: TrainAutoencoderConfig, catalog: data.Catalog, module: Autoencoder) -> float:
    """Standardise the latents by some training images; their mean PSNR in dB.

    On one thread, so that the buffers' last bits do not depend on the machine.
    """
    source = generator_worker.open_source(config, catalog)
    count = min(MEASURED_IMAGES, len(catalog))
    images = source.take(np.sort(rng.permutation(len(catalog), config.seed, "measured")[:count]))
    source.close()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            x = torch.from_numpy(crops.to_network(images)).contiguous(memory_format=torch.channels_last)
            module.standardize(x)
            return round(float(autoencoders.psnr(module(x), x).mean()), 4)
    finally:
        torch.set_num_threads(threads)
