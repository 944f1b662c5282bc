"""A denoiser that knows the head's pose: by the formula, optional in every row, and nothing else changed."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import config
from synface.models.denoisers.conditioning import FREQUENCIES

SMALL = dataclasses.replace(
    config.TINY, sample_size=8, channels=2, widths=(16, 32), attention=(False, False), embedding_dim=6,
    condition_dim=64, head_channels=16, norm_groups=8,
)  # fmt: skip
CONTEXT = dataclasses.replace(
    SMALL, conditioning="context_attention", mode="identity", ridge=False, attention=(False, True), context_tokens=3
)
ANY = float("nan")


def built(description):
    torch.manual_seed(3)
    module = denoisers.build(description)
    if module.pose is not None:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in module.pose.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def posed(description=SMALL):
    return built(dataclasses.replace(description, pose=("yaw", "pitch")))


E = functional.normalize(torch.arange(18.0).reshape(3, 6).sin())
ONES = torch.ones(3)


def test_the_pose_adds_an_mlp_of_its_fourier_features():
    module = posed()
    pose = torch.tensor([[-45.0, 9.0], [0.0, 0.0], [90.0, -30.0]])
    added = module.condition(E, ONES, pose_na=pose).attention_nk - module.condition(E, ONES).attention_nk
    weight, bias = module.pose.mlp[0].weight, module.pose.mlp[0].bias
    for row in range(3):
        features = []
        for angle in pose[row].tolist():
            turns = [math.pi / 2 * angle / 90 * 2 ** (-1 + 5 * k / (FREQUENCIES - 1)) for k in range(FREQUENCIES)]
            features += [angle / 90, *map(math.sin, turns), *map(math.cos, turns)]
        inner = functional.silu(weight @ torch.tensor(features) + bias)
        torch.testing.assert_close(
            added[row], module.pose.mlp[2].weight @ inner + module.pose.mlp[2].bias, atol=2e-5, rtol=1e-4
        )


def test_a_fresh_network_is_the_one_without_pose():
    torch.manual_seed(3)
    fresh, plain = denoisers.build(dataclasses.replace(SMALL, pose=("yaw",))), built(SMALL)
    own = fresh.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())
    added = {f"pose.mlp.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")}
    assert own.keys() - plain.state_dict().keys() == added | {"pose_mean.weight_fk", "pose_mean.offset_k"}
    context = [denoisers.build(dataclasses.replace(CONTEXT, pose=p)).state_dict().keys() for p in (("yaw",), ())]
    assert context[0] - context[1] == added  # without a ridge mean there is none of the pose
    x, t = torch.randn(3, 2, 8, 8), torch.tensor([10, 500, 990])
    given = fresh.condition(E, ONES, pose_na=torch.full((3, 1), 40.0))
    assert torch.equal(fresh(x, t, given), plain(x, t, plain.condition(E, ONES)))


@pytest.mark.parametrize("description", [SMALL, CONTEXT])
def test_rows_without_a_pose_are_as_if_none_were_given(description):
    module = posed(description)
    some = torch.tensor([[ANY, ANY], [20.0, 5.0], [ANY, 5.0]])
    found, plain = module.condition(E, ONES, pose_na=some).attention_nk, module.condition(E, ONES).attention_nk
    assert torch.equal(found[0], plain[0]) and torch.equal(found[2], plain[2])
    moved = found[1] - plain[1]
    assert moved.abs().max() > 0.01
    if moved.ndim == 2:  # every token of a context by the same vector
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-5, rtol=1e-4)
    module.condition(E, ONES, pose_na=some).attention_nk.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.pose.parameters())


def test_the_pose_reaches_the_picture():
    module, x, t = posed(), torch.randn(3, 2, 8, 8), torch.tensor([10, 500, 990])
    left, right = (module(x, t, module.condition(E, ONES, pose_na=torch.full((3, 2), a))) for a in (-30.0, 30.0))
    assert (left - right).abs().amax((1, 2, 3)).min() > 1e-5


def test_descriptions():
    known = posed().config
    assert config.from_dict(known.as_dict()) == known
    old = {k: v for k, v in SMALL.as_dict().items() if k != "pose"}
    assert config.from_dict(old) == SMALL and SMALL.pose == ()
    for wrong in (("yaw", "yaw"), ("tilt",)):
        with pytest.raises(InputError, match="each at most once of yaw, pitch, roll"):
            dataclasses.replace(SMALL, pose=wrong)
    with pytest.raises(InputError, match="the style image gives the pose"):
        dataclasses.replace(config.DCFACE_TINY, pose=("yaw",))
