"""IDiff-Face's denoiser: context, contextual partial dropout, and identity by cross-attention alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import conditioning, config

SMALL = dataclasses.replace(
    config.IDIFFFACE_TINY, sample_size=8, channels=2, widths=(16, 32), attention=(False, True), embedding_dim=6,
    condition_dim=12, head_channels=16, norm_groups=8, context_tokens=3,
)  # fmt: skip


def built(description=SMALL):
    torch.manual_seed(3)
    return denoisers.build(description)


def unit(n, d, seed=0):
    return functional.normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))).float())


def test_partial_dropout_by_hand_and_on_average():
    context = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    kept = torch.tensor([[True, False, True, False]])
    assert conditioning.partial_dropout(context, kept, 0.5).tolist() == [[2.0, 0.0, 6.0, 0.0]]
    masks = torch.from_numpy(np.random.default_rng(0).random((4000, 4)) >= 0.25)
    mean = conditioning.partial_dropout(context.expand(4000, 4), masks, 0.25).mean(0)
    deviation = context[0].abs() * np.sqrt(0.25 / 0.75 / 4000)  # of a mean of Bernoulli(3/4) / (3/4)
    assert ((mean - context[0]).abs() < 4 * deviation).all()


def test_tokens_are_the_contexts_by_hand():
    module = built().conditioner
    embedding, kept = unit(2, 6), torch.rand(2, 12) > 0.25
    context = (embedding * 6**0.5) @ module.linear.weight.T + module.linear.bias
    dropped = context * kept / 0.75
    tokens = (dropped @ module.tokens.weight.T + module.tokens.bias).reshape(2, 3, 12)
    torch.testing.assert_close(module(embedding, kept), functional.layer_norm(tokens, (12,)), rtol=1e-5, atol=1e-5)
    whole = (context @ module.tokens.weight.T + module.tokens.bias).reshape(2, 3, 12)
    torch.testing.assert_close(module(embedding), functional.layer_norm(whole, (12,)), rtol=1e-5, atol=1e-5)


def test_parameters_of_the_context_by_hand():
    with torch.device("meta"):
        module = denoisers.build("idiffface-tiny")
    count = sum(p.numel() for p in module.conditioner.parameters())
    linear, tokens, norm, null = 256 * 256 + 256, 256 * 8 * 256 + 8 * 256, 2 * 256, 256
    assert count == linear + tokens + norm + null
    assert 2 * sum(v.numel() for v in module.state_dict().values()) < 30e6  # bytes in half precision


def test_identity_reaches_the_network_by_cross_attention_alone():
    module = built()
    x, t, ones = torch.randn(2, 2, 8, 8), torch.tensor([300, 300]), torch.ones(2)
    first, second = module.condition(unit(2, 6), ones), module.condition(unit(2, 6, 9), ones)
    with torch.no_grad():
        assert (module(x, t, first) - module(x, t, second)).abs().max() > 1e-6
        silenced = [p for name, p in module.unet.named_parameters() if "attn2.to_v" in name]
        assert len(silenced) == 4  # one level down, the middle, two blocks of the level up
        for parameter in silenced:
            parameter.zero_()
        assert torch.equal(module(x, t, first), module(x, t, second))


def test_cross_attention_is_the_formula():
    """softmax(Q (C Wk)^T / sqrt d) C Wv of the normalised latent's queries over the context's tokens, head by head."""
    block = built().unet.mid_block.attentions[0].transformer_blocks[0]
    assert (block.attn2.heads, block.attn1.heads) == (2, 2)  # 32 channels in heads of 16
    latent, tokens = torch.randn(2, 16, 32), torch.randn(2, 3, 12)
    with torch.no_grad():
        query, key, value = block.attn2.to_q(latent), block.attn2.to_k(tokens), block.attn2.to_v(tokens)
        out = torch.empty(2, 16, 32)
        for head in range(2):
            cut = slice(16 * head, 16 * head + 16)
            share = torch.softmax(query[..., cut] @ key[..., cut].transpose(1, 2) / 4.0, -1)
            out[..., cut] = share @ value[..., cut]
        expected = block.attn2.to_out[0](out)
        torch.testing.assert_close(block.attn2(latent, encoder_hidden_states=tokens), expected, rtol=1e-5, atol=1e-5)


def test_there_is_no_m_and_nobody_is_the_null_context():
    module = built()
    embedding = unit(2, 6)
    one, other = (module.condition(embedding, torch.full((2,), m)).attention_nk for m in (1.0, -0.5))
    assert torch.equal(one, other) and not module.config.knows_m
    null = module.null_condition(2).attention_nk
    torch.testing.assert_close(null, module.conditioner.expand(torch.zeros(2, 12)))
    mixed = conditioning.choose(
        torch.tensor([True, False]), module.condition(embedding, torch.ones(2)), module.null_condition(2)
    )
    assert torch.equal(mixed.attention_nk[0], one[0]) and torch.equal(mixed.attention_nk[1], null[1])


@pytest.mark.parametrize("name", ["cemiface-tiny", "cemiface-tiny-paper", "cemiface"])
def test_descriptions_that_stand_in_older_weights_mean_what_they_meant(name):
    """A config.json of before has none of the newer fields."""
    newer = ("context_tokens", "context_dropout", "style_grid")
    old = {k: v for k, v in config.DENOISERS[name].as_dict().items() if k not in newer}
    assert config.from_dict(old) == config.DENOISERS[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "paper"}, "belong together"),
        ({"conditioning": "cross_attention"}, "belong together"),
        ({"context_tokens": 0}, "at least 1"),
        ({"context_dropout": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_senseless_descriptions_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(SMALL, **change)
    with pytest.raises(InputError, match="for mode identity"):
        dataclasses.replace(config.TINY, context_dropout=0.25)
