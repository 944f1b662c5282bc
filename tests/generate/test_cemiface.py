"""The generator `cemiface`, with small random weights: what it asks, what it refuses, and one key per image."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusion_helpers import rendered, write_people, write_weights
from generate_helpers import DemoIdentities

from synface.core import rng
from synface.core.errors import InputError
from synface.generate import asked, conditions
from synface.generate.config import GenerateConfig
from synface.generate.generators.cemiface import CemifaceGenerator
from synface.generate.identities import input_digests, open_identities, shard_identities
from synface.generate.run import plan, run
from synface.models import sampling
from synface.models.denoisers import generator as generators
from synface.settings import build, hashed_fields
from synface.store import artifact, images, schemas, tables

DIAL = {"m": [-1.0, 0.0, 1.0], "realised": [-0.2, 0.2, 0.6], "sampler": {"solver": "dpmsolver++", "steps": 3}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "plain", inquiries={"threshold": 0.3})


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "dial", dial=DIAL)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> str:
    return write_people(tmp_path_factory.mktemp("people") / "ids")


def config_of(weights_uri, people, output="unused", **fields) -> GenerateConfig:
    base = {
        "generator": "cemiface", "identities": people, "images_per_identity": 6, "image_size": 16, "format": "png",
        "variation": {"m": 0.5}, "cemiface": {"weights": weights_uri}, "numerics": {"micro_batch": 4},
        "output": str(output), "how": {"max_actors": 1},
    }  # fmt: skip
    return build(GenerateConfig, base | fields)


def test_an_image_depends_on_its_own_key_alone(trained, people):
    config = config_of(trained, people, variation={"m": [-0.5, 0.5]})
    whole = rendered(config)
    mixed = rendered(config, rng.permutation(30, 0).tolist(), group=3)
    alone = rendered(config, group=1)
    for a, b, c in zip(whole, mixed, alone, strict=True):
        assert np.array_equal(a.pixels, b.pixels) and np.array_equal(a.pixels, c.pixels) and a.m == b.m == c.m
    assert len({s.pixels.tobytes() for s in whole}) == 30
    few = rendered(config_of(trained, people, variation={"m": [-0.5, 0.5]}, images_per_identity=2))
    for i, sample in enumerate(few):
        assert np.array_equal(sample.pixels, whole[i // 2 * 6 + i % 2].pixels)


def test_rounded_products_move_pixels_little_and_keep_the_key(trained, people):
    plain, rounded = ({"numerics": {"micro_batch": 4, "dtype": dtype}} for dtype in ("float32", "bfloat16"))
    exact = np.stack([s.pixels for s in rendered(config_of(trained, people, **plain))]).astype(int)
    config = config_of(trained, people, **rounded)
    whole = rendered(config)
    mixed = rendered(config, rng.permutation(30, 0).tolist(), group=3)
    for a, b in zip(whole, mixed, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
    error = np.abs(np.stack([s.pixels for s in whole]) - exact)
    contrast = np.abs(exact - exact.mean((0, 1, 2))).mean()
    assert 0 < error.mean() < 0.1 * contrast  # eight bits of mantissa, three steps of a network


def test_pixels_are_the_samplers(trained, people):
    """One image from the pieces: the keyed noise, the weights' own three steps, the decoder."""
    module, _ = generators.from_pretrained(trained)
    x = schemas.embeddings(tables.read_identities(people))
    settings = sampling.SamplerSettings(steps=3, micro_batch=4)
    torch.set_num_threads(1)
    z = sampling.sample(module.denoiser, x[2:3], np.array([0.5]), 0, [("p2", 4)], settings)
    expected = sampling.to_images(z, module.autoencoder, 4)[0]
    sample = rendered(config_of(trained, people))[2 * 6 + 4]
    assert np.abs(sample.pixels.astype(int) - expected).max() <= 1  # another memory format's last bit
    assert sample.m == 0.5 and sample.similarity_target is None and not sample.attributes["inquiry"]


@pytest.mark.parametrize(
    ("wanted", "spec"),
    [
        (0.25, conditions.Fixed(0.25)),
        ([-0.1, 0.1], conditions.Range(-0.1, 0.1)),
        ("-0.1,0.1", conditions.Range(-0.1, 0.1)),
        ({"schedule": [0, 0.5, 1]}, conditions.Schedule((0.0, 0.5, 1.0))),
        (
            {"mixture": [{"fixed": 0.0}, {"range": [0.4, 0.6], "weight": 3}]},
            conditions.Mixture((conditions.Fixed(0.0), conditions.Range(0.4, 0.6)), (1.0, 3.0)),
        ),
    ],
)
def test_what_is_asked_is_what_conditions_say(trained, people, wanted, spec):
    samples = rendered(config_of(trained, people, variation={"m": wanted}, seed=7))
    for person in range(5):
        expected = conditions.factors(spec, 7, f"p{person}", range(6))
        np.testing.assert_allclose([s.m for s in samples[person * 6 : person * 6 + 6]], expected, atol=1e-7)


def test_a_target_is_asked_through_the_dial(calibrated, people):
    """The dial realises 0.2 + 0.4 m: target 0.4 asks for 0.5, and its pictures are those of m = 0.5."""
    through = rendered(config_of(calibrated, people, variation={"similarity": 0.4}))
    direct = rendered(config_of(calibrated, people, variation={"m": 0.5}))
    for a, b in zip(through, direct, strict=True):
        assert a.m == pytest.approx(0.5) and np.array_equal(a.pixels, b.pixels)
        assert a.similarity_target == pytest.approx(0.4) and a.attributes["similarity_expected"] == pytest.approx(0.4)


def test_a_row_of_a_schedule_shares_its_noise(trained, people):
    rows = rendered(config_of(trained, people, variation={"m": {"schedule": [0.1, 0.1, 0.9]}, "share_noise": True}))
    assert [s.attributes["noise_sample"] for s in rows[:6]] == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(rows[0].pixels, rows[1].pixels) and not np.array_equal(rows[0].pixels, rows[2].pixels)
    assert not np.array_equal(rows[0].pixels, rows[3].pixels)


@pytest.mark.parametrize("separate", [True, False])
def test_cones_are_drawn_by_key_and_keep_apart(trained, people, separate):
    x = schemas.embeddings(tables.read_identities(people))
    nearest = (x @ x.T - 2 * np.eye(5)).max(1)
    bound = np.sqrt((1 + nearest) / 2) if separate else np.zeros(5)
    config = config_of(trained, people, variation={"m": 1.0, "cone": {"lower": 0.75, "separate": separate}})
    samples = rendered(config)
    for person in range(5):
        keys = [(f"p{person}", k) for k in range(6)]
        expected = conditions.cone_cosines(0, keys, max(0.75, bound[person]))
        own = [s.attributes["cone_cosine"] for s in samples[person * 6 : person * 6 + 6]]
        np.testing.assert_allclose(own, expected, atol=1e-6)
    keys = [(f"p{k}", 3) for k in range(5)]
    drawn, cosine = asked.embeddings(config.variation, 0, x, list(nearest), keys)
    np.testing.assert_allclose((drawn * x).sum(1), cosine, atol=1e-6)
    if separate:
        assert ((drawn @ x.T).argmax(1) == np.arange(5)).all()


def write_inquiries(folder) -> str:
    """An images table with two pictures of each person, the second first."""
    config = DemoIdentities(output=str(folder), count=99)
    opened = artifact.open_output(config)
    schema = schemas.images_schema(pa.struct([("k", pa.int32())]))
    rows = [
        {
            "image": {"bytes": images.encode(np.full((16, 16, 3), 40 * i + k, np.uint8), "png", 0, "algorithmicMedia"),
                      "path": "x.png"},
            "label": i, "identity_id": f"p{i}", "sample": k, "attributes": {"k": k}, "seed": 0, "generator": "toy",
            "weights_sha256": "", "config_hash": "",
        }
        for i in range(5) for k in (1, 0)
    ]  # fmt: skip
    entry = artifact.write_file(
        config.output, "data/a.parquet", tables.parquet_bytes(pa.Table.from_pylist(rows, schema=schema)), 10
    )
    artifact.commit(config, opened, "images", [entry], {})
    return str(folder)


def test_copies_of_the_inquiry_come_first_and_change_nothing_else(trained, people, tmp_path):
    inquiries = write_inquiries(tmp_path / "inquiries")
    options = {"weights": trained, "inquiry_repeats": 2, "inquiry_images": inquiries}
    copied = rendered(config_of(trained, people, cemiface=options, images_per_identity=8))
    plain = rendered(config_of(trained, people))
    for person in range(5):
        own = copied[person * 8 : person * 8 + 8]
        assert all((s.pixels == 40 * person).all() and s.attributes["inquiry"] and s.m is None for s in own[:2])
        for a, b in zip(own[2:], plain[person * 6 : person * 6 + 6], strict=True):
            assert np.array_equal(a.pixels, b.pixels)
    missing = write_people(tmp_path / "more", count=6)
    last = rendered(config_of(trained, missing, cemiface=options, images_per_identity=3))[15]
    assert "no picture of identity 'p5'" in last.error


def test_inquiries_are_kept_apart(trained, people, capsys):
    x = schemas.embeddings(tables.read_identities(people))
    kept = [0]
    for i in range(1, 5):
        if (x[kept] @ x[i]).max() < 0.3:
            kept.append(i)
    assert 1 < len(kept) < 5
    for below in (0.3, "threshold"):
        config = config_of(trained, people, cemiface={"weights": trained, "inquiries_below": below})
        found = open_identities(config, CemifaceGenerator.describe(config))
        assert found.columns["identity_id"].to_pylist() == [f"p{i}" for i in kept]
        assert f"{len(kept)} of 5 identities kept, pairwise cosines below 0.300" in capsys.readouterr().err
        assert plan(config)["identities"] == len(kept)


def test_the_result_is_named_by_what_decides_pixels(trained, calibrated, people, tmp_path):
    def digest(uri, **fields):
        config = config_of(uri, people, **fields)
        return input_digests(config, CemifaceGenerator.describe(config))["cemiface.weights"]

    copy = shutil.copytree(trained, tmp_path / "copy")
    assert digest(trained) == digest(str(copy)) == digest(calibrated)  # the dial decides nothing where m is asked
    target = {"similarity": 0.4}
    other = write_weights(tmp_path / "other", dial={**DIAL, "realised": [-0.2, 0.2, 0.5]})
    assert len({digest(calibrated), digest(calibrated, variation=target), digest(other, variation=target)}) == 3
    stepped = write_weights(tmp_path / "stepped", dial=DIAL)
    config = config_of(stepped, people, cemiface={"weights": stepped, "sampler": {"steps": 4}})
    assert input_digests(config, CemifaceGenerator.describe(config))["cemiface.weights"] != digest(stepped)


@pytest.mark.ray
@pytest.mark.slow
def test_pixels_do_not_depend_on_the_number_of_workers(ray_cluster, trained, people, tmp_path):
    found = []
    for actors, shard in ((1, 30), (2, 6)):
        config = config_of(
            trained, people, tmp_path / str(actors), images_per_shard=shard, how={"max_actors": actors}
        )  # fmt: skip
        assert run(config)["failed"] == 0
        table = pa.concat_tables(tables.iter_images(config.output))
        found.append(table.select(["image", "identity_id", "sample", "m", "attributes", "seed"]).to_pylist())
        assert set(table["generator"].to_pylist()) == {"cemiface"}
    assert found[0] == found[1] and len(found[0]) == 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 64}, "makes images of 16 pixels"),
        ({"variation": {}}, "say how like the inquiry"),
        ({"variation": {"similarity": 0.5}}, "has no dial; run `synface calibrate`"),
        ({"cemiface": {}}, "cemiface-tiny makes images of 64 pixels"),
        ({"cemiface": {"weights": "/nowhere"}}, "no config.json there"),
        ({"identities": None, "num_identities": 3}, "draws given people"),
    ],
)
def test_refused_before_any_work(trained, people, tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        run(config_of(trained, people, tmp_path / "o", **fields))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variation": {"m": 1.5}}, "variation.m.fixed = 1.5"),
        ({"variation": {"m": [0.5, 0.2]}}, "low before high"),
        ({"variation": {"m": {"schedule": [0.0, -1.2]}}}, "inside \\[-1, 1\\]"),
        ({"variation": {"m": {"schedule": [0.0], "fixed": 0.1}}}, "exactly one of"),
        ({"variation": {"m": 0.1, "similarity": 0.1}}, "either m or similarity"),
        ({"variation": {"m": 0.1, "share_noise": True}}, "share_noise needs a schedule"),
        ({"cemiface": {"inquiry_repeats": 3}}, "belong together"),
        ({"variation": {"similarity": 0.5, "cone": {}}}, "either similarity or cone"),
        ({"generator": "heads"}, "heads varies by heads.stress"),
        ({"numerics": {"dtype": "float16"}}, "float16 needs device cuda"),
        (
            {"generator": "heads", "variation": {}, "numerics": {"dtype": "bfloat16"}},
            "without a network: leave it out",
        ),
        ({"generator": "arc2face", "numerics": {"dtype": "bfloat16"}}, "use arc2face.dtype"),
    ],
)
def test_refused_configurations(trained, people, fields, message):
    with pytest.raises(InputError, match=message):
        config_of(trained, people, **fields)


def test_people_of_another_embedder_are_refused(trained, tmp_path):
    other = write_people(tmp_path / "other", sha="cd" * 32)
    with pytest.raises(InputError, match=r"cdcdcdcdcdcd\), but the generator understands 'toy-fr' \(weights abab"):
        run(config_of(trained, other, tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_targets_beyond_the_dial_and_other_samplers_are_refused(calibrated, people):
    with pytest.raises(InputError, match=r"realises \[-0.200, 0.600\]"):
        plan(config_of(calibrated, people, variation={"similarity": [0.5, 0.7]}))
    options = {"weights": calibrated, "sampler": {"steps": 5}}
    with pytest.raises(InputError, match="steps: 3 then, 5 now"):
        plan(config_of(calibrated, people, variation={"similarity": 0.4}, cemiface=options))
    with pytest.raises(InputError, match="must divide 1000"):
        plan(
            config_of(calibrated, people, cemiface={"weights": calibrated, "sampler": {"solver": "ddim", "steps": 3}})
        )


def test_ddim_and_guidance_are_taken(trained, people):
    options = {"weights": trained, "sampler": {"solver": "ddim", "steps": 4, "guidance": 2.0}}
    guided = rendered(config_of(trained, people, cemiface=options, images_per_identity=1))
    plain = rendered(config_of(trained, people, images_per_identity=1))
    assert not np.array_equal(guided[0].pixels, plain[0].pixels)


def test_the_negative_is_the_nearest_other_or_one_by_key(trained, people):
    """Pixels from the pieces: the guided sampler with another person's embedding; off, the same hash as ever."""
    x = schemas.embeddings(tables.read_identities(people))
    nearest = (x @ x.T - 2 * np.eye(5)).argmax(1)
    by_key = conditions.others(0, [f"p{i}" for i in range(5)])
    assert (by_key != np.arange(5)).all()
    module, _ = generators.from_pretrained(trained)
    settings = sampling.SamplerSettings(steps=3, guidance=1.5, micro_batch=4)
    torch.set_num_threads(1)
    for how, other in (("nearest", nearest), ("random", by_key)):
        options = {"weights": trained, "sampler": {"guidance": 1.5}, "negative": how}
        config = config_of(trained, people, cemiface=options, images_per_identity=1)
        found = open_identities(config, CemifaceGenerator.describe(config))
        given = shard_identities(CemifaceGenerator, config, range(5), found.columns)
        assert [i.negative.tolist() for i in given] == x[other].tolist()
        samples = rendered(config)
        z = sampling.sample(
            module.denoiser, x[2:3], np.array([0.5]), 0, [("p2", 0)], settings, negative_nd=x[other[2:3]]
        )
        expected = sampling.to_images(z, module.autoencoder, 4)[0]
        assert np.abs(samples[2].pixels.astype(int) - expected).max() <= 1
        alone = rendered(config, group=1)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(samples, alone, strict=True))
    plain = config_of(trained, people)
    assert "negative" not in str(hashed_fields(plain, input_digests(plain, CemifaceGenerator.describe(plain))))


def test_others_are_uniform_and_keyed():
    names = [f"p{i}" for i in range(7)]
    drawn = np.stack([conditions.others(seed, names) for seed in range(700)])
    assert (drawn != np.arange(7)).all()
    assert np.bincount(drawn[:, 3], minlength=7)[[0, 1, 2, 4, 5, 6]].min() > 70  # 700 / 6 = 117 expected, 6 sigma: 58
    assert np.array_equal(drawn[5], conditions.others(5, names))


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({"negative": "nearest"}, 5, "set cemiface.sampler.guidance above 1"),
        ({"negative": "random", "sampler": {"guidance": 1.5}}, 1, "at least 2 are needed"),
    ],
)
def test_negatives_that_cannot_work_are_refused(trained, tmp_path, options, count, message):
    config = config_of(trained, write_people(tmp_path / "ids", count), cemiface={"weights": trained, **options})
    with pytest.raises(InputError, match=message):
        open_identities(config, CemifaceGenerator.describe(config))
