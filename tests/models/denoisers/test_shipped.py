"""The generator that ships: small, stated, bound to the recognizer that ships, and drawing whom it is asked."""

from pathlib import Path

import numpy as np

from synface.core import dial
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.models.heads import SPLITS, render_image
from synface.models.sampling import SamplerSettings

NAME, PEOPLE, SAMPLES = "cemiface-tiny", 5, 2


def settings_of(stated: weights.WeightsConfig) -> SamplerSettings:
    own = stated.details["sampler"]
    return SamplerSettings(**{**own, "guidance_interval": tuple(own["guidance_interval"])}, micro_batch=10)


def test_it_is_small_and_says_what_it_is():
    stated = weights.read_config(NAME, generators.GENERATOR_KIND)
    assert stated.licence == "Apache-2.0"
    assert "no photograph of a person" in stated.training_data
    assert stated.details["embedder_sha256"] == weights.read_config("heads-fr-tiny").sha256
    assert stated.details["dial"]["sampler"] == stated.details["sampler"]
    files = {f.name: f.stat().st_size for f in Path(weights.locate(NAME)).iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "calibration.json"}
    assert max(files.values()) < 20e6


def test_it_draws_people_whom_nothing_has_seen():
    generator, stated = generators.from_pretrained(NAME)
    scorer = Embedder.from_pretrained("heads-fr-tiny", threads=1)
    seeds = [SPLITS["val"][0] + 300_000 + i for i in range(PEOPLE)]
    pictures = np.stack([render_image("heads-real", seed, k, 64).image for seed in seeds for k in range(2)])
    centre_id = scorer.embed(pictures).reshape(PEOPLE, 2, -1).mean(1)
    centre_id /= np.linalg.norm(centre_id, axis=1, keepdims=True)
    fitted = dial.Dial.from_dict(stated.details["dial"])
    realised = {}
    for target in (0.2, 0.6):
        m = dial.ask(fitted, np.full(PEOPLE * SAMPLES, target)).m_n.astype(np.float32)
        keys: list[sampling.Key] = [(str(seed), k) for seed in seeds for k in range(SAMPLES)]
        latents = sampling.sample(
            generator.denoiser, np.repeat(centre_id, SAMPLES, 0), m, 0, keys, settings_of(stated)
        )
        found = scorer.embed(sampling.to_images(latents, generator.autoencoder))
        realised[target] = np.einsum("nd,nd->n", found, np.repeat(centre_id, SAMPLES, 0))
    # ten samples of five people: 0.12 a sample and the people's own spread leave about 0.05
    assert abs(realised[0.6].mean() - 0.6) < 0.15
    assert abs(realised[0.2].mean() - 0.2) < 0.15
