"""Samplers against analytic answers: Gaussian data has a linear optimal denoiser and a known flow."""

import dataclasses

import numpy as np
import pytest
import torch

from synface.core import rng
from synface.core.errors import InputError, SynfaceError
from synface.models import autoencoder, denoisers, sampling
from synface.models.denoisers import config, unet
from synface.models.denoisers.conditioning import Condition
from synface.models.sampling import SamplerSettings

MEAN, STD = 0.7, 0.4
TINY = dataclasses.replace(
    config.TINY, sample_size=8, channels=2, widths=(16, 32), attention=(False, True), embedding_dim=6, condition_dim=64
)
TINY = dataclasses.replace(TINY, head_channels=16, norm_groups=8)


class GaussianModel:
    """The exact denoiser of data N(mean, std^2) in every cell; m and the embedding - 1 shift it, null has mean 0."""

    shape = (1, 3, 3)

    def __init__(self, std=STD, prediction="v_prediction"):
        schedule = "linear" if prediction == "epsilon" else "squaredcos_cap_v2"
        self.config = dataclasses.replace(config.TINY, prediction=prediction, schedule=schedule, embedding_dim=1)
        self.std, self.abar = std, unet.alphas_cumprod(self.config).double()

    def condition(self, embedding_nd, m_n):
        return Condition(MEAN + m_n[:, None].double() + embedding_nd.double() - 1, None)

    def null_condition(self, n):
        return Condition(torch.zeros(n, 1, dtype=torch.float64), None)

    def __call__(self, x, t, condition):
        abar = self.abar[t][:, None, None, None]
        mean = condition.attention_nk[:, :, None, None]
        centred = x.double() - abar.sqrt() * mean
        noise = (1 - abar).sqrt() * centred / (abar * self.std**2 + 1 - abar)
        if self.config.prediction == "epsilon":
            return noise.float()
        x0 = mean + abar.sqrt() * self.std**2 * centred / (abar * self.std**2 + 1 - abar)
        return (abar.sqrt() * noise - (1 - abar).sqrt() * x0).float()


def drawn(model, settings, n=5, m=0.0, **more):
    keys = [("someone", k) for k in range(n)]
    return sampling.sample(model, np.ones((n, 1)), np.full(n, m), 11, keys, settings, **more)


def start(n=5, shape=(1, 3, 3)):
    return rng.normal_rows(11, [("someone", k, "noise") for k in range(n)], shape).astype(np.float64)


def times(model, settings):
    return sampling.build_scheduler(model.config, settings).timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("settings", [SamplerSettings("ddim", 20), SamplerSettings("dpmsolver++", 10)])
def test_one_known_image_is_found_in_any_number_of_steps(settings, prediction):
    """Data at a single point: every estimate of x_0 is that point, and so is the end."""
    got = drawn(GaussianModel(std=0.0, prediction=prediction), settings, m=-0.2)
    np.testing.assert_allclose(got, 0.5, atol=2e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_equals_its_closed_form(prediction):
    """For Gaussian data every DDIM step is affine in x; the product of the steps in float64 by hand."""
    model, settings = GaussianModel(prediction=prediction), SamplerSettings("ddim", 20)
    got = drawn(model, settings)
    x, abar = start(), model.abar.numpy()
    steps = times(model, settings)
    for t in steps:
        after = abar[t - 50] if t - 50 >= 0 else 1.0
        eps = np.sqrt(1 - abar[t]) * (x - np.sqrt(abar[t]) * MEAN) / (abar[t] * STD**2 + 1 - abar[t])
        x0 = MEAN + np.sqrt(abar[t]) * STD**2 * (x - np.sqrt(abar[t]) * MEAN) / (abar[t] * STD**2 + 1 - abar[t])
        x = np.sqrt(after) * x0 + np.sqrt(1 - after) * eps
    np.testing.assert_allclose(got, x, atol=2e-4)


def test_solvers_approach_the_flow_and_the_second_order_one_is_better():
    """The probability flow of Gaussian data ends at mean + std (x_T - sqrt(abar) mean) / sqrt(var_T)."""
    model = GaussianModel()
    abar = model.abar.numpy()[999]
    exact = MEAN + STD * (start() - np.sqrt(abar) * MEAN) / np.sqrt(abar * STD**2 + 1 - abar)

    def error(solver, steps):
        return np.abs(drawn(model, SamplerSettings(solver, steps)) - exact).max()

    assert error("ddim", 200) < 0.25 * error("ddim", 20)
    assert error("dpmsolver++", 10) < error("ddim", 20)
    assert error("dpmsolver++", 50) < 0.02


def test_ancestral_noise_gives_the_closed_forms_moments():
    """With eta = 1 each step is affine plus fresh noise: mean and variance follow a scalar recursion."""
    model, settings = GaussianModel(), SamplerSettings("ddim", 20, eta=1.0, micro_batch=64)
    got = drawn(model, settings, n=320)
    abar, mean, variance = model.abar.numpy(), 0.0, 1.0
    for t in times(model, settings):
        now, after = abar[t], abar[t - 50] if t >= 50 else 1.0
        total = now * STD**2 + 1 - now
        fresh = (1 - after) / (1 - now) * (1 - now / after)  # DDIM eq. 16
        slope = np.sqrt(after * now) * STD**2 / total + np.sqrt((1 - after - fresh) * (1 - now)) / total
        shift = np.sqrt(after) * MEAN - slope * np.sqrt(now) * MEAN
        mean, variance = slope * mean + shift, slope**2 * variance + fresh
    assert got.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / got.size))
    assert got.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / got.size))
    assert np.array_equal(got[:3], drawn(model, settings, n=3))


def test_guidance_of_linear_models_shifts_the_mean():
    """null + w (conditional - null) of two point masses 0 and mu is the point mass w mu."""
    model = GaussianModel(std=0.0)
    got = drawn(model, SamplerSettings("ddim", 20, guidance=2.0))
    np.testing.assert_allclose(got, 2 * MEAN, atol=2e-4)
    each = drawn(model, SamplerSettings("ddim", 20), guidance_n=np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    np.testing.assert_allclose(each.mean((1, 2, 3)), MEAN * np.array([0, 0.5, 1, 1.5, 2]), atol=2e-4)


def test_negative_guidance_of_linear_models_walks_away_from_the_other():
    """negative + w (own - negative) of two point masses is the point mass there, whatever w; m shifts both."""
    model = GaussianModel(std=0.0)
    other = np.array([[0.2], [0.6], [1.0], [1.4], [2.0]])  # point masses at MEAN + m + other - 1
    for weight, m in ((1.5, 0.0), (3.0, -0.4), (0.0, 0.3)):
        got = drawn(model, SamplerSettings("ddim", 20, guidance=weight), m=m, negative_nd=other)
        own, negative = MEAN + m, MEAN + m + other[:, 0] - 1
        np.testing.assert_allclose(got.mean((1, 2, 3)), negative + weight * (own - negative), atol=4e-4)
        assert got.std((1, 2, 3)).max() < 2e-4
    spread = GaussianModel()  # DDIM by hand with NegFaceDiff's (1 + w') own - w' negative, w' = 0.5
    got, x = drawn(spread, SamplerSettings("ddim", 4, guidance=1.5), negative_nd=other), start()
    for t in times(spread, SamplerSettings("ddim", 4)):
        abar, after = spread.abar.numpy()[t], spread.abar.numpy()[t - 250] if t >= 250 else 1.0
        mean = np.stack([np.full(5, MEAN), MEAN + other[:, 0] - 1])[:, :, None, None, None]
        gain = np.sqrt(abar) * STD**2 / (abar * STD**2 + 1 - abar)
        x0_own, x0_other = mean + gain * (x - np.sqrt(abar) * mean)
        x0 = 1.5 * x0_own - 0.5 * x0_other
        x = np.sqrt(after) * x0 + np.sqrt(1 - after) * (x - np.sqrt(abar) * x0) / np.sqrt(1 - abar)
    np.testing.assert_allclose(got, x, atol=5e-4)


def test_guidance_works_in_its_interval_alone():
    """The DDIM trajectory by hand, with the guided estimate of x_0 at t = 499 only."""
    model, settings = GaussianModel(), SamplerSettings("ddim", 4, guidance=3.0, guidance_interval=(0.3, 0.6))
    steps, abar, x = times(model, settings), model.abar.numpy(), start()
    assert steps == [999, 749, 499, 249]
    for t in steps:
        total = abar[t] * STD**2 + 1 - abar[t]
        own, null = (mu + np.sqrt(abar[t]) * STD**2 * (x - np.sqrt(abar[t]) * mu) / total for mu in (MEAN, 0.0))
        x0 = null + 3 * (own - null) if t == 499 else own
        after = abar[t - 250] if t >= 250 else 1.0
        x = np.sqrt(after) * x0 + np.sqrt(1 - after) * (x - np.sqrt(abar[t]) * x0) / np.sqrt(1 - abar[t])
    np.testing.assert_allclose(drawn(model, settings), x, atol=5e-4)
    for other in ((0.0, 0.0), (0.0, 1.0), (0.0, 0.3)):
        assert np.abs(drawn(model, dataclasses.replace(settings, guidance_interval=other)) - x).min() > 0.02


def test_rescaled_guidance_has_the_conditional_spread():
    torch.manual_seed(0)
    conditional, null = torch.randn(3, 2, 8, 8), torch.randn(3, 2, 8, 8)
    weight = torch.tensor([1.0, 2.0, 5.0])
    full = sampling.guided(conditional, null, weight, 1.0)
    torch.testing.assert_close(full.std((1, 2, 3)), conditional.std((1, 2, 3)))
    by_hand = null[2] + 5 * (conditional[2] - null[2])
    torch.testing.assert_close(sampling.guided(conditional, null, weight)[2], by_hand)
    half = by_hand * (0.5 * conditional[2].std() / by_hand.std() + 0.5)
    torch.testing.assert_close(sampling.guided(conditional, null, weight, 0.5)[2], half)


def network(description=TINY):
    torch.manual_seed(5)
    module = denoisers.build(description).to(memory_format=torch.channels_last)
    if module.mean is not None:
        module.mean.weight_dk.normal_()
    return module


def rows(n):
    x = np.random.default_rng(2).standard_normal((n, 6))
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.linspace(-1, 1, n), [("a", k) for k in range(n)]


PAPER = dataclasses.replace(TINY, conditioning="cross_attention", ridge=False, mode="paper", condition_dim=24)


@pytest.mark.parametrize("description", [TINY, PAPER], ids=["adagn", "cross-attention"])
@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(steps=3, guidance=1.5, guidance_rescale=0.5, micro_batch=4),
        SamplerSettings("ddim", 4, eta=1.0, clip=2.0, micro_batch=3),
    ],
    ids=["dpm-guided", "ddim-ancestral"],
)
def test_an_image_depends_on_its_own_key_alone(description, settings):
    model = network(description)
    embedding, m, keys = rows(7)
    together = sampling.sample(model, embedding, m, 1, keys, settings)
    order = [3, 6, 0, 2, 5, 1, 4]
    mixed = sampling.sample(model, embedding[order], m[order], 1, [keys[i] for i in order], settings)
    alone = [sampling.sample(model, embedding[[i]], m[[i]], 1, [keys[i]], settings)[0] for i in range(7)]
    assert np.array_equal(together[order], mixed) and np.array_equal(together, np.stack(alone))
    assert len(np.unique(together.reshape(7, -1)[:, 0])) == 7


def test_guidance_of_a_neighbour_changes_nothing():
    model, settings = network(), SamplerSettings(steps=2, micro_batch=4)
    embedding, m, keys = rows(3)
    some = sampling.sample(model, embedding, m, 1, keys, settings, np.array([1.0, 1.0, 3.0]))
    none = sampling.sample(model, embedding, m, 1, keys, settings, np.array([1.0, 1.0, 1.0]))
    assert np.array_equal(some[:2], none[:2]) and not np.array_equal(some[2], none[2])


@pytest.mark.parametrize("description", [TINY, PAPER], ids=["adagn", "cross-attention"])
def test_negatives_are_the_images_own(description):
    """Nothing of a neighbour's negative reaches an image; its own does, and none is the network's null."""
    model, settings = network(description), SamplerSettings(steps=2, guidance=1.5, micro_batch=4)
    embedding, m, keys = rows(6)
    negative = np.roll(embedding, 2, 0)
    together = sampling.sample(model, embedding, m, 1, keys, settings, negative_nd=negative)
    order = [3, 0, 5, 2, 1, 4]
    mixed = sampling.sample(
        model, embedding[order], m[order], 1, [keys[i] for i in order], settings, negative_nd=negative[order]
    )
    alone = [
        sampling.sample(model, embedding[[i]], m[[i]], 1, [keys[i]], settings, negative_nd=negative[[i]])[0]
        for i in range(6)
    ]
    assert np.array_equal(together[order], mixed) and np.array_equal(together, np.stack(alone))
    changed = sampling.sample(
        model, embedding, m, 1, keys, settings, negative_nd=np.concatenate([negative[:5], embedding[:1]])
    )
    assert np.array_equal(together[:5], changed[:5]) and not np.array_equal(together[5], changed[5])
    null = sampling.sample(model, embedding, m, 1, keys, settings)
    assert not any(np.array_equal(a, b) for a, b in zip(together, null, strict=True))


def test_an_image_guided_away_from_itself_is_its_own_unguided_one():
    model, embedding = network(), rows(4)[0]
    m, keys = np.full(4, 0.5), [("a", k) for k in range(4)]
    own = sampling.sample(model, embedding, m, 1, keys, SamplerSettings(steps=3, guidance=4.0), negative_nd=embedding)
    np.testing.assert_allclose(own, sampling.sample(model, embedding, m, 1, keys, SamplerSettings(steps=3)), atol=1e-5)


def test_equal_keys_share_noise_over_m():
    """At full noise v is -sqrt(1 - abar) x_0-ish: images of one row start equal, and differ by m alone."""
    model, settings = network(), SamplerSettings(steps=2, micro_batch=4)
    embedding = np.repeat(rows(1)[0], 3, 0)
    same = sampling.sample(model, embedding, np.array([0.2, 0.2, 0.9]), 1, [("a", 0)] * 3, settings)
    assert np.array_equal(same[0], same[1]) and not np.array_equal(same[0], same[2])


def test_images_do_not_depend_on_their_batch():
    torch.manual_seed(0)
    decoder = autoencoder.build()
    z = np.random.default_rng(0).standard_normal((5, 8, 16, 16)).astype(np.float32)
    images = sampling.to_images(z, decoder, micro_batch=4)
    assert images.shape == (5, 64, 64, 3) and images.dtype == np.uint8
    single = np.concatenate([sampling.to_images(z[i : i + 1], decoder, micro_batch=4) for i in range(5)])
    assert np.array_equal(images, single)
    pixels = sampling.to_images(np.array([[[[-2.0]], [[0.0]], [[1.0]]]], np.float32), None)
    assert pixels.tolist() == [[[[0, 128, 255]]]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"solver": "euler"}, "ddim, dpmsolver"),
        ({"steps": 0}, "at least 1"),
        ({"guidance_interval": (0.5, 0.2)}, "low before high"),
        ({"eta": 0.5}, "belong to solver ddim"),
        ({"solver": "ddim", "eta": 2.0}, r"\[0, 1\]"),
    ],
)
def test_bad_settings_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        SamplerSettings(**change)


def test_bad_rows_are_refused():
    model, settings = network(), SamplerSettings(steps=2)
    embedding, m, keys = rows(3)
    with pytest.raises(InputError, match=r"\[-1, 1\]"):
        sampling.sample(model, embedding, m * 1.01, 1, keys, settings)
    with pytest.raises(InputError, match="recognizer that it was trained with"):
        sampling.sample(model, embedding[:, :5], m, 1, keys, settings)
    with pytest.raises(InputError, match="recognizer that it was trained with"):
        sampling.sample(model, embedding, m, 1, keys, settings, np.full(3, 2.0), negative_nd=embedding[:2])
    with pytest.raises(InputError, match="guidance other than 1"):
        sampling.sample(model, embedding, m, 1, keys, settings, negative_nd=embedding)
    with pytest.raises(InputError, match="must divide 1000"):
        sampling.sample(model, embedding, m, 1, keys, SamplerSettings("ddim", 15))
    with pytest.raises(InputError, match="at most the 1000"):
        sampling.sample(model, embedding, m, 1, keys, SamplerSettings("ddim", 2000))


def test_non_finite_pixels_stop():
    model = network()
    with torch.no_grad():
        model.unet.conv_out.bias.fill_(float("nan"))
    embedding, m, keys = rows(2)
    with pytest.raises(SynfaceError, match=r"2 images, the first \('a', 0\)"):
        sampling.sample(model, embedding, m, 1, keys, SamplerSettings(steps=2))
