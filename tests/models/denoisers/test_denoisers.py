"""CemiFace denoisers: sizes, the paper's attention, the residual reparametrisation, weights on disk."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from synface.core.errors import InputError
from synface.models import denoisers, weights
from synface.models.autoencoder import AutoencoderConfig
from synface.models.denoisers import conditioning, config, generator, unet
from synface.train import diffusion

SMALL = dataclasses.replace(
    config.TINY, sample_size=8, channels=2, widths=(16, 32), attention=(False, True), embedding_dim=6, condition_dim=64
)
SMALL = dataclasses.replace(SMALL, head_channels=16, norm_groups=8)
SMALL_PAPER = dataclasses.replace(SMALL, conditioning="cross_attention", condition_dim=12, ridge=False, mode="paper")


def built(description):
    torch.manual_seed(3)
    module = denoisers.build(description)
    if module.mean is not None:
        module.mean.weight_dk.normal_()
        module.mean.intercept_k.normal_()
    return module


def unit(n, d, seed=0):
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32))
    return functional.normalize(x)


@pytest.mark.parametrize(
    ("name", "network", "condition", "ridge"),
    [
        ("cemiface", 95_665_158, 526_336, 0),
        ("cemiface-tiny", 7_161_608, 154_560, 526_336),
        ("cemiface-tiny-paper", 9_253_448, 132_096, 0),
    ],
)
def test_parameter_counts(name, network, condition, ridge):
    with torch.device("meta"):
        module = denoisers.build(name)
    assert sum(p.numel() for p in module.unet.parameters()) == network
    assert sum(p.numel() for p in module.conditioner.parameters()) == condition
    assert sum(b.numel() for k, b in module.named_buffers() if k.startswith("mean.")) == ridge


def test_condition_parameters_by_hand():
    module = conditioning.Conditioner(512, 512, linear=True)
    f1, f2, null = 512 + 512, (512 + 512) * 512 + 512, 512
    assert sum(p.numel() for p in module.parameters()) == f1 + f2 + null


def test_full_network_is_dcface_shaped():
    with torch.device("meta"):
        module = denoisers.build("cemiface")
        shape = module.unet.config
        x = torch.empty(2, 3, 112, 112)
        condition = module.condition(torch.empty(2, 512), torch.empty(2))
        prediction, variance = module.with_range(x, torch.zeros(2, dtype=torch.int64), condition)
    assert shape.block_out_channels == (128, 128, 256, 256, 512, 512) and shape.layers_per_block == 1
    assert shape.resnet_time_scale_shift == "scale_shift" and shape.cross_attention_dim == 512
    assert unet.padding_of(config.FULL) == 8
    assert prediction.shape == variance.shape == (2, 3, 112, 112)


def test_attention_is_the_papers_formula():
    """softmax(Q Wq ([Kc, K] Wk)^T / sqrt d) [Vc, V] on the normalised latent, plus the latent."""
    module = built(SMALL_PAPER)
    attention = module.unet.mid_block.attentions[0]
    rng = np.random.default_rng(1)
    latent = torch.from_numpy(rng.standard_normal((2, 32, 4, 4)).astype(np.float32))
    c_att = torch.from_numpy(rng.standard_normal((2, 1, 12)).astype(np.float32))
    with torch.no_grad():
        got = attention(latent, encoder_hidden_states=c_att)
        flat = attention.group_norm(latent.flatten(2)).transpose(1, 2)
        query = attention.to_q(flat)
        key = torch.cat([attention.add_k_proj(c_att), attention.to_k(flat)], 1)
        value = torch.cat([attention.add_v_proj(c_att), attention.to_v(flat)], 1)
        out = torch.empty_like(flat)
        for head in range(2):
            cut = slice(16 * head, 16 * head + 16)
            share = torch.softmax(query[..., cut] @ key[..., cut].transpose(1, 2) / 4.0, -1)
            out[..., cut] = share @ value[..., cut]
        expected = attention.to_out[0](out).transpose(1, 2).reshape(latent.shape) + latent
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_identity_reaches_the_paper_network_by_attention_alone():
    """With the condition's keys and values silenced, nothing of identity or m is left."""
    module = built(SMALL_PAPER)
    x, t = torch.randn(2, 2, 8, 8), torch.tensor([300, 300])
    first, second = module.condition(unit(2, 6), torch.ones(2)), module.condition(unit(2, 6, 9), -torch.ones(2))
    with torch.no_grad():
        assert (module(x, t, first) - module(x, t, second)).abs().max() > 1e-6
        for name, parameter in module.unet.named_parameters():
            if "add_k_proj" in name or "add_v_proj" in name:
                parameter.zero_()
        assert torch.equal(module(x, t, first), module(x, t, second))


def test_time_works_in_every_residual_block():
    names = {n for n, _ in built(SMALL_PAPER).unet.named_parameters() if n.endswith("time_emb_proj.weight")}
    blocks = {n.rsplit(".", 1)[0] for n, _ in built(SMALL_PAPER).unet.named_modules() if n.endswith("conv1")}
    assert {n.removesuffix(".time_emb_proj.weight") for n in names} == blocks


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_residual_reparametrisation_is_exact(prediction):
    """A network that is perfect on the residual process predicts eps or v of the outer process exactly."""
    module = built(dataclasses.replace(SMALL, prediction=prediction)).double()
    condition = module.condition(unit(3, 6).double(), torch.tensor([1.0, 0.3, -0.5], dtype=torch.float64))
    x0, noise = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.randn(3, 2, 8, 8, dtype=torch.float64)
    t = torch.tensor([5, 400, 990])
    abar = module.alphas_cumprod[t]
    seen = {}

    def perfect(x, t_n, attention):
        seen["x"] = x
        residual = x0 - condition.mean_nchw
        return diffusion.prediction_target(residual, noise, abar, prediction)

    module._network = perfect
    out = module(diffusion.noised(x0, noise, abar), t, condition)
    torch.testing.assert_close(out, diffusion.prediction_target(x0, noise, abar, prediction))
    torch.testing.assert_close(seen["x"][:, :2], diffusion.noised(x0 - condition.mean_nchw, noise, abar))
    assert torch.equal(seen["x"][:, 2:], condition.mean_nchw)


@pytest.mark.parametrize(("mode", "follows"), [("paper", False), ("relation", True), ("hybrid", True)])
def test_mean_follows_m_only_where_m_is_a_relation(mode, follows):
    module = built(dataclasses.replace(SMALL, mode=mode))
    e, m = unit(2, 6), torch.tensor([0.25, -1.0])
    by_hand = (e * m[:, None] if follows else e) @ module.mean.weight_dk + module.mean.intercept_k
    torch.testing.assert_close(module.condition(e, m).mean_nchw.flatten(1), by_hand)
    assert torch.equal(module.null_condition(2).mean_nchw[1].flatten(), module.mean.intercept_k)


def test_schedules_are_the_published_ones():
    linear = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(unet.alphas_cumprod(config.FULL).numpy(), linear, rtol=2e-4)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2  # Nichol & Dhariwal 2021, eq. 17
    cosine = np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))
    np.testing.assert_allclose(unet.alphas_cumprod(config.TINY).numpy(), cosine, rtol=2e-3)


def test_choose_and_concatenate_rows():
    module = built(SMALL)
    condition, null = module.condition(unit(3, 6), torch.ones(3)), module.null_condition(3)
    mixed = conditioning.choose(torch.tensor([True, False, True]), condition, null)
    assert torch.equal(mixed.attention_nk[1], null.attention_nk[1])
    assert torch.equal(mixed.mean_nchw[2], condition.mean_nchw[2])
    both = conditioning.concatenate(condition, null)
    assert both.attention_nk.shape[0] == both.mean_nchw.shape[0] == 6


def test_fourier_features_tell_grid_values_apart():
    m = torch.linspace(-1, 1, 51)
    distance = torch.cdist(conditioning.fourier_features(m), conditioning.fourier_features(m))
    assert (distance + 10 * torch.eye(51)).min() > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "magic"}, "paper, relation, hybrid"),
        ({"attention": (True,)}, "2 levels"),
        ({"head_channels": 24}, "heads of 24"),
        ({"learned_range": True}, "ridge"),
        ({"learned_range": True, "ridge": False}, "not of latents"),
    ],
)
def test_senseless_descriptions_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(SMALL, **change)


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="cemiface-tiny-paper"):
        denoisers.build("cemifece")
    with pytest.raises(InputError, match="colour"):
        config.from_dict({**SMALL.as_dict(), "colour": 1})


def packed(tmp_path, dtype="float32"):
    inner = generator.build(
        dataclasses.replace(SMALL, sample_size=4, channels=8), AutoencoderConfig(image_size=16, width=8, narrow=8)
    )
    stated = generator.weights_config(
        inner, "small", generator.Provenance("fr", "ab" * 32, "Apache-2.0", "noise"), dtype, dial={"m": [0, 1]}
    )
    weights.save_pretrained(str(tmp_path), inner, stated)
    return inner


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_generator_round_trip(tmp_path, dtype):
    module = packed(tmp_path, dtype)
    loaded, stated = generator.from_pretrained(str(tmp_path))
    assert loaded.denoiser.config == module.denoiser.config and loaded.autoencoder.config == module.autoencoder.config
    assert loaded.image_size == stated.input_size == 16 and stated.details["dial"] == {"m": [0, 1]}
    assert not loaded.training
    for key, value in module.state_dict().items():
        expected = value.to(weights.STORED_DTYPES[dtype]).float()
        assert torch.equal(loaded.state_dict()[key], expected), key


def test_tiny_weights_fit_their_budget():
    """Half precision, denoiser and autoencoder in one file: below 20 MB each, 40 MB all."""
    sizes = []
    for name in ("cemiface-tiny", "cemiface-tiny-paper"):
        with torch.device("meta"):
            module = generator.build(config.DENOISERS[name], AutoencoderConfig())
        sizes.append(2 * sum(v.numel() for v in module.state_dict().values()))
    assert max(sizes) < 20e6 and sum(sizes) < 36e6


def test_a_generators_own_autoencoder(tmp_path):
    own = packed(tmp_path / "latents").autoencoder
    found, _ = generator.autoencoder_from_pretrained(str(tmp_path / "latents"))
    assert own is not None and found.config == own.config
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), own.parameters(), strict=True))
    pixels = generator.build(dataclasses.replace(SMALL, sample_size=16, channels=3), None)
    stated = generator.weights_config(pixels, "small", generator.Provenance("fr", "ab" * 32, "Apache-2.0", "noise"))
    weights.save_pretrained(str(tmp_path / "pixels"), pixels, stated)
    with pytest.raises(InputError, match="works on pixels and has none"):
        generator.autoencoder_from_pretrained(str(tmp_path / "pixels"))


def test_damaged_or_foreign_weights_are_refused(tmp_path):
    packed(tmp_path)
    with pytest.raises(InputError, match="kind"):
        generator.autoencoder_from_pretrained("heads-fr-tiny")
    place = tmp_path / weights.MODEL_FILE
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="sha256"):
        generator.from_pretrained(str(tmp_path))
    stated = json.loads((tmp_path / weights.CONFIG_FILE).read_text())
    (tmp_path / weights.CONFIG_FILE).write_text(json.dumps({**stated, "colour_order": "BGR"}))
    with pytest.raises(InputError, match="colour_order"):
        generator.from_pretrained(str(tmp_path))


def test_identities_of_another_embedder_are_refused(tmp_path):
    packed(tmp_path)
    _, stated = generator.from_pretrained(str(tmp_path))
    generator.check_embedder(stated, "fr", "ab" * 32)
    with pytest.raises(InputError, match="understands 'fr'"):
        generator.check_embedder(stated, "other", "cd" * 32)


def test_denoiser_and_autoencoder_must_agree():
    with pytest.raises(InputError, match="latents"):
        generator.build(SMALL, AutoencoderConfig(image_size=16))
    with pytest.raises(InputError, match="needs an autoencoder"):
        generator.build(SMALL, None)
