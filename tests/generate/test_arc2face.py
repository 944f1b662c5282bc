"""The generator `arc2face` on small random weights: keys, perturbations, crops, licences, and what it refuses."""

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from generate_helpers import DemoIdentities, noise_picture, write_pictures

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.generate import conditions
from synface.generate.config import GenerateConfig
from synface.generate.estimate import GPUS, UTILISATION, gpu_estimate
from synface.generate.generators.arc2face import Arc2faceGenerator
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import shard_items
from synface.generate.run import plan, run
from synface.settings import build, config_hash, hashed_fields
from synface.store import artifact, images, schemas, tables

OWN = hashlib.sha256(b"a recognizer").hexdigest()
OTHER = "cd" * 32


def write_people(folder, count=3, sha=OWN, dim=512) -> str:
    x = rng.generator(2).standard_normal((count, dim))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    config = DemoIdentities(output=str(folder), count=count)
    opened = artifact.open_output(config)
    metadata = {"embedder": "arcface", "embedder_sha256": sha}
    table = schemas.identities_table([f"p{i}" for i in range(count)], x, ["toy"] * count, [0] * count, metadata)
    artifact.commit(config, opened, "identities", [tables.write_identities(config.output, table)], {})
    return str(folder)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> str:
    return write_people(tmp_path_factory.mktemp("people") / "ids")


@pytest.fixture
def config_of(miniature, people):
    def make(output="unused", lcm=False, options=None, **fields) -> GenerateConfig:
        places = {k: v for k, v in miniature.items() if lcm or k != "lcm_lora"}
        base = {
            "generator": "arc2face", "identities": people, "images_per_identity": 3, "image_size": 32,
            "format": "png", "arc2face": {"steps": 2, **places, **(options or {})}, "numerics": {"micro_batch": 4},
            "output": str(output), "how": {"max_actors": 1},
        }  # fmt: skip
        return build(GenerateConfig, base | fields)

    return make


def items_of(config):
    found = open_identities(config, Arc2faceGenerator.describe(config))
    people = shard_identities(Arc2faceGenerator, config, range(found.count), found.columns)
    return shard_items(config.seed, people, config.images_per_identity)


def rendered(config, order=None, group=4, made=None):
    """All samples by item, rendered `group` at a time in any order."""
    threads = torch.get_num_threads()
    made, items = made or Arc2faceGenerator(config), items_of(config)
    order = list(range(len(items))) if order is None else order
    out = {}
    for start in range(0, len(order), group):
        part = order[start : start + group]
        out |= dict(zip(part, made.render([items[i] for i in part]), strict=True))
    torch.set_num_threads(threads)
    return [out[i] for i in sorted(out)]


@pytest.mark.parametrize("lcm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_image_depends_on_its_own_key_alone(config_of, lcm):
    config = config_of(lcm=lcm, variation={"beta": 0.02})
    made = Arc2faceGenerator(config)
    whole = rendered(config, made=made)
    mixed = rendered(config, rng.permutation(9, 0).tolist(), 3, made)
    few = rendered(config_of(lcm=lcm, variation={"beta": 0.02}, images_per_identity=1), group=1)
    for i, (a, b) in enumerate(zip(whole, mixed, strict=True)):
        assert np.array_equal(a.pixels, b.pixels) and a.pixels.shape == (32, 32, 3)
        if i % 3 == 0:
            assert np.array_equal(a.pixels, few[i // 3].pixels)
    assert len({s.pixels.tobytes() for s in whole}) == 9
    again = made.render([items_of(config)[0].again()])[0]
    assert not np.array_equal(again.pixels, whole[0].pixels)  # another attempt, another picture


def test_beta_is_hyperfaces_perturbation(config_of, people):
    samples = rendered(config_of(variation={"beta": 0.03}, seed=5))
    x = schemas.embeddings(tables.read_identities(people))
    keys = [(f"p{i // 3}", i % 3) for i in range(9)]
    drawn = conditions.gaussian_perturbed(np.repeat(x, 3, 0), 0.03, 5, keys)
    expected = (drawn * np.repeat(x, 3, 0)).sum(1)
    np.testing.assert_allclose([s.attributes["embedding_cosine"] for s in samples], expected, atol=1e-6)
    # its own closed form, up to the chance of 512 dimensions
    np.testing.assert_allclose(expected, 1 / np.sqrt(1 + 0.03**2 * 511), atol=0.05)
    plain = rendered(config_of(images_per_identity=1))
    assert plain[0].attributes == {"embedding_cosine": None, "landmarks": False}


def test_conditions_of_a_controlnet_are_drawn_by_key(config_of, controlnet, tmp_path):
    table = write_pictures(tmp_path / "poses", 5, size=64)
    options = {"controlnet": controlnet, "control_images": table, "controls": 4}
    config = config_of(options=options)
    samples = rendered(config)
    drawn = [s.attributes["control"] for s in samples]
    assert drawn == [int(rng.generator(0, f"p{i // 3}", i % 3, "control").integers(0, 4)) for i in range(9)]
    mixed = rendered(config, rng.permutation(9, 0).tolist(), 3)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(samples, mixed, strict=True))
    model = Arc2faceGenerator(config)
    item = items_of(config)[2]
    picture = model._model.sample(
        np.stack([item.identity.embedding]), 0, [("p0", 2)], noise_picture(drawn[2], 64)[None]
    )
    assert np.array_equal(samples[2].pixels, images.face_crop(picture[0], 32))
    assert model.attributes.names == ["embedding_cosine", "landmarks", "control"]
    found = plan(config)
    assert found["gpu_estimate"]["memory_gb"].startswith("5.71 for the networks")  # 361 million numbers more
    named = Arc2faceGenerator.describe(config).digests
    assert set(named) == {"arc2face.weights", "arc2face.base", "arc2face.controlnet"}
    with pytest.raises(InputError, match=r"arc2face.control_images .*of 32 pixels, the generator takes 64"):
        plan(config_of(options={**options, "control_images": write_pictures(tmp_path / "small", 5, size=32)}))
    with pytest.raises(InputError, match=r"controlnet/config.json or config.json \(1 kB\): missing"):
        plan(config_of(options={**options, "controlnet": str(tmp_path)}))


def test_the_crop_is_ffhqs_or_the_landmarks(config_of):
    config = config_of(images_per_identity=2)
    made, items = Arc2faceGenerator(config), items_of(config)[:1]
    picture = made._model.sample(np.stack([items[0].identity.embedding]), 0, [("p0", 0)])[0]
    assert np.array_equal(made.render(items)[0].pixels, images.face_crop(picture, 32))
    sys.modules["arc2face_detectors"] = detectors = type(sys)("arc2face_detectors")
    points = crops.template(64) * 0.5 + 9
    detectors.found, detectors.nobody = lambda pixels: points, lambda pixels: None
    sample = Arc2faceGenerator(config_of(options={"landmarks": "arc2face_detectors:found"})).render(items)[0]
    assert np.array_equal(sample.pixels, images.face_crop(picture, 32, points)) and sample.attributes["landmarks"]
    failed = Arc2faceGenerator(config_of(options={"landmarks": "arc2face_detectors:nobody"})).render(items)[0]
    assert "found no face" in failed.error


@pytest.mark.ray
def test_the_verb_writes_marked_images_with_their_licences(config_of, ray_cluster, tmp_path, capsys):
    config = config_of(tmp_path / "o", images_per_identity=2)
    result = run(config)
    assert (result["images"], result["failed"], result["generator"]) == (6, 0, "arc2face")
    table = pa.concat_tables(tables.iter_images(config.output))
    assert [images.decode(row["bytes"]).shape for row in table["image"].to_pylist()] == [(32, 32, 3)] * 6
    direct = rendered(config)
    for row, sample in zip(table.to_pylist(), direct, strict=True):
        assert np.array_equal(images.decode(row["image"]["bytes"]), sample.pixels)
    manifest = artifact.require(config.output)
    assert "non-commercial" in manifest.numbers["licence"]
    assert any("Open RAIL-M" in text for text in manifest.numbers["sources"].values())
    card = Path(config.output, "README.md").read_text()
    assert "license: other" in card and "WebFace42M" in card
    assert "licence of the images: other: non-commercial research" in capsys.readouterr().err
    # the same files elsewhere are the same weights
    moved = tmp_path / "moved"
    shutil.copytree(config.arc2face.weights, moved)
    assert run(config_of(tmp_path / "o", images_per_identity=2, options={"weights": str(moved)}))["cached"]


def test_a_dry_run_estimates_and_says_so(config_of):
    found = plan(config_of(options={"steps": 25}, how={"max_actors": 1, "max_cost": 50, "cost_per_hour": 2}))
    estimate = found["gpu_estimate"]
    assert estimate["memory_gb"].startswith("4.26 for the networks")  # 1,066 million numbers of 4 bytes
    assert "estimate" in estimate["is"] and "images x" in estimate["formula"]
    per_image = 50 * 0.803 + 2.515
    hours = 9 * per_image / (GPUS["A100"] * UTILISATION) / 3600
    assert estimate["gpu_hours"]["A100"] == pytest.approx(hours, abs=0.005)
    whole = gpu_estimate(640_000, per_image, 2.132, 2.0)
    assert whole["gpu_hours"]["A100"] == pytest.approx(640_000 * per_image / (312 * 0.4) / 3600, rel=1e-3)
    assert whole["cost"]["A100"] == pytest.approx(2 * whole["gpu_hours"]["A100"], rel=1e-3)


def test_options_at_their_defaults_leave_old_hashes_alone(people):
    config = build(GenerateConfig, {"identities": people, "output": "o"})
    fields = hashed_fields(config, {"identities": "d"})
    assert "arc2face" not in fields["fields"] and len(config_hash(fields)) == 64


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({"weights": None}, {}, r"files are missing(.|\n)*arc2face/diffusion_pytorch_model.safetensors \(3.44 GB\)"),
        ({"base": "/nowhere"}, {}, r"CreativeML Open RAIL-M"),
        ({}, {"variation": {"m": 0.5}}, "arc2face has no similarity factor"),
        ({}, {"identities": None, "num_identities": 3}, "draws given people"),
        ({"landmarks": "no_such_module:x"}, {}, "cannot be imported"),
        ({"embedder": OTHER}, {}, rf"\(weights {OWN[:12]}\), but the generator understands"),
    ],
)
def test_refused_before_any_work(config_of, tmp_path, options, fields, message):
    with pytest.raises(InputError, match=message):
        run(config_of(tmp_path / "o", options=options, **fields))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"arc2face": {"embedder": "mine"}},
        {"arc2face": {"dtype": "int8"}},
        {"arc2face": {"controlnet": "there"}},
        {"arc2face": {"control_images": "there"}},
        {"variation": {"beta": 0.1, "cone": {}}},
        {"variation": {"beta": 0.1, "similarity": 0.5}},
        {"variation": {"beta": -0.1}},
    ],
)
def test_refused_configurations(people, fields):
    with pytest.raises(InputError, match=r"embedder|dtype|beta|controlnet and control_images belong together"):
        build(GenerateConfig, {"generator": "arc2face", "identities": people, "output": "o", **fields})


def test_people_of_another_recognizer(config_of, tmp_path, capsys):
    other = write_people(tmp_path / "other", sha=OTHER)
    with pytest.raises(
        InputError, match=r"weights cdcdcdcdcdcd\), but the generator understands 'ArcFace of Arc2Face'"
    ):
        plan(config_of(identities=other))
    assert plan(config_of(identities=other, options={"embedder": OTHER}))["images"] == 9  # the same one, converted
    capsys.readouterr()
    assert plan(config_of(identities=other, options={"embedder": "any"}))["images"] == 9
    assert "not checked; identities of another recognizer" in capsys.readouterr().err
    short = write_people(tmp_path / "short", dim=256)
    with pytest.raises(InputError, match="have 256 dimensions, expected 512"):
        plan(config_of(identities=short, options={"embedder": "any"}))


def test_without_the_recognizer_nobody_knows_whose_embeddings_fit(config_of, miniature, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(miniature["weights"], folder)
    (folder / "arcface.onnx").unlink()
    with pytest.raises(InputError, match=r"no arcface.onnx in .*sha256 of the recognizer.*`any`"):
        plan(config_of(options={"weights": str(folder)}))
