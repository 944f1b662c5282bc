"""How small the largest cosine of n points on the unit sphere of R^d can be, and what chance gives.

Every bound is a lower bound on s = max_{i != j} <x_i, x_j>: no packing goes below it. Levenshtein's universal
bound is the strongest closed one; it is attained by every sharp code (Levenshtein 1979; Cohn & Kumar 2007).
"""

import math

import numpy as np
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.special import comb, roots_jacobi
from scipy.stats import beta

from synface.core.errors import InputError

MAX_DEGREE = 1 << 14


def _check(n: int, d: int) -> None:
    if n < 2 or d < 2:
        raise InputError(f"a packing needs n >= 2 points in d >= 2 dimensions, got n={n}, d={d}")


def simplex(n: int, d: int) -> float:
    """-1/(n-1): from |sum x_i|^2 >= 0. Valid for every n; attained for n <= d + 1."""
    _check(n, d)
    return -1.0 / (n - 1)


def rankin(n: int, d: int) -> float:
    """0 for more than d + 1 points (Rankin 1955); attained for n <= 2 d by the cross-polytope's points."""
    return simplex(n, d) if n <= d + 1 else 0.0


def gegenbauer(degree: int, d: int, t: float) -> float:
    """The Gegenbauer polynomial of R^d, scaled to 1 at t = 1:
    (k + d - 2) P_{k+1}(t) = (2k + d - 2) t P_k(t) - k P_{k-1}(t).
    """
    before, value = 1.0, t
    if degree == 0:
        return before
    for k in range(1, degree):
        before, value = value, ((2 * k + d - 2) * t * value - k * before) / (k + d - 2)
    return value


def levenshtein_size(s: float, d: int, degree: int) -> float:
    """L_degree(d, s): the most points with max cosine s, for s in `levenshtein_interval`. With P as above,

    L_{2k-1} = C(k+d-3, k-1) [(2k+d-3)/(d-1) - (P_{k-1} - P_k) / ((1-s) P_k)]
    L_{2k}   = C(k+d-2, k) [(2k+d-1)/(d-1) - (1+s)(P_k - P_{k+1}) / ((1-s)(P_k + P_{k+1}))].
    """
    k = (degree + 1) // 2
    if degree % 2:
        p0, p1 = gegenbauer(k - 1, d, s), gegenbauer(k, d, s)
        return float(comb(k + d - 3, k - 1)) * ((2 * k + d - 3) / (d - 1) - (p0 - p1) / ((1 - s) * p1))
    p0, p1 = gegenbauer(k, d, s), gegenbauer(k + 1, d, s)
    ratio = (1 + s) * (p0 - p1) / ((1 - s) * (p0 + p1))
    return float(comb(k + d - 2, k)) * ((2 * k + d - 1) / (d - 1) - ratio)


def levenshtein_interval(d: int, degree: int) -> tuple[float, float]:
    """The cosines on which L_degree is the bound: between the largest zeros of neighbouring adjacent Jacobi
    polynomials, t_{k-1}^{1,1} <= s < t_k^{1,0} for degree 2k-1 and t_k^{1,0} <= s < t_k^{1,1} for 2k.
    """
    k = (degree + 1) // 2
    a = (d - 3) / 2
    t10 = float(roots_jacobi(k, a + 1, a)[0].max())
    if degree % 2:
        return (float(roots_jacobi(k - 1, a + 1, a + 1)[0].max()) if k > 1 else -1.0), t10
    return t10, float(roots_jacobi(k, a + 1, a + 1)[0].max())


def levenshtein(n: int, d: int) -> float:
    """The smallest s that Levenshtein's bound allows for n points in R^d.

    The degree is the first whose interval reaches n, found by doubling and bisection; the plane needs none.
    """
    _check(n, d)
    if n <= d + 1:
        return simplex(n, d)
    if d == 2:
        return math.cos(2 * math.pi / n)
    margin = 1e-11

    def reaches(degree: int) -> bool:
        return levenshtein_size(levenshtein_interval(d, degree)[1] - margin, d, degree) >= n * (1 - 1e-9)

    low, high = 0, 1
    while not reaches(high):
        low, high = high, 2 * high
        if high > MAX_DEGREE:
            raise InputError(f"the bound for n={n}, d={d} needs a degree above {MAX_DEGREE}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    left, right = levenshtein_interval(d, high)
    inner_left, inner_right = left + margin, right - margin
    if levenshtein_size(inner_left, d, high) >= n:
        return left
    if levenshtein_size(inner_right, d, high) <= n * (1 + 1e-9):
        return right
    root = brentq(lambda s: levenshtein_size(s, d, high) - n, inner_left, inner_right, xtol=1e-14)
    return float(root)  # type: ignore[arg-type]


def best(n: int, d: int) -> float:
    """The largest of the lower bounds here: no n points in R^d have a smaller max cosine."""
    return max(simplex(n, d), rankin(n, d), levenshtein(n, d))


def iid_max_cosine(n: int, d: int) -> float:
    """Median of the max cosine of n points uniform on the sphere, its n(n-1)/2 pairs taken as independent.

    P(cos > t) = 1 - 2^{-2/(n(n-1))}, and cos^2 ~ Beta(1/2, (d-1)/2).
    """
    _check(n, d)
    p = -math.expm1(-2.0 * math.log(2.0) / (n * (n - 1)))
    return math.sqrt(float(beta.isf(min(2 * p, 1.0), 0.5, (d - 1) / 2)))


def iid_mean_nearest_cosine(n: int, d: int) -> float:
    """Mean over points uniform on the sphere of the largest cosine to one of the n - 1 others.

    Seen from one point the others' cosines are independent, so the largest has the distribution F^(n-1), F that of
    one cosine, and the mean is 1 - int_{-1}^{1} F(t)^(n-1) dt.
    """
    _check(n, d)
    # cos = 2 u - 1 with u ~ Beta((d-1)/2, (d-1)/2)
    t = np.linspace(-1.0, 1.0, 200_001)
    below = beta.cdf((t + 1.0) / 2.0, (d - 1) / 2, (d - 1) / 2) ** (n - 1)
    return 1.0 - float(trapezoid(below, t))
