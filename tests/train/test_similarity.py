"""CemiFace's loss: values by hand, gradients by finite differences."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from synface.core import rng
from synface.core.errors import InputError
from synface.train import diffusion, similarity


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_grids_of_the_paper():
    assert len(similarity.m_grid(0.02)) == 101 and len(similarity.m_grid(0.04)) == 51
    coarse = similarity.m_grid(0.06)
    assert len(coarse) == 34 and coarse[0] == -1 and coarse[-1] == pytest.approx(0.98)
    np.testing.assert_allclose(similarity.m_grid(0.02, 0, 1), np.arange(51) / 50, atol=1e-7)
    assert similarity.m_grid(0.5, 0.2, 0.2).tolist() == [np.float32(0.2)]
    for interval in similarity.INTERVALS:
        assert np.abs(similarity.m_grid(interval)).max() <= 1


def test_drawn_m_are_uniform_on_the_grid():
    m = similarity.draw_m(rng.generator(1, "m"), 20_000, 0.04)
    values, count = np.unique(m, return_counts=True)
    assert np.array_equal(values, similarity.m_grid(0.04))
    expected = 20_000 / 51
    assert ((count - expected) ** 2 / expected).sum() < 87  # chi2, 50 degrees of freedom, 0.1 %


def test_the_grid_does_not_warn_and_continuous_m_does():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        similarity.draw_m(rng.generator(1, "m"), 3)
    with pytest.warns(UserWarning, match="collapses"):
        m = similarity.draw_m(rng.generator(1, "m"), 1000, None, 0.1, 0.3)
    assert m.min() >= 0.1 and m.max() <= 0.3 and len(np.unique(m)) > 990


@pytest.mark.parametrize(("interval", "low", "high"), [(0.0, -1, 1), (-0.02, -1, 1), (0.02, 0.5, 0.1), (0.02, -2, 1)])
def test_bad_grids_are_refused(interval, low, high):
    with pytest.raises(InputError):
        similarity.m_grid(interval, low, high)


def test_matching_loss_by_hand():
    s, m, t = tensor(0.5, 0.5, 0.5, 0.2), tensor(0.0, 0.0, 0.0, -1.0), torch.tensor([0, 500, 1000, 250])
    # t = 0: (1 - .5)^2; T/2: half .25 + half .25; T: (0 - .5)^2; 3/4 (.8)^2 + 1/4 (1.2)^2
    expected = tensor(0.25, 0.25, 0.25, 0.75 * 0.64 + 0.25 * 1.44)
    torch.testing.assert_close(similarity.similarity_matching(s, s, m, t, 1000), expected)
    pair = similarity.similarity_matching(tensor(0.9), tensor(0.3), tensor(0.4), torch.tensor([100]), 1000)
    torch.testing.assert_close(pair, tensor(0.9 * 0.01 + 0.1 * 0.01))


def test_total_loss_by_hand():
    error, matching = tensor(1.0, 3.0), tensor(0.4, 0.8)
    assert similarity.total_loss(error, None).item() == 2
    assert similarity.total_loss(error, matching).item() == pytest.approx(2 + 0.05 * 0.6)
    kept = torch.tensor([True, False])
    assert similarity.total_loss(error, matching, 0.5, kept).item() == pytest.approx(2 + 0.5 * 0.2)


def test_dropped_rows_send_no_nan_back():
    matching = torch.tensor([0.4, float("nan")], requires_grad=True)
    loss = similarity.total_loss(torch.zeros(2), matching, 1.0, torch.tensor([True, False]))
    loss.backward()
    assert loss.item() == pytest.approx(0.2) and matching.grad.tolist() == [0.5, 0.0]


def test_measures_by_hand():
    a, b = tensor(*[[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), tensor(*[[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    torch.testing.assert_close(similarity.similarity(a, b), tensor(1.0, 0.0, -1.0))
    by_hand = tensor(1.0, 1 - 2**0.5, -1.0)
    torch.testing.assert_close(similarity.similarity(a, b, "euclidean"), by_hand, atol=2e-4, rtol=0)
    with pytest.raises(InputError, match="cosine, euclidean"):
        similarity.similarity(a, b, "manhattan")


def test_euclidean_slope_is_finite_at_equality():
    a = torch.ones(1, 4, requires_grad=True)
    similarity.similarity(a, torch.ones(1, 4), "euclidean").sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_clean_estimate_inverts_the_noising(kind):
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    abar = tensor(0.999, 0.5, 0.05, 4e-5)
    x_t = diffusion.noised(x0, noise, abar)
    target = diffusion.prediction_target(x0, noise, abar, kind)
    torch.testing.assert_close(similarity.clean_estimate(x_t, target, abar, kind), x0, rtol=1e-9, atol=1e-9)


def test_clean_estimate_by_hand():
    x_t, p, abar = tensor([1.0]), tensor([0.5]), tensor(0.64)
    assert similarity.clean_estimate(x_t, p, abar, "epsilon").item() == pytest.approx((1 - 0.6 * 0.5) / 0.8)
    assert similarity.clean_estimate(x_t, p, abar, "v_prediction").item() == pytest.approx(0.8 - 0.6 * 0.5)
    with pytest.raises(InputError):
        similarity.clean_estimate(x_t, p, abar, "sample")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("measure", similarity.MEASURES)
def test_gradient_through_the_estimate_and_the_embedder(kind, measure):
    """d L / d prediction of the whole loss, with a nonlinear E_id, against central differences."""
    torch.manual_seed(0)
    embedder = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    x0, noise = torch.randn(3, 3, 2, 2).double(), torch.randn(3, 3, 2, 2).double()
    abar, t = tensor(0.9, 0.4, 0.1), torch.tensor([50, 400, 800])
    m = tensor(0.5, -0.2, 0.1)
    x_t = diffusion.noised(x0, noise, abar)
    target = diffusion.prediction_target(x0, noise, abar, kind)
    identity = embedder(x0).detach()

    def loss(prediction):
        estimate = similarity.clean_estimate(x_t, prediction, abar, kind)
        s = similarity.similarity(embedder(estimate), identity, measure)
        matching = similarity.similarity_matching(s, s, m, t, 1000)
        return similarity.total_loss(diffusion.squared_error(prediction, target), matching, 0.7)

    prediction = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(prediction), prediction)
    step, flat = 1e-6, prediction.detach().flatten()
    numeric = torch.empty_like(flat)
    for i in range(len(flat)):
        up, down = flat.clone(), flat.clone()
        up[i] += step
        down[i] -= step
        numeric[i] = (loss(up.view_as(target)) - loss(down.view_as(target))) / (2 * step)
    torch.testing.assert_close(gradient.flatten(), numeric.detach(), rtol=1e-5, atol=1e-8)
    only_error = torch.autograd.grad(diffusion.squared_error(prediction, target).mean(), prediction)[0]
    assert (gradient - only_error).abs().max() > 1e-3  # the similarity does send a gradient
