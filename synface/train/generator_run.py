"""The verb ``train generator``: plan, train, commit denoiser and autoencoder as one weights folder."""

import time
from typing import Any

import torch

from synface.core.errors import InputError
from synface.models import denoisers, recognizers, weights
from synface.models.denoisers import generator as generators
from synface.models.denoisers.config import DenoiserConfig
from synface.models.denoisers.unet import Denoiser
from synface.ops.cluster import versions
from synface.ops.runs import say
from synface.store import artifact
from synface.store import uri as uris
from synface.train import (
    average_loop,
    data,
    distributed,
    generator_setup,
    generator_start,
    generator_worker,
    poses,
    steps_run,
)
from synface.train.average_loop import Place, State
from synface.train.generator_config import TrainGeneratorConfig
from synface.train.generator_setup import Networks
from synface.train.run import remove_checkpoints

KIND = "generator"


def plan(config: TrainGeneratorConfig) -> dict[str, Any]:
    """What would be trained on how many images; loads the frozen networks, reads no images."""
    networks = _check(config)
    return {
        "denoiser": networks.description.as_dict(),
        "embedder_sha256": networks.embedder.sha256,
        **steps_run.planned(config, parameters(networks.description)),
    }


def parameters(description: DenoiserConfig) -> int:
    """Of a denoiser, without making it."""
    with torch.device("meta"):
        return recognizers.parameter_count(denoisers.build(description))


def _check(config: TrainGeneratorConfig) -> Networks:
    """Everything that can be refused before any work; the frozen networks."""
    steps_run.table_rows(config)
    networks = generator_setup.load_networks(config, "cpu")
    if config.start is not None and networks.begun is None:
        generator_start.check_file(config, networks.description)
    poses.check(config, networks.description.pose)
    if config.how.inquiries is not None:
        if networks.description.mode == "style":
            raise InputError(
                f"how.inquiries: denoiser {config.denoiser!r} takes the style of the inquiries' pictures, which a "
                "table has not; leave it out"
            )
        generator_worker.read_inquiries(config.how.inquiries, config.embedder)
    return networks


def _placed(config: TrainGeneratorConfig) -> TrainGeneratorConfig:
    """With the table of `how.inquiries` by its absolute path; `how` holds no input that is hashed."""
    if config.how.inquiries is None:
        return config
    how = config.how.model_copy(update={"inquiries": uris.absolute(config.how.inquiries)})
    return config.model_copy(update={"how": how})


def run(config: TrainGeneratorConfig) -> dict[str, Any]:
    """Train, or answer at once where this training is finished.

    Returns:
        uri, images, identities, held_out, parameters, steps, loss and its parts, the threshold of inquiries,
        seconds, cached.
    """
    started = time.monotonic()
    networks = _check(config)
    known = {"embedder": networks.embedder.sha256}
    if config.autoencoder is not None:
        known["autoencoder"] = weights.read_stated(config.autoencoder).sha256
    if config.start is not None:
        known["start"] = generator_start.sha256(config.start)
    opened = artifact.open_output(config, steps_run.input_digests(config, **known))
    if opened.finished is not None:
        return steps_run.result(config, opened.finished.numbers, started, cached=True)
    catalog = data.scan(config.images, config.image_size)
    generator_setup.split_identities(config, catalog)
    mode = networks.description.mode
    say(f"train: {config.denoiser}, mode {mode}, on {len(catalog)} images of {len(catalog.classes)} identities")
    if networks.begun is not None:
        say(f"train: {generator_start.described(config, networks.description, networks.begun)}")
    checkpoint = distributed.launch(
        _placed(config), generator_worker.train_generator, catalog, steps_run.remedy(config)
    )
    state = average_loop.build_state(config, lambda: generator_setup.make_trainee(config, networks), Place())
    average_loop.unpack_checkpoint(state, checkpoint, "cpu")
    distributed.check_ended(config.output, state.step, config.steps)
    assert isinstance(state.average, Denoiser)
    module = generators.Generator(state.average, networks.autoencoder)
    stated = weights_config(config, opened, networks, module, state)
    entries = steps_run.write_weights(config, module, stated, state.history)
    numbers = {
        "images": len(catalog),
        "identities": len(catalog.classes),
        "held_out": config.held_out,
        "parameters": recognizers.parameter_count(module),
        "steps": state.step,
        **{k: v for k, v in state.history[-1].items() if k not in ("step", "lr")},
        "inquiry_threshold": state.facts["inquiries"]["threshold"],
    }
    artifact.commit(config, opened, KIND, entries, numbers, versions())
    remove_checkpoints(config.output)
    return steps_run.result(config, numbers, started, cached=False)


def weights_config(
    config: TrainGeneratorConfig,
    opened: artifact.Opened,
    networks: Networks,
    module: generators.Generator,
    state: State,
) -> weights.WeightsConfig:
    """What is stated beside the trained weights."""
    name = config.embedder if config.embedder in weights.PRETRAINED else networks.embedder.config.architecture
    trained_on = steps_run.training_data(config, opened.inputs)
    if networks.begun is not None:
        trained_on = f"{trained_on.rstrip('.')}; {generator_start.provenance(networks.begun)}"
    provenance = generators.Provenance(name, networks.embedder.sha256, config.licence, trained_on)
    return generators.weights_config(
        module,
        config.denoiser,
        provenance,
        config.store_dtype,
        config_hash=opened.config_hash,
        seed=config.seed,
        steps=state.step,
        inquiry=config.inquiry,
        drop=config.drop,
        **state.facts,
    )
