"""The loss of learned variances: Nichol & Dhariwal, "Improved DDPM", ICML 2021 (arXiv 2102.09672), section 3.1.

The network's extra channels v in [-1, 1] put each element's log variance between the two that DDPM knows:
``log sigma^2 = f log beta_t + (1 - f) log beta~_t`` with f = (v + 1) / 2. They learn from the variational bound alone,
whose mean gets no gradient: ``L_hybrid = L_simple + WEIGHT L_vlb``. DCFace's network (and so CemiFace's) has these
channels; what either paper weighs them with is not known.
"""

import math

import torch

#: of L_vlb, the sum over all T steps (section 3.4 of the paper)
WEIGHT = 1e-3
#: half the distance of two grey levels of an image in [-1, 1]
HALF_LEVEL = 1 / 255
#: beyond this an image's value is the last grey level, whose bin has no end
EDGE = 0.999


def step_log_variances(abar_t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``log beta_t`` and ``log beta~_t``, float64 [T]; the posterior of the first step has variance 0: the second's.

    Args:
        abar_t: cumulative products of the alphas, [T], T at least 2.
    """
    abar = abar_t.double()
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    posterior = beta * (1 - before) / (1 - abar)
    return beta.log(), torch.cat([posterior[1:2], posterior[1:]]).log()


def posterior_mean(x0: torch.Tensor, x_t: torch.Tensor, t_n: torch.Tensor, abar_t: torch.Tensor) -> torch.Tensor:
    """Mean of q(x_{t-1} | x_t, x_0), [n, ...] (Ho et al. 2020, eq. 7)."""
    abar = abar_t.double()
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    of_x0 = (before.sqrt() * beta / (1 - abar))[t_n]
    of_xt = ((1 - beta).sqrt() * (1 - before) / (1 - abar))[t_n]
    return _rows(of_x0, x0) * x0 + _rows(of_xt, x0) * x_t


def normal_kl(
    mean_p: torch.Tensor, log_variance_p: torch.Tensor, mean_q: torch.Tensor, log_variance_q: torch.Tensor
) -> torch.Tensor:
    """KL(p || q) of independent normals, in nats, element by element."""
    log_ratio = log_variance_p - log_variance_q
    distance = (mean_p - mean_q).square() * (-log_variance_q).exp()
    return 0.5 * (log_ratio.exp() + distance - 1 - log_ratio)


def level_nll(x0: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Negative log probability, in nats, of the grey level that x0 is, under a normal; element by element."""
    precision = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr((x0 - mean + HALF_LEVEL) * precision)
    lower = torch.special.ndtr((x0 - mean - HALF_LEVEL) * precision)
    upper = torch.where(x0 > EDGE, torch.ones_like(upper), upper)
    lower = torch.where(x0 < -EDGE, torch.zeros_like(lower), lower)
    return -(upper - lower).clamp(min=1e-12).log()


def bound_terms(
    x0: torch.Tensor,
    x_t: torch.Tensor,
    x0_hat: torch.Tensor,
    v: torch.Tensor,
    t_n: torch.Tensor,
    abar_t: torch.Tensor,
) -> torch.Tensor:
    """Each row's term of L_vlb, bits per element, [n]: a KL divergence, at the first step a likelihood.

    Args:
        x0: images in [-1, 1], [n, ...].
        x_t: at the rows' steps.
        x0_hat: the network's estimate; detached here.
        v: the extra channels.
        t_n: int64 steps.
        abar_t: of the process, [T].
    """
    log_beta, log_posterior = (_rows(part[t_n], x0).to(x0.dtype) for part in step_log_variances(abar_t))
    share = (v + 1) / 2
    log_variance = share * log_beta + (1 - share) * log_posterior
    mean = posterior_mean(x0_hat.detach(), x_t, t_n, abar_t).to(x0.dtype)
    truth = posterior_mean(x0, x_t, t_n, abar_t).to(x0.dtype)
    first = _rows(t_n == 0, x0)
    nats = torch.where(first, level_nll(x0, mean, log_variance), normal_kl(truth, log_posterior, mean, log_variance))
    return nats.flatten(1).mean(1) / math.log(2)


def _rows(values_n: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values_n.reshape(-1, *[1] * (x.ndim - 1))
