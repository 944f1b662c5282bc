"""Poses that are asked of generators: drawn by key, told in the table, refused where the weights know none."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusion_helpers import SMALL, rendered, write_people, write_weights

from synface.core import rng
from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.run import plan
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.settings import build, hashed_fields
from synface.store import schemas, tables

POSED = dataclasses.replace(SMALL, pose=("pitch", "yaw"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """Weights on whose pictures the pose is seen."""
    folder = write_weights(tmp_path_factory.mktemp("weights") / "posed", POSED)
    module, stated = generators.from_pretrained(folder)
    torch.manual_seed(4)
    torch.nn.init.normal_(module.denoiser.pose.mlp[2].weight)
    weights.save_pretrained(folder, module, stated)
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> str:
    return write_people(tmp_path_factory.mktemp("people") / "ids", count=3)


def config_of(place, people, pose, generator="cemiface", **fields) -> GenerateConfig:
    variation = {"m": [0.2, 0.8]} | ({} if pose is None else {"pose": pose}) | fields.pop("variation", {})
    base = {
        "generator": generator, "identities": people, "images_per_identity": 4, "image_size": 16, "format": "png",
        "cemiface": {"weights": place}, "numerics": {"micro_batch": 4}, "output": "unused", "how": {"max_actors": 1},
        "variation": variation,
    }  # fmt: skip
    return build(GenerateConfig, base | fields)


def test_fixed_ranges_and_lists_of_poses(trained, people):
    made = rendered(config_of(trained, people, {"yaw": [-60, 30], "pitch": {"schedule": [0, -20, 10]}}))
    for person in range(3):
        for sample in range(4):
            facts = made[4 * person + sample].attributes
            share = rng.generator(0, f"p{person}", sample, "yaw").random()
            assert facts["yaw"] == pytest.approx(-60 + 90 * share, abs=1e-4)
            assert facts["pitch"] == pytest.approx([0, -20, 10, 0][sample], abs=1e-5)
    fixed = rendered(config_of(trained, people, {"yaw": "-15", "pitch": 0}))
    assert {(s.attributes["yaw"], s.attributes["pitch"]) for s in fixed} == {(-15.0, 0.0)}
    assert [s.m for s in fixed] == [s.m for s in made]  # a stream of its own


def test_pixels_are_the_samplers_and_depend_on_their_own_key(trained, people):
    config = config_of(trained, people, {"yaw": [-60, 60], "pitch": 5})
    whole = rendered(config)
    mixed = rendered(config, rng.permutation(12, 0).tolist(), group=3)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(whole, mixed, strict=True))
    module, _ = generators.from_pretrained(trained)
    x = schemas.embeddings(tables.read_identities(people))
    settings = sampling.SamplerSettings(steps=3, micro_batch=4)
    sample = whole[4 + 2]
    pose = np.array([[5.0, sample.attributes["yaw"]]])  # in the weights' order
    torch.set_num_threads(1)
    latents = [
        sampling.sample(module.denoiser, x[1:2], np.array([sample.m]), 0, [("p1", 2)], settings, pose_na=given)
        for given in (pose, None)
    ]
    expected, without = (sampling.to_images(z, module.autoencoder, 4)[0].astype(int) for z in latents)
    assert np.abs(sample.pixels.astype(int) - expected).max() <= 1  # another memory format's last bit
    assert np.abs(expected - without).max() > 1
    free = rendered(config_of(trained, people, None))[4 + 2]
    assert np.abs(free.pixels.astype(int) - without).max() <= 1 and "yaw" not in free.attributes


def test_sampling_refuses_poses_of_another_size(trained, people):
    module, _ = generators.from_pretrained(trained)
    x = schemas.embeddings(tables.read_identities(people))
    with pytest.raises(InputError, match=r"poses \[3, 1\] for 3 images: the generator knows \['pitch', 'yaw'\]"):
        sampling.sample(
            module.denoiser, x, np.ones(3), 0, [("p", k) for k in range(3)], sampling.SamplerSettings(steps=3),
            pose_na=np.zeros((3, 1)),
        )  # fmt: skip


def test_refused_before_any_work(trained, people, tmp_path):
    plain = write_weights(tmp_path / "plain")
    with pytest.raises(InputError, match=r"variation\.pose: .* know no pose; train with --architecture"):
        plan(config_of(plain, people, {"yaw": 0}))
    with pytest.raises(InputError, match=r"know pitch, yaw, asked yaw; give these"):
        plan(config_of(trained, people, {"yaw": 0}))
    for pose, message in (
        ({}, "give the angles that the weights know"),
        ({"yaw": 100}, "yaw"),
        ({"yaw": [10, -10]}, "low before high"),
        ({"tilt": 0}, "tilt"),
    ):
        with pytest.raises(InputError, match=message):
            config_of(trained, people, pose)
    with pytest.raises(InputError, match="pose goes with m"):
        config_of(trained, people, {"yaw": 0, "pitch": 0}, variation={"m": None, "similarity": 0.5})


def test_no_old_name_moves(trained, people):
    fields = hashed_fields(config_of(trained, people, None), {"identities": "d", "cemiface.weights": "w"})
    assert fields["fields"]["variation"] == {"m": {"range": [0.2, 0.8]}}
