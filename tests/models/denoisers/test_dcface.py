"""DCFace's denoiser: patch statistics, two conditions, and what reaches the network by which way."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import conditioning, config

SMALL = dataclasses.replace(
    config.DCFACE_TINY, sample_size=8, channels=2, widths=(16, 32), attention=(False, True), embedding_dim=6,
    condition_dim=12, head_channels=16, norm_groups=8, context_tokens=3, style_grid=2,
)  # fmt: skip


def built():
    torch.manual_seed(3)
    return denoisers.build(SMALL)


def unit(n, d, seed=0):
    return functional.normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))).float())


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_patch_statistics_are_those_of_every_patch(grid):
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    got = conditioning.patch_statistics(torch.from_numpy(x), grid).numpy()
    assert got.shape == (2, 1 + grid**2, 6)
    side = 8 // grid
    for n in range(2):
        patches = [x[n]] + [
            x[n, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            for row in range(grid)
            for column in range(grid)
        ]
        expected = [np.concatenate([p.mean((1, 2)), p.std((1, 2))]) for p in patches]
        np.testing.assert_allclose(got[n], expected, atol=1e-6)


def test_a_style_forgets_where_in_a_patch_something_was():
    x = torch.randn(1, 2, 8, 8)
    shuffled = x.clone()
    shuffled[..., :4, :4] = x[..., :4, :4].flatten(2)[..., torch.randperm(16)].reshape(1, 2, 4, 4)
    assert not torch.equal(x, shuffled)
    torch.testing.assert_close(conditioning.patch_statistics(x, 2), conditioning.patch_statistics(shuffled, 2))


def test_tokens_by_hand():
    module = built().conditioner
    embedding, style = unit(2, 6), torch.randn(2, 2, 8, 8)
    tokens, time = module(embedding, style)
    x = embedding * 6**0.5
    identity = functional.layer_norm((x @ module.identity.weight.T + module.identity.bias).reshape(2, 3, 12), (12,))
    statistics = conditioning.patch_statistics(style, 2) @ module.style.weight.T + module.style.bias
    expected = torch.cat([identity, functional.layer_norm(statistics + module.position, (12,))], 1)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    assert tokens.shape == (2, 3 + 1 + 4, 12) and time.shape == (2, 64) and not time.any()  # 0 before training


def test_both_conditions_reach_the_network_and_each_by_its_way():
    module = built()
    x, t, ones = torch.randn(2, 2, 8, 8), torch.tensor([300, 300]), torch.ones(2)
    a, b, style, other = unit(2, 6), unit(2, 6, 9), torch.randn(2, 2, 8, 8), 3 + torch.randn(2, 2, 8, 8)

    def out(embedding, styled):
        return module(x, t, module.condition(embedding, ones, style_nchw=styled))

    with torch.no_grad():
        assert (out(a, style) - out(b, style)).abs().max() > 1e-6
        assert (out(a, style) - out(a, other)).abs().max() > 1e-6
        for name, parameter in module.unet.named_parameters():
            if "add_k_proj" in name or "add_v_proj" in name:
                parameter.zero_()
        assert torch.equal(out(a, style), out(b, other))  # no way in is left
        module.conditioner.time.weight.normal_()
        assert (out(a, style) - out(b, style)).abs().max() > 1e-6  # the identity's second way
        assert torch.equal(out(a, style), out(a, other))


def test_nobody_is_one_null_for_all_tokens():
    module = built()
    null = module.null_condition(2)
    assert null.attention_nk.shape == (2, 8, 12) and null.time_nk.shape == (2, 64) and not null.time_nk.any()
    with torch.no_grad():
        module.conditioner.time.bias.fill_(1.0)
    own = module.condition(unit(2, 6), torch.ones(2), style_nchw=torch.randn(2, 2, 8, 8))
    mixed = conditioning.choose(torch.tensor([False, True]), own, null)
    assert torch.equal(mixed.time_nk, torch.tensor([[0.0], [1.0]]).expand(2, 64))
    assert torch.equal(mixed.attention_nk[1], own.attention_nk[1])
    both = conditioning.concatenate(own, null)
    assert both.time_nk.shape[0] == both.attention_nk.shape[0] == 4 and both.mean_nchw is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"style_grid": 3}, "a divisor of the sample size 8"),
        ({"style_grid": 0}, "a divisor of the sample size 8"),
        ({"mode": "paper"}, "in modes identity and style"),
        ({"conditioning": "adagn"}, "works by cross_attention"),
    ],
)
def test_senseless_descriptions_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(SMALL, **change)
