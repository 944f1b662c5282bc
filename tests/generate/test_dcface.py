"""The generator `dcface`: style images drawn by key, and one key per image."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusion_helpers import SMALL, rendered, write_people, write_weights
from generate_helpers import noise_picture, write_pictures

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.generators.dcface import DcfaceGenerator
from synface.generate.generators.style_images import StyleImages
from synface.generate.identities import input_digests
from synface.generate.run import plan
from synface.models import sampling
from synface.models.denoisers import generator as generators
from synface.settings import build
from synface.store import schemas, tables

DUAL = dataclasses.replace(
    SMALL, conditioning="cross_attention", mode="style", ridge=False, attention=(False, True), context_tokens=2,
    style_grid=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "dual", DUAL)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> str:
    return write_people(tmp_path_factory.mktemp("people") / "ids", count=3)


@pytest.fixture(scope="module")
def styles(tmp_path_factory) -> str:
    return write_pictures(tmp_path_factory.mktemp("styles") / "images")


def config_of(weights_uri, people, styles, **fields) -> GenerateConfig:
    own = {"weights": weights_uri, "style_images": styles} | fields.pop("dcface", {})
    base = {
        "generator": "dcface", "identities": people, "images_per_identity": 4, "image_size": 16, "format": "png",
        "dcface": own, "numerics": {"micro_batch": 4}, "output": "unused", "how": {"max_actors": 1},
    }  # fmt: skip
    return build(GenerateConfig, base | fields)


def test_an_image_depends_on_its_own_key_alone(trained, people, styles):
    config = config_of(trained, people, styles)
    whole, mixed = rendered(config), rendered(config, rng.permutation(12, 0).tolist(), group=3)
    for a, b in zip(whole, mixed, strict=True):
        assert np.array_equal(a.pixels, b.pixels) and a.attributes == b.attributes
    assert len({s.pixels.tobytes() for s in whole}) == 12
    few = rendered(config_of(trained, people, styles, images_per_identity=2))
    assert all(np.array_equal(few[i].pixels, whole[i // 2 * 4 + i % 2].pixels) for i in range(6))


def test_pixels_from_the_pieces(trained, people, styles):
    """The drawn style image, encoded; the keyed noise; the weights' own three steps; the decoder."""
    sample = rendered(config_of(trained, people, styles, seed=4))[1 * 4 + 3]
    number = int(rng.generator(4, "p1", 3, "style").integers(0, 7))
    assert sample.attributes == {"inquiry": False, "style": number, "cone_cosine": None}
    module, _ = generators.from_pretrained(trained)
    torch.set_num_threads(1)
    with torch.no_grad():
        style = module.autoencoder.encode(torch.from_numpy(crops.to_network(noise_picture(number)[None]))).numpy()
    x = schemas.embeddings(tables.read_identities(people))
    settings = sampling.SamplerSettings(steps=3, micro_batch=4)
    z = sampling.sample(module.denoiser, x[1:2], np.ones(1), 4, [("p1", 3)], settings, style_nchw=style)
    expected = sampling.to_images(z, module.autoencoder, 4)[0]
    assert np.abs(sample.pixels.astype(int) - expected).max() <= 1  # another memory format's last bit


def test_styles_are_of_the_tables_beginning_and_uniform(styles):
    keys = [("someone", k) for k in range(700)]
    drawn = StyleImages(styles, 1000, 16).draw(0, keys)
    assert np.bincount(drawn, minlength=7).min() > 60  # 100 expected each, 4 sigma: 37 less
    assert drawn[5] == rng.generator(0, "someone", 5, "style").integers(0, 7)
    for count in (3, 5):  # within the first file, and beyond it
        few = StyleImages(styles, count, 16)
        assert set(few.draw(0, keys).tolist()) == set(range(count))
        np.testing.assert_array_equal(
            few.samples(np.array([count - 1]), None, 4)[0], crops.to_network(noise_picture(count - 1)[None])[0]
        )


def test_negatives_keep_the_style(trained, people, styles):
    plain = rendered(config_of(trained, people, styles))
    guided = {"negative": "random", "sampler": {"guidance": 1.5}}
    away = rendered(config_of(trained, people, styles, dcface=guided))
    assert [s.attributes["style"] for s in away] == [s.attributes["style"] for s in plain]
    assert not any(np.array_equal(a.pixels, b.pixels) for a, b in zip(away, plain, strict=True))


def test_the_styles_content_names_the_result(trained, people, styles, tmp_path):
    def digests(uri):
        config = config_of(trained, people, uri)
        return input_digests(config, DcfaceGenerator.describe(config))

    assert digests(styles)["dcface.style_images"] == digests(write_pictures(tmp_path / "same"))["dcface.style_images"]
    assert digests(styles)["dcface.style_images"] != digests(write_pictures(tmp_path / "o", 6))["dcface.style_images"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dcface": {"style_images": None}}, "give dcface.style_images"),
        ({"dcface": {"style_images": "/nowhere"}}, "nowhere"),
        ({"variation": {"m": 0.5}}, "knows no similarity factor"),
        ({"identities": None, "num_identities": 3}, "draws given people"),
    ],
)
def test_refused_before_any_work(trained, people, styles, fields, message):
    with pytest.raises(InputError, match=message):
        plan(config_of(trained, people, styles, **fields))


def test_styles_of_another_size_are_refused(trained, people, tmp_path):
    with pytest.raises(InputError, match=r"dcface.style_images .*of 32 pixels, the generator takes 16"):
        plan(config_of(trained, people, write_pictures(tmp_path / "large", size=32)))
