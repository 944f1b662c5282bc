"""IDiff-Face as it was released: the same function of the same tensors, written out again from the formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from synface import cli
from synface.core.errors import InputError
from synface.models import convert, recognizers, vq, weights
from synface.models.denoisers import DENOISERS, release
from synface.models.denoisers import generator as generators
from synface.models.denoisers.unet import Denoiser

SMALL = dataclasses.replace(
    DENOISERS["idiffface"], widths=(32, 64, 96), attention=(False, True, True), layers_per_block=2, sample_size=8,
    embedding_dim=24, condition_dim=64, head_channels=16, context_tokens=16,
)  # fmt: skip
CODEC = vq.VQConfig(image_size=32, widths=(32, 64, 32), layers=2, codes=50)
RESEARCH = "CC-BY-NC-SA-4.0"


def published_names(config):
    """Name -> shape of a release's tensors: what its code declares, not what ours does."""
    found = {}

    def conv(name, width_in, width, side):
        found[f"{name}.weight"], found[f"{name}.bias"] = (width, width_in, side, side), (width,)

    def linear(name, width_in, width, *more):
        found[f"{name}.weight"], found[f"{name}.bias"] = (width, width_in, *more), (width,)

    def norm(name, width):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def residual(name, width_in, width):
        norm(f"{name}.norm1", width_in)
        conv(f"{name}.conv1", width_in, width, 3)
        linear(f"{name}.time_emb.1", 4 * config.widths[0], width)
        linear(f"{name}.scale_emb", width, width)
        linear(f"{name}.shift_emb", width, width)
        norm(f"{name}.norm2.norm", width)
        conv(f"{name}.conv2", width, width, 3)
        if width_in != width:
            conv(f"{name}.shortcut", width_in, width, 1)

    def attention(name, width):
        k, tokens = config.condition_dim, config.context_tokens
        conv(f"{name}.x_proj_in", width, width, 1)
        conv(f"{name}.x_proj_out", width, width, 1)
        for part, source in (("self_attention", width), ("cross_attention", k)):
            for to in ("to_k", "to_v"):
                linear(f"{name}.{part}.{to}", source, width, 1)
            for to in ("to_q", "proj_out"):
                linear(f"{name}.{part}.{to}", width, width, 1)
        linear(f"{name}.c_proj_in", k, k * tokens)
        norm(f"{name}.x_norm", width)
        norm(f"{name}.c_norm", k)
        linear(f"{name}.ff.0", width, 4 * width)
        linear(f"{name}.ff.2", 4 * width, width)

    first = config.widths[0]
    conv("image_proj", config.channels, first, 3)
    linear("time_emb.lin1", first, 4 * first)
    linear("time_emb.lin2", 4 * first, 4 * first)
    linear("context_emb", config.embedding_dim, config.condition_dim)
    width, number, skips = first, 0, [first]
    for level, wider in enumerate(config.widths):
        for _ in range(config.layers_per_block):
            residual(f"down.{number}.res", width, wider)
            if config.attention[level]:
                attention(f"down.{number}.attn", wider)
            width, number = wider, number + 1
            skips.append(width)
        if wider != config.widths[-1] or level + 1 < len(config.widths):
            conv(f"down.{number}.conv", width, width, 3)
            number += 1
            skips.append(width)
    residual("middle.res1", width, width)
    attention("middle.attn", width)
    residual("middle.res2", width, width)
    number = 0
    for level in reversed(range(len(config.widths))):
        outs = [config.widths[level]] * config.layers_per_block + [config.widths[max(level - 1, 0)]]
        for wanted in outs:
            residual(f"up.{number}.res", width + skips.pop(), wanted)
            if config.attention[level]:
                attention(f"up.{number}.attn", wanted)
            width, number = wanted, number + 1
        if level:
            conv(f"up.{number}.conv", width, width, 4)
            number += 1
    norm("norm", width)
    conv("final", width, config.channels, 3)
    return {release.PREFIX + name: shape for name, shape in found.items()}


def random_state(shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 16
        state[name] = torch.randn(shape, generator=draw) / math.sqrt(fan)
    return state


def naive(state, config, x, t, embedding):
    """The release's forward pass by its tensors, sample by sample where attention is concerned."""
    s = {k.removeprefix(release.PREFIX): v for k, v in state.items()}

    def lin(name, y):
        return y @ s[f"{name}.weight"].flatten(1).T + s[f"{name}.bias"]

    def conv(name, y, **more):
        return functional.conv2d(y, s[f"{name}.weight"], s[f"{name}.bias"], **more)

    def norm(name, y):
        return functional.group_norm(y, 32, s[f"{name}.weight"], s[f"{name}.bias"])

    def attend(name, y, source):
        q, k, v = (lin(f"{name}.to_{p}", z) for p, z in (("q", y), ("k", source), ("v", source)))
        size, out = config.head_channels, []
        for h in range(q.shape[1] // size):
            part = slice(h * size, (h + 1) * size)
            out.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), 1) @ v[:, part])
        return lin(f"{name}.proj_out", torch.cat(out, 1))

    half = config.widths[0] // 2
    angle = t[:, None].double() * 10000.0 ** (-torch.arange(half).double() / half)
    time = torch.cat([angle.cos(), angle.sin()], 1).float()
    time = lin("time_emb.lin2", functional.silu(lin("time_emb.lin1", time)))
    context = lin("context_emb", embedding)

    def residual(name, y):
        emb = lin(f"{name}.time_emb.1", functional.silu(time))
        h = conv(f"{name}.conv1", functional.silu(norm(f"{name}.norm1", y)), padding=1)
        scale, shift = (lin(f"{name}.{p}_emb", emb)[:, :, None, None] for p in ("scale", "shift"))
        h = (1 + scale) * norm(f"{name}.norm2.norm", h) + shift
        h = conv(f"{name}.conv2", functional.silu(h), padding=1)
        return h + (conv(f"{name}.shortcut", y) if f"{name}.shortcut.weight" in s else y)

    def attention(name, y):
        h = conv(f"{name}.x_proj_in", y)
        tokens = lin(f"{name}.c_proj_in", context).reshape(len(y), config.condition_dim, -1)
        tokens = norm(f"{name}.c_norm", tokens)
        rows = []
        for one, c in zip(h, tokens, strict=True):
            z = one.flatten(1)  # [channels, positions]

            def normed(z):
                return norm(f"{name}.x_norm", z[None])[0].T

            z = z + attend(f"{name}.self_attention", normed(z), normed(z)).T
            z = z + attend(f"{name}.cross_attention", normed(z), c.T).T
            z = z + lin(f"{name}.ff.2", functional.gelu(lin(f"{name}.ff.0", normed(z)))).T
            rows.append(z.reshape(one.shape))
        return y + conv(f"{name}.x_proj_out", torch.stack(rows))

    def parts(way):
        return range(1 + max(int(k.split(".")[1]) for k in s if k.startswith(f"{way}.")))

    y = conv("image_proj", x, padding=1)
    kept = [y]
    for n in parts("down"):
        if f"down.{n}.conv.weight" in s:
            y = conv(f"down.{n}.conv", y, stride=2, padding=1)
        else:
            y = residual(f"down.{n}.res", y)
            y = attention(f"down.{n}.attn", y) if f"down.{n}.attn.x_norm.weight" in s else y
        kept.append(y)
    y = residual("middle.res2", attention("middle.attn", residual("middle.res1", y)))
    for n in parts("up"):
        if f"up.{n}.conv.weight" in s:
            weight, bias = s[f"up.{n}.conv.weight"], s[f"up.{n}.conv.bias"]
            y = functional.conv_transpose2d(y, weight, bias, stride=2, padding=1)
        else:
            y = residual(f"up.{n}.res", torch.cat([y, kept.pop()], 1))
            y = attention(f"up.{n}.attn", y) if f"up.{n}.attn.x_norm.weight" in s else y
    return conv("final", functional.silu(norm("norm", y)), padding=1)


def test_the_released_size_has_the_released_number_of_parameters():
    """216,341,187 stand in the release's configuration of CPD25; VQ-f4 has 55.3 million."""
    with torch.device("meta"):
        network, codec = Denoiser(DENOISERS["idiffface"]), vq.VQAutoencoder(vq.VQConfig())
    assert sum(p.numel() for p in network.parameters()) == 216_341_187
    assert round(sum(p.numel() for p in codec.parameters()) / 1e5) == 553
    assert sum(math.prod(shape) for shape in published_names(DENOISERS["idiffface"]).values()) == 216_341_187
    assert codec.config.latent_size == DENOISERS["idiffface"].sample_size


def test_the_network_is_the_releases():
    state = random_state(published_names(SMALL))
    saved = release.network(state, "here")
    assert release.denoiser_config(saved, SMALL.sample_size, "here") == SMALL
    network = Denoiser(SMALL)
    network.load_state_dict(release.renamed(saved))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0, 873])
    e = functional.normalize(torch.randn(2, 24), dim=1)
    with torch.no_grad():
        found = network(x, t, network.condition(e, torch.zeros(2)))
        assert torch.allclose(found, naive(state, SMALL, x, t, e), rtol=1e-4, atol=1e-4 * found.std())
        nobody = network(x, t, network.null_condition(2))
        silent = {**state, f"{release.PREFIX}context_emb.weight": torch.zeros(64, 24)}
        silent[f"{release.PREFIX}context_emb.bias"] = torch.zeros(64)
        assert torch.allclose(nobody, naive(silent, SMALL, x, t, e), rtol=1e-4, atol=1e-4 * found.std())
    assert (nobody - found).abs().max() > 1e-3


def published_autoencoder(config, seed=1):
    """A random autoencoder by the published names; 1x1 convolutions where ours has linear maps."""
    shapes = {}
    for theirs, _, shape in vq.names(config):
        attends = ".attn_1." in theirs and ".norm." not in theirs and theirs.endswith("weight")
        shapes[theirs] = (*shape, 1, 1) if attends else shape
    return random_state(shapes, seed)


def naive_decoder(s, config, z):
    """The published decoder of latents, rounded to the codebook."""

    def conv(name, y, **more):
        return functional.conv2d(y, s[f"{name}.weight"], s[f"{name}.bias"], **more)

    def norm(name, y):
        return functional.group_norm(y, 32, s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-6)

    def block(name, y):
        h = conv(f"{name}.conv1", functional.silu(norm(f"{name}.norm1", y)), padding=1)
        h = conv(f"{name}.conv2", functional.silu(norm(f"{name}.norm2", h)), padding=1)
        return h + (conv(f"{name}.nin_shortcut", y) if f"{name}.nin_shortcut.weight" in s else y)

    code = s["quantize.embedding.weight"]
    rows = z.permute(0, 2, 3, 1)
    nearest = (rows[..., None, :] - code).square().sum(-1).argmin(-1)
    y = conv("decoder.conv_in", conv("post_quant_conv", code[nearest].permute(0, 3, 1, 2)), padding=1)
    y = block("decoder.mid.block_1", y)
    h = norm("decoder.mid.attn_1.norm", y)
    q, k, v = (conv(f"decoder.mid.attn_1.{p}", h).flatten(2) for p in "qkv")
    h = v @ torch.softmax(q.mT @ k / math.sqrt(q.shape[1]), 2).mT
    y = block("decoder.mid.block_2", y + conv("decoder.mid.attn_1.proj_out", h.reshape(y.shape)))
    for level in reversed(range(len(config.widths))):
        for n in range(config.layers + 1):
            y = block(f"decoder.up.{level}.block.{n}", y)
        if level:
            y = conv(f"decoder.up.{level}.upsample.conv", functional.interpolate(y, scale_factor=2.0), padding=1)
    return conv("decoder.conv_out", functional.silu(norm("decoder.norm_out", y)), padding=1)


def test_the_autoencoder_is_the_published_one():
    state = published_autoencoder(CODEC)
    assert release.vq_config(state, 32, "here") == CODEC
    codec = vq.VQAutoencoder(CODEC)
    codec.model.load_state_dict(vq.from_published(state, CODEC, "here"))
    z = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = naive_decoder(state, CODEC, z)
        assert torch.allclose(codec.decode(z), expected, rtol=1e-4, atol=1e-4 * expected.std())
        assert codec.encode(torch.randn(2, 3, 32, 32)).shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"no tensor 'decoder\.conv_in\.weight'"):
        vq.from_published({k: v for k, v in state.items() if k != "decoder.conv_in.weight"}, CODEC, "here")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What a user brings: the denoiser's file, the two of the autoencoder, and a recognizer of 24 numbers."""
    folder = tmp_path_factory.mktemp("release")
    process = {"betas": torch.rand(1000), "alpha_bars": torch.rand(1000)}
    torch.save({**process, **random_state(published_names(SMALL))}, folder / "ema_averaged_model.ckpt")
    state = published_autoencoder(CODEC)
    first = {k: v for k, v in state.items() if k.startswith(("encoder.", "quant_conv."))}
    (folder / "autoencoder").mkdir()
    torch.save(first, folder / "autoencoder" / release.AUTOENCODER_FILES[0])
    torch.save(
        {k: v for k, v in state.items() if k not in first}, folder / "autoencoder" / release.AUTOENCODER_FILES[1]
    )
    torch.save({"state_dict": {**state, "loss.discriminator.weight": torch.zeros(1)}}, folder / "vq-f4.ckpt")
    module = recognizers.build("tiny", 24, 32)
    weights.save_pretrained(
        str(folder / "elastic"), module, weights.WeightsConfig("tiny", 24, 32, RESEARCH, "FFHQ's other half")
    )
    return folder


def convert_it(files, output, autoencoder="autoencoder", **changes):
    fields = {
        "uri": str(files / "ema_averaged_model.ckpt"), "layout": "idiffface", "architecture": "idiffface",
        "licence": RESEARCH, "training_data": "FFHQ", "output": str(output), "input_size": "32",
        "autoencoder": str(files / autoencoder), "embedder": str(files / "elastic"),
    }  # fmt: skip
    return convert.convert(**{**fields, **changes})


def test_a_release_becomes_a_weights_folder(files, tmp_path):
    made = convert_it(files, tmp_path / "weights")
    assert convert_it(files, tmp_path / "again", autoencoder="vq-f4.ckpt")["sha256"] == made["sha256"]
    assert convert_it(files, tmp_path / "weights") == made  # the same file again is no other weights
    stated = weights.read_config(made["uri"], generators.GENERATOR_KIND)
    assert (stated.licence, stated.input_size, stated.details["framing"]) == (RESEARCH, 32, "ffhq")
    module, _ = generators.from_pretrained(made["uri"])
    assert module.denoiser.config == SMALL and module.image_size == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uri": "/nowhere/x.ckpt"}, r"no such file; bring ema_averaged_model\.ckpt .* CC BY-NC-SA 4\.0"),
        ({"autoencoder": "/nowhere"}, r"first_stage_encoder_state_dict\.pt: no such file; bring"),
        ({"embedder": "heads-fr-tiny"}, r"gives 256 numbers, .* takes 24"),
        ({"embedder": None}, r"give --autoencoder and --embedder"),
        ({"architecture": "r50"}, r"--architecture 'r50'"),
        ({"colour_order": "BGR"}, r"--colour-order: is read off the file"),
        ({"input_size": "x"}, r"--input-size 'x'"),
        ({"layout": "insightface", "architecture": "r18"}, r"--autoencoder: belongs to --layout idiffface"),
    ],
)
def test_what_does_not_fit_is_refused(files, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        convert_it(files, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k.removeprefix(release.PREFIX): v for k, v in s.items()}, "no denoiser of IDiff-Face"),
        (lambda s: {**s, f"{release.PREFIX}empty_context_embedding": torch.zeros(64)}, "learned empty context"),
        (lambda s: {k: v for k, v in s.items() if "c_proj_in" not in k}, "attend to a context"),
    ],
)
def test_other_checkpoints_are_refused(files, tmp_path, change, message):
    torch.save(change(random_state(published_names(SMALL))), tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=message):
        convert_it(files, tmp_path / "out", uri=str(tmp_path / "other.ckpt"))


def test_the_command_line_takes_it(files, tmp_path, capsys):
    code = cli.main([
        "convert", str(files / "ema_averaged_model.ckpt"), "--layout", "idiffface", "--architecture", "idiffface",
        "--autoencoder", str(files / "autoencoder"), "--embedder", str(files / "elastic"), "--input-size", "32",
        "--licence", RESEARCH, "--training-data", "FFHQ", "--output", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code == 0 and '"architecture": "idiffface"' in capsys.readouterr().out
    assert np.isfinite(generators.from_pretrained(str(tmp_path / "out"))[0].denoiser.alphas_cumprod).all()
