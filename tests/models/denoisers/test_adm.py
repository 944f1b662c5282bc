"""The released ADM layout against a network of its own written from the blocks' formulas."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import adm, config
from tests.models.denoisers.adm_state import published_like

SMALL = dataclasses.replace(
    config.FULL, sample_size=8, widths=(16, 16, 32), attention=(False, True, False), embedding_dim=6, condition_dim=12,
    head_channels=8, norm_groups=4,
)  # fmt: skip
EMBED = 4 * 16
#: block -> (kind, channels in, channels out): ADM with one residual block a level, attention at half the size
PUBLISHED = {
    "input_blocks.1.0": ("residual", 16, 16), "input_blocks.2.0": ("down", 16, 16),
    "input_blocks.3.0": ("residual", 16, 16), "input_blocks.3.1": ("attention", 16, 16),
    "input_blocks.4.0": ("down", 16, 16), "input_blocks.5.0": ("residual", 16, 32),
    "middle_block.0": ("residual", 32, 32), "middle_block.1": ("attention", 32, 32),
    "middle_block.2": ("residual", 32, 32),
    "output_blocks.0.0": ("residual", 64, 32), "output_blocks.1.0": ("residual", 48, 32),
    "output_blocks.1.1": ("up", 32, 32), "output_blocks.2.0": ("residual", 48, 16),
    "output_blocks.2.1": ("attention", 16, 16), "output_blocks.3.0": ("residual", 32, 16),
    "output_blocks.3.1": ("attention", 16, 16), "output_blocks.3.2": ("up", 16, 16),
    "output_blocks.4.0": ("residual", 32, 16), "output_blocks.5.0": ("residual", 32, 16),
}  # fmt: skip


def published_state(adapter=True):
    """Random tensors under the published names in the published shapes."""
    shapes = {
        "time_embed.0": (EMBED, 16), "time_embed.2": (EMBED, EMBED), "input_blocks.0.0": (16, 3, 3, 3),
        "out.0": (16,), "out.2": (6, 16, 3, 3),
    }  # fmt: skip
    for name, (kind, inside, outside) in PUBLISHED.items():
        if kind == "attention":
            shapes |= {f"{name}.norm": (inside,), f"{name}.qkv": (3 * inside, inside, 1)}
            shapes[f"{name}.proj_out"] = (inside, inside, 1)
            continue
        shapes |= {
            f"{name}.in_layers.0": (inside,), f"{name}.in_layers.2": (outside, inside, 3, 3),
            f"{name}.emb_layers.1": (2 * outside, EMBED), f"{name}.out_layers.0": (outside,),
            f"{name}.out_layers.3": (outside, outside, 3, 3),
        }  # fmt: skip
        if inside != outside:
            shapes[f"{name}.skip_connection"] = (outside, inside, 1, 1)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:])
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def reference(state, x, t, tokens):
    """The published forward pass: residual blocks with scale and shift, attention head by head."""

    def conv(name, h):
        weight = state[f"{name}.weight"]
        return functional.conv2d(h, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name, h):
        return functional.group_norm(h, 4, state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(name, h):
        return h @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def residual(name, kind, h):
        inner = functional.silu(norm(f"{name}.in_layers.0", h))
        if kind == "down":
            inner, h = functional.avg_pool2d(inner, 2), functional.avg_pool2d(h, 2)
        if kind == "up":
            inner, h = (y.repeat_interleave(2, 2).repeat_interleave(2, 3) for y in (inner, h))
        inner = conv(f"{name}.in_layers.2", inner)
        scale, shift = linear(f"{name}.emb_layers.1", functional.silu(embedding))[:, :, None, None].chunk(2, 1)
        inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        inner = conv(f"{name}.out_layers.3", functional.silu(inner))
        return inner + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h)

    def attention(name, h):
        n, c = h.shape[:2]
        flat = norm(f"{name}.norm", h.reshape(n, c, -1))
        qkv = (
            torch.einsum("oc,ncl->nol", state[f"{name}.qkv.weight"][..., 0], flat) + state[f"{name}.qkv.bias"][:, None]
        )
        out = []
        for head in range(c // 8):
            q, k, v = qkv[:, 24 * head : 24 * head + 24].chunk(3, 1)
            if tokens is not None:
                more_k, more_v = tokens(c)[:, 16 * head : 16 * head + 16].chunk(2, 1)
                k, v = torch.cat([more_k, k], 2), torch.cat([more_v, v], 2)
            share = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(8), -1)
            out.append(torch.einsum("nqk,nck->ncq", share, v))
        joined = torch.einsum("oc,ncl->nol", state[f"{name}.proj_out.weight"][..., 0], torch.cat(out, 1))
        return h + (joined + state[f"{name}.proj_out.bias"][:, None]).reshape(h.shape)

    half = torch.exp(-math.log(10000) * torch.arange(8) / 8)
    angle = t[:, None] * half
    embedding = linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1))
    embedding = linear("time_embed.2", functional.silu(embedding))
    h = conv("input_blocks.0.0", x)
    kept, last = [h], None
    for name, (kind, _, _) in PUBLISHED.items():
        block = name.rsplit(".", 1)[0]
        if block.startswith("output") and block != last:
            h = torch.cat([h, kept.pop()], 1)
        h = attention(name, h) if kind == "attention" else residual(name, kind, h)
        if block.startswith("input"):
            if block == last:
                kept[-1] = h
            else:
                kept.append(h)
        last = block
    return conv("out.2", functional.silu(norm("out.0", h)))


def built(description=SMALL):
    torch.manual_seed(1)
    return denoisers.build(description)


@pytest.mark.parametrize("lightning", [False, True])
def test_a_converted_network_computes_what_the_published_one_does(lightning):
    state = published_state()
    saved = {"state_dict": {f"model.{k}": v for k, v in state.items()} | {"recognition_model.x": torch.ones(1)}}
    module = built()
    adm.start(module.unet, saved if lightning else state, SMALL, "here")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    none = torch.zeros(2, 0, 12)  # no further keys and values
    with torch.no_grad():
        got = module.unet(x, t, encoder_hidden_states=none).sample
        torch.testing.assert_close(got, reference(state, x, t, None), rtol=1e-4, atol=1e-4)


def test_the_adapter_becomes_every_blocks_keys_and_values():
    """The published adapter has as many rows as one width's heads need, so the attention stands at one width."""
    description = dataclasses.replace(SMALL, widths=(16, 32, 32), attention=(False, True, False))
    torch.manual_seed(2)
    weight, bias = torch.randn(64, 12, 1), torch.randn(64)
    module = built(description)
    theirs = {ours: name for name, ours, kind in adm.blocks(description) if kind == "attention"}
    state = {f"{adm.ADAPTER}.weight": weight, f"{adm.ADAPTER}.bias": bias}
    tokens = torch.randn(2, 5, 12)
    expected = tokens @ weight[..., 0].T + bias  # [n, token, head by head: key, then value]
    full = published_like(module.unet, description) | state
    adm.start(module.unet, full, description, "here")
    assert set(theirs) == {"down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0",
                           "up_blocks.1.attentions.1"}  # fmt: skip
    for ours in theirs:
        block = module.unet.get_submodule(ours)
        with torch.no_grad():
            key, value = block.add_k_proj(tokens), block.add_v_proj(tokens)
        for head in range(4):
            torch.testing.assert_close(key[..., 8 * head : 8 * head + 8], expected[..., 16 * head : 16 * head + 8])
            torch.testing.assert_close(
                value[..., 8 * head : 8 * head + 8], expected[..., 16 * head + 8 : 16 * head + 16]
            )


def test_the_full_network_is_the_published_one_shape_by_shape():
    """Published: 128 x (1, 1, 2, 2, 4, 4), 12 numbered blocks down and as many up, attention at 1/16; some shapes."""
    with torch.device("meta"):
        unet = denoisers.build("cemiface").unet
        state = published_like(unet, config.FULL)
        found = adm.converted(state, config.FULL, "here")
    own = unet.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in own.items() if "add_" not in k}
    by_hand = {
        "input_blocks.0.0.weight": (128, 3, 3, 3), "input_blocks.9.1.qkv.weight": (1536, 512, 1),
        "input_blocks.11.0.out_layers.3.weight": (512, 512, 3, 3), "middle_block.1.proj_out.weight": (512, 512, 1),
        "output_blocks.3.2.in_layers.2.weight": (512, 512, 3, 3), "output_blocks.2.1.qkv.bias": (1536,),
        "output_blocks.11.0.skip_connection.weight": (128, 256, 1, 1), "out.2.weight": (6, 128, 3, 3),
        "time_embed.2.weight": (512, 512), "output_blocks.9.1.emb_layers.1.weight": (256, 512),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in by_hand} == by_hand
    assert max(int(k.split(".")[1]) for k in state if k.startswith("input_blocks")) == 11


def test_what_is_no_such_network_is_refused():
    module, state = built(), published_state()
    with pytest.raises(InputError, match=r"no ADM network .*its first names: a"):
        adm.start(module.unet, {"a": torch.ones(1)}, SMALL, "here")
    with pytest.raises(InputError, match="holds no state dict"):
        adm.start(module.unet, [1], SMALL, "here")
    short = {k: v for k, v in state.items() if not k.startswith("middle_block.1.qkv")}
    with pytest.raises(InputError, match=r"no tensor 'middle_block.1.qkv.weight'"):
        adm.start(module.unet, short, SMALL, "here")
    with pytest.raises(InputError, match=r"conv_out.weight is \[3, 16, 3, 3\] there, \[6, 16, 3, 3\]"):
        adm.start(module.unet, state | {"out.2.weight": torch.ones(3, 16, 3, 3)}, SMALL, "here")
    with pytest.raises(InputError, match="resblock_sampling, cross_attention"):
        adm.start(module.unet, state, config.TINY, "here")
