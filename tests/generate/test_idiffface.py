"""The generator `idiffface` and identities that the run makes itself: uniform, mixtures, nobody in particular."""

import dataclasses

import numpy as np
import pytest
from diffusion_helpers import EMBEDDER, SMALL, rendered, write_people, write_weights

from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.generate import conditions
from synface.generate.config import GenerateConfig
from synface.generate.generators.idiffface import IdifffaceGenerator
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import shard_items
from synface.generate.run import plan
from synface.models import vq
from synface.models.denoisers import config as denoisers
from synface.models.denoisers import generator as generators
from synface.settings import build
from synface.store import images, schemas, tables

CONTEXT = dataclasses.replace(
    SMALL, conditioning="context_attention", mode="identity", ridge=False, attention=(False, True), context_tokens=2,
    context_dropout=0.25,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "idiff", CONTEXT, drop=0.1)


@pytest.fixture(scope="module")
def cemiface(tmp_path_factory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "cemi")


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> str:
    return write_people(tmp_path_factory.mktemp("people") / "ids")


def config_of(weights_uri, people=None, **fields) -> GenerateConfig:
    base = {
        "generator": "idiffface", "images_per_identity": 3, "image_size": 16, "format": "png", "output": "unused",
        "idiffface": {"weights": weights_uri}, "numerics": {"micro_batch": 4}, "how": {"max_actors": 1},
    }  # fmt: skip
    return build(GenerateConfig, base | ({} if people is None else {"identities": people}) | fields)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> str:
    """The network of the release, small, in the latents of a VQ autoencoder, its faces framed as in FFHQ."""
    network = dataclasses.replace(
        denoisers.IDIFFFACE, widths=(32, 64), attention=(False, True), layers_per_block=1, sample_size=8,
        embedding_dim=8, condition_dim=32, head_channels=16, context_tokens=4,
    )  # fmt: skip
    codec = vq.VQConfig(image_size=32, widths=(32, 64, 32), layers=1, codes=20)
    place = tmp_path_factory.mktemp("weights") / "release"
    return write_weights(place, network, codec, framing="ffhq", drop=0.0)


def test_the_released_network_draws_crops_for_recognizers(release, people):
    whole, crops = (rendered(config_of(release, people, image_size=size)) for size in (32, 24))
    assert [s.pixels.shape for s in crops[:2]] == [(24, 24, 3)] * 2
    assert len({s.pixels.tobytes() for s in crops}) == 15
    generator, _ = generators.from_pretrained(release)
    config = config_of(release, people, image_size=32)
    drawn = IdifffaceGenerator(config)
    drawn._framing = None  # the pictures themselves
    found = opened(config)
    items = shard_items(0, shard_identities(IdifffaceGenerator, config, range(1), found.columns), 3)
    for picture, framed, crop in zip(drawn.render(items), whole, crops, strict=False):
        assert np.array_equal(framed.pixels, images.face_crop(picture.pixels, 32))
        assert np.array_equal(crop.pixels, images.face_crop(picture.pixels, 24))
    assert generator.image_size == 32
    with pytest.raises(
        InputError, match=r"image_size = 40: .* makes images of 32 pixels; .* smaller ones are cropped"
    ):
        IdifffaceGenerator.describe(config_of(release, people, image_size=40))
    with pytest.raises(InputError, match="cannot draw nobody in particular"):
        IdifffaceGenerator.describe(config_of(release, image_size=24, num_identities=2, images_per_identity=1))


def opened(config):
    return open_identities(config, IdifffaceGenerator.describe(config))


def test_an_image_depends_on_its_own_key_alone(trained, people):
    options = {"weights": trained, "sampler": {"guidance": 1.5}, "negative": "nearest"}
    for config in (config_of(trained, people), config_of(trained, people, idiffface=options)):
        whole, mixed = rendered(config), rendered(config, rng.permutation(15, 0).tolist(), group=3)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(whole, mixed, strict=True))
        assert len({s.pixels.tobytes() for s in whole}) == 15 and whole[0].m is None
        assert whole[0].attributes == {"inquiry": False, "cone_cosine": None}


def test_cones_vary_the_context(trained, people):
    config = config_of(trained, people, variation={"cone": {"lower": 0.8, "separate": False}})
    samples = rendered(config)
    expected = conditions.cone_cosines(0, [("p1", k) for k in range(3)], 0.8)
    np.testing.assert_allclose([s.attributes["cone_cosine"] for s in samples[3:6]], expected, atol=1e-6)


def test_uniform_contexts_are_keyed_points_of_the_sphere(trained):
    config = config_of(trained, num_identities=400, contexts={"uniform": True}, seed=5)
    found = opened(config)
    x = schemas.embeddings(found.columns)
    assert x.shape == (400, 8) and found.columns["identity_id"][7].as_py() == "uniform-0000000007"
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    assert np.abs(x.mean(0)).max() < 5 / np.sqrt(8 * 400)  # each coordinate has variance 1 / d
    np.testing.assert_allclose((x.T @ x) / 400, np.eye(8) / 8, atol=0.04)
    by_hand = sphere.normalize(rng.normal_rows(5, [("uniform", 7)], (8,)))
    np.testing.assert_allclose(x[7], by_hand[0], atol=1e-6)
    few = opened(config_of(trained, num_identities=3, first_seed=7, contexts={"uniform": True}, seed=5))
    assert np.array_equal(schemas.embeddings(few.columns), x[7:10])


def test_uniform_contexts_are_kept_apart(trained):
    options = {"weights": trained, "sampler": {"guidance": 1.5}, "negative": "nearest", "inquiries_below": 0.5}
    config = config_of(trained, num_identities=12, contexts={"uniform": True}, idiffface=options)
    found = opened(config)
    x = schemas.embeddings(found.columns)
    assert 1 < found.count < 12 and (x @ x.T - 2 * np.eye(len(x))).max() < 0.5
    assert plan(config)["images"] == 3 * found.count


def test_mixtures_are_synfaces_formula(trained, people):
    """normalize(share a + (1 - share) b), parents and share by number; for cemiface the same identities."""
    config = config_of(trained, people, contexts={"mixup": 20, "share": [0.2, 0.8]}, seed=3, images_per_identity=1)
    x = schemas.embeddings(tables.read_identities(people))
    found = opened(config)
    keys = [("mixup", n) for n in range(20)]
    parents, share = conditions.parents(3, keys, 5), conditions.shares(3, keys, 0.2, 0.8)[:, None]
    expected = sphere.normalize(share * x[parents[:, 0]] + (1 - share) * x[parents[:, 1]])
    np.testing.assert_allclose(schemas.embeddings(found.columns), expected, atol=1e-6)
    assert found.columns["source"][4].as_py() == "mixup of p{} and p{}".format(*parents[4])
    more = opened(config_of(trained, people, contexts={"mixup": 25, "share": [0.2, 0.8]}, seed=3))
    assert more.digest(20) == found.digest(20)
    assert len({s.pixels.tobytes() for s in rendered(config)}) == 20


def test_nobody_in_particular_is_the_null_context(trained):
    """The first stage of two-stage contexts: one picture each, by its own noise."""
    config = config_of(trained, num_identities=6, images_per_identity=1)
    whole, mixed = rendered(config), rendered(config, [4, 1, 5, 0, 3, 2], group=2)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(whole, mixed, strict=True))
    later = rendered(config_of(trained, num_identities=2, first_seed=4, images_per_identity=1))
    assert np.array_equal(later[0].pixels, whole[4].pixels) and len({s.pixels.tobytes() for s in whole}) == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variation": {"m": 0.5}}, "knows no similarity factor"),
        ({"variation": {"similarity": 0.5}}, "knows no similarity factor"),
        ({"idiffface": {}}, "give idiffface.weights"),
        ({"identities": None, "num_identities": 3}, "set images_per_identity = 1"),
    ],
)
def test_refused_before_any_work(trained, people, fields, message):
    with pytest.raises(InputError, match=message):
        plan(config_of(trained, people, **fields))


def test_weights_of_another_generator_are_refused(trained, cemiface, people):
    with pytest.raises(InputError, match="trained in mode hybrid, it draws with identity"):
        plan(config_of(cemiface, people))
    swapped = {"generator": "cemiface", "cemiface": {"weights": trained}, "variation": {"m": 0.5}}
    with pytest.raises(InputError, match="trained in mode identity, it draws with paper, relation, hybrid"):
        plan(config_of(trained, people, **swapped))


def test_weights_without_dropped_conditions_draw_nobody(tmp_path):
    never = write_weights(tmp_path / "never", CONTEXT, drop=0.0)
    with pytest.raises(InputError, match="trained without dropped conditions"):
        plan(config_of(never, num_identities=2, images_per_identity=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contexts": {"uniform": True}}, "give num_identities instead"),
        ({"identities": None, "num_identities": 3, "contexts": {"mixup": 3}}, "mixes given people"),
        ({"contexts": {"mixup": 3, "share": [0.9, 0.1]}}, "low before high"),
    ],
)
def test_refused_configurations(trained, people, fields, message):
    with pytest.raises(InputError, match=message):
        config_of(trained, people, **fields)


def test_heads_draw_no_contexts(people):
    config = build(
        GenerateConfig, {"generator": "heads", "identities": people, "contexts": {"mixup": 3}, "output": "unused"}
    )
    with pytest.raises(InputError, match="draws no embedding"):
        plan(config)


def test_people_of_another_embedder_are_not_mixed(trained, tmp_path):
    other = write_people(tmp_path / "ids", sha="cd" * 32)
    with pytest.raises(InputError, match=EMBEDDER[:12]):
        opened(config_of(trained, other, contexts={"mixup": 3}))
