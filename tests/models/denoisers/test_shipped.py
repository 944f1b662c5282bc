"""The generators that ship: small, stated, bound to the recognizer that ships, and drawing whom they are asked."""

from pathlib import Path

import numpy as np
import pytest

from synface.core import dial
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.models.heads import SPLITS, render_image
from synface.models.sampling import SamplerSettings

PEOPLE, SAMPLES = 5, 2


def settings_of(stated: weights.WeightsConfig) -> SamplerSettings:
    own = stated.details["sampler"]
    return SamplerSettings(**{**own, "guidance_interval": tuple(own["guidance_interval"])}, micro_batch=10)


@pytest.mark.parametrize(("name", "mode"), [("cemiface-tiny", "hybrid"), ("cemiface-tiny-paper", "paper")])
def test_it_is_small_and_says_what_it_is(name, mode):
    stated = weights.read_config(name, generators.GENERATOR_KIND)
    assert stated.details["denoiser"]["mode"] == mode
    assert stated.licence == "Apache-2.0"
    assert "no photograph of a person" in stated.training_data
    assert stated.details["embedder_sha256"] == weights.read_config("heads-fr-tiny").sha256
    assert stated.details["dial"]["sampler"] == stated.details["sampler"]
    files = {f.name: f.stat().st_size for f in Path(weights.locate(name)).iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "calibration.json"}
    assert max(files.values()) < 20e6


def test_all_that_ships_is_small_together():
    folders = [Path(weights.locate(name)) for name in weights.PRETRAINED]
    assert sum(f.stat().st_size for folder in folders for f in folder.iterdir()) < 40e6


def test_the_papers_mode_is_the_papers_network():
    denoiser = weights.read_config("cemiface-tiny-paper", generators.GENERATOR_KIND).details["denoiser"]
    assert denoiser["conditioning"] == "cross_attention" and not denoiser["ridge"]


@pytest.mark.parametrize(("name", "targets"), [("cemiface-tiny", (0.2, 0.6)), ("cemiface-tiny-paper", (0.2, 0.5))])
def test_it_draws_people_whom_nothing_has_seen(name, targets):
    generator, stated = generators.from_pretrained(name)
    scorer = Embedder.from_pretrained("heads-fr-tiny", threads=1)
    seeds = [SPLITS["val"][0] + 300_000 + i for i in range(PEOPLE)]
    pictures = np.stack([render_image("heads-real", seed, k, 64).image for seed in seeds for k in range(2)])
    centre_id = scorer.embed(pictures).reshape(PEOPLE, 2, -1).mean(1)
    centre_id /= np.linalg.norm(centre_id, axis=1, keepdims=True)
    fitted = dial.Dial.from_dict(stated.details["dial"])
    for target in targets:
        m = dial.ask(fitted, np.full(PEOPLE * SAMPLES, target)).m_n.astype(np.float32)
        keys: list[sampling.Key] = [(str(seed), k) for seed in seeds for k in range(SAMPLES)]
        latents = sampling.sample(
            generator.denoiser, np.repeat(centre_id, SAMPLES, 0), m, 0, keys, settings_of(stated)
        )
        found = scorer.embed(sampling.to_images(latents, generator.autoencoder))
        realised = np.einsum("nd,nd->n", found, np.repeat(centre_id, SAMPLES, 0)).mean()
        # ten samples of five people: 0.12 a sample and the people's own spread leave about 0.05
        assert abs(realised - target) < 0.15
