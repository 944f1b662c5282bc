"""Learned variances against diffusers' posterior, torch's distributions and sums over all grey levels."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from synface.train import variance

STEPS = 20


@pytest.fixture
def scheduler():
    """In float64: float32 hides small betas."""
    made = DDPMScheduler(STEPS, beta_schedule="linear", clip_sample=False, variance_type="fixed_small")
    made.betas = made.betas.double()
    made.alphas = 1 - made.betas
    made.alphas_cumprod = made.alphas.cumprod(0)
    return made


def batch(n=STEPS, seed=0):
    torch.manual_seed(seed)
    x0 = torch.rand(n, 2, 3, dtype=torch.float64) * 2 - 1
    return x0, torch.randn_like(x0), torch.arange(n)


def test_the_posterior_is_that_of_diffusers(scheduler):
    x0, x_t, t = batch()
    mean = variance.posterior_mean(x0, x_t, t, scheduler.alphas_cumprod)
    beta, posterior = variance.step_log_variances(scheduler.alphas_cumprod)
    torch.testing.assert_close(beta.exp(), scheduler.betas, rtol=1e-9, atol=0)
    for step in range(1, STEPS):
        assert posterior[step].exp().item() == pytest.approx(float(scheduler._get_variance(step)), rel=1e-9)
        abar = scheduler.alphas_cumprod[step].double()
        noise = (x_t[step] - abar.sqrt() * x0[step]) / (1 - abar).sqrt()
        torch.manual_seed(5)
        drawn = scheduler.step(
            noise[None], step, x_t[step][None], generator=torch.Generator().manual_seed(3)
        ).prev_sample
        jump = torch.randn((1, 2, 3), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        expected = mean[step] + (0.5 * posterior[step]).exp() * jump[0]
        torch.testing.assert_close(drawn[0], expected, rtol=1e-9, atol=1e-12)
    assert posterior[0] == posterior[1]


def test_kl_is_torchs():
    torch.manual_seed(1)
    mean_p, mean_q, log_p, log_q = torch.randn(4, 7, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean_p, (0.5 * log_p).exp()), normal(mean_q, (0.5 * log_q).exp())
    )
    torch.testing.assert_close(variance.normal_kl(mean_p, log_p, mean_q, log_q), expected)


def test_grey_levels_share_the_whole_probability():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, deviation in ((0.1, 0.05), (-1.0, 0.3), (0.98, 0.01)):
        nll = variance.level_nll(levels, torch.tensor(mean), torch.tensor(2 * math.log(deviation)))
        assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-6)


def test_terms_of_rows(scheduler):
    """A perfect mean with the posterior's own variance costs nothing; v = 1 costs the KL to beta_t."""
    x0, x_t, t = batch()
    abar = scheduler.alphas_cumprod
    low = variance.bound_terms(x0, x_t, x0, torch.full_like(x0, -1.0), t, abar)
    torch.testing.assert_close(low[1:], torch.zeros(STEPS - 1, dtype=torch.float64), atol=1e-6, rtol=0)
    assert low[0] > 0
    beta, posterior = variance.step_log_variances(abar)
    high = variance.bound_terms(x0, x_t, x0, torch.full_like(x0, 1.0), t, abar)
    zero = torch.zeros(())
    expected = variance.normal_kl(zero, posterior, zero, beta) / math.log(2)
    torch.testing.assert_close(high[1:], expected[1:])


def test_the_bound_moves_the_variance_and_not_the_mean(scheduler):
    x0, x_t, t = batch()
    estimate = (0.5 * x0).requires_grad_()
    v = torch.zeros_like(x0, requires_grad=True)
    variance.bound_terms(x0, x_t, estimate, v, t, scheduler.alphas_cumprod).sum().backward()
    assert estimate.grad is None and v.grad[1:].abs().min() > 0


def test_finite_differences(scheduler):
    x0, x_t, t = batch(4)
    v = (torch.rand_like(x0) - 0.5).requires_grad_()

    def total(v):
        return variance.bound_terms(x0, x_t, 0.7 * x0, v, t, scheduler.alphas_cumprod)

    assert torch.autograd.gradcheck(total, (v,))
