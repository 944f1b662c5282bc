"""Small packings to many digits: a batch of starts with a dwell at middle sharpness, then a Newton polish.

For up to about a thousand points. A solve that cools fast falls into local optima of small symmetric packings;
most of the passes therefore go to the sharpness at which neighbours are decided (measured: without it the 24-cell
and the 600-cell are hardly ever found). The polish then solves for equality of the active cosines.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from synface.core import rng, sphere

# (progress, sharpness / sqrt(d)): a long way from soft to middle, then cool
DWELL = ((0.0, 0.5), (0.8, 8.0), (1.0, 1500.0))
WIDTHS = (0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-6)


class Found(NamedTuple):
    """The final points of every start, float64 [r, n, d], and their max cosines [r]."""

    x_rnd: np.ndarray
    max_cosine_r: np.ndarray


def recover(n: int, d: int, restarts: int, seed: int = 0, passes: int = 2000, momentum: float = 0.9) -> Found:
    """Log-sum-exp continuation of `restarts` keyed random starts at once; start r depends on (seed, r) alone."""
    rows = [sphere.uniform(rng.generator(seed, "pack", "restart", r), n, d) for r in range(restarts)]
    x_rnd = torch.from_numpy(np.stack(rows))
    m_rnd, v_r = torch.zeros_like(x_rnd), torch.zeros(restarts, 1, 1)
    diagonal = torch.eye(n, dtype=torch.bool)
    for step in range(1, passes + 1):
        sharpness = dwell_sharpness((step - 1) / max(passes - 1, 1)) * math.sqrt(d)
        cos_rnn = torch.bmm(x_rnd, x_rnd.transpose(1, 2)).masked_fill_(diagonal, -2.0)
        largest_r = cos_rnn.amax((1, 2), keepdim=True)
        w_rnn = cos_rnn.sub_(largest_r).mul_(sharpness).clamp_(min=-30.0).exp_().masked_fill_(diagonal, 0.0)
        g_rnd = torch.bmm(w_rnn, x_rnd).div_(w_rnn.sum((1, 2), keepdim=True))
        g_rnd -= (g_rnd * x_rnd).sum(2, keepdim=True) * x_rnd
        m_rnd -= (m_rnd * x_rnd).sum(2, keepdim=True) * x_rnd
        m_rnd.mul_(momentum).add_(g_rnd, alpha=1 - momentum)
        v_r.mul_(0.99).add_(g_rnd.square().sum(2).mean(1)[:, None, None], alpha=0.01)
        scale_r = (v_r / (1 - 0.99**step)).sqrt().add_(1e-30) * (1 - momentum**step)
        x_rnd -= m_rnd / scale_r * min(0.3, 1.0 / sharpness)
        x_rnd /= x_rnd.norm(dim=2, keepdim=True)
    x_rnd = x_rnd.double()
    x_rnd /= x_rnd.norm(dim=2, keepdim=True)
    return Found(x_rnd.numpy(), np.array([largest(x.numpy()) for x in x_rnd]))


def dwell_sharpness(progress: float) -> float:
    """Sharpness / sqrt(d) at progress in [0, 1]: geometric between the points of `DWELL`."""
    at, value = zip(*DWELL, strict=True)
    return float(np.exp(np.interp(progress, at, np.log(value))))


def polish(x_nd: np.ndarray, steps: int = 12) -> np.ndarray:
    """Newton's method for equal active cosines, float64 [n, d]; the best of several guesses of what is active.

    Unknowns are the rows and s; equations <x_i, x_j> = s for every pair within `width` of the largest cosine, and
    |x_i|^2 = 1. Each step is the least-norm solution of the linearised equations. A rigid packing is an isolated
    solution up to rotation, so convergence is quadratic near it. Never returns worse than it was given.
    """
    best_nd, best = x_nd, largest(x_nd)
    for width in WIDTHS:
        y_nd = x_nd.copy()
        cos_nn = y_nd @ y_nd.T
        i, j = np.nonzero(np.triu(cos_nn > largest(y_nd) - width, 1))
        before = largest(y_nd)
        for _ in range(steps):
            y_nd = _newton_step(y_nd, i, j)
            now = largest(y_nd)
            if now < best:
                best_nd, best = y_nd, now
            if not now < 1.0 or abs(now - before) < 1e-14:
                break
            before = now
    return best_nd


def _newton_step(x_nd: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """One least-norm Gauss-Newton step on <x_i, x_j> - s = 0 for the given pairs, and |x|^2 = 1."""
    n, d = x_nd.shape
    pairs = np.arange(len(i))
    jacobian = np.zeros((len(i) + n, n * d + 1))
    for k in range(d):
        jacobian[pairs, i * d + k] = x_nd[j, k]
        jacobian[pairs, j * d + k] = x_nd[i, k]
        jacobian[len(i) + np.arange(n), np.arange(n) * d + k] = 2 * x_nd[:, k]
    jacobian[: len(i), -1] = -1.0
    cosines = (x_nd[i] * x_nd[j]).sum(1)
    level = cosines.mean()
    residual = np.concatenate([cosines - level, (x_nd**2).sum(1) - 1.0])
    normal = jacobian.T @ jacobian
    normal[np.diag_indices_from(normal)] += 1e-12  # rotations change nothing: their directions stay at 0
    move = np.linalg.solve(normal, -jacobian.T @ residual)
    return sphere.normalize(x_nd + move[:-1].reshape(n, d))


def largest(x_nd: np.ndarray) -> float:
    """The max cosine of distinct rows, in float64."""
    cos_nn = x_nd @ x_nd.T
    np.fill_diagonal(cos_nn, -2.0)
    return float(cos_nn.max())


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share (95 % for z = 1.96): (p + z^2/2m -+ z sqrt(p q/m + z^2/4m^2)) / (1 + z^2/m)."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (centre - half) / (1 + z * z / trials), (centre + half) / (1 + z * z / trials)
