"""Exact structured packings: any rows on demand, by index, without building the rest.

| code                    | dimension d | points                         | max cosine             |
|-------------------------|-------------|--------------------------------|------------------------|
| simplex                 | any         | n <= d + 1                     | -1/(n-1)               |
| cross-polytope          | any         | 2 d                            | 0                      |
| Gold (r=1), Delsarte-   | 2^m, m odd  | 2 d^(r+1) + 2 d                | 2^(r - (m+1)/2), which |
| Goethals (r=2, ...)     |             |                                | is sqrt(2/d) for r=1   |
| Kerdock                 | 4^k         | d^2 + 2 d                      | 1/sqrt(d)              |
| orthogonal sum          | sum of d_i  | sum of the parts'              | largest, at least 0    |
| shortened, k <= m + 1   | 2^m         | about points / 2^k             | (c d - k) / (d - k)    |

The binary ones (MacWilliams & Sloane, ch. 15) are unions of cosets of the first-order Reed-Muller code: the rows
(-1)^(Q(x) + <b, x> + c) / sqrt(d), x over F_2^m, for every b, c, and quadratic forms Q of one family; and the
signed axes. Two rows of forms Q, Q' have |cosine| 2^(-rank(Q + Q')/2) or 0, so the family's least rank decides.

Shortened (the term of coding theory; MacWilliams & Sloane, ch. 1, sec. 9): of a binary code with max cosine c only the
rows that are positive at k places, x = 0 and the first k - 1 unit vectors. These places add k/d to every cosine;
without them c d - k is left of c d, and d - k of the norm d. Every k halves the rows and lowers all cosines: this is
where numbers of points between those of the codes gain most. The dropped places stay as zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synface.core import rng
from synface.core.errors import InputError

# primitive polynomials over F_2, as bits
PRIMITIVE = {1: 0b11, 3: 0b1011, 5: 0b100101, 7: 0b10000011, 9: 0b1000010001, 11: 0b100000000101}
CHUNK = 4096


@dataclass(frozen=True)
class Code:
    """A packing given by its rows: `rows(index)` is float32 [len(index), dim] for any index in [0, size).

    `shortened(k)` are the codes that its rows hold, for k in 1..`shortenings`.
    """

    name: str
    dim: int
    size: int
    max_cosine: float
    rows: Callable[[np.ndarray], np.ndarray]
    shortenings: int = 0
    shortened: Callable[[int], "Code"] | None = None


def simplex(n: int, d: int) -> Code:
    """N <= d + 1 points with all cosines -1/(n-1): the columns of the Helmert matrix, scaled."""
    if not 2 <= n <= d + 1:
        raise InputError(f"a simplex in {d} dimensions has 2 to {d + 1} points, got {n}")

    def rows(index: np.ndarray) -> np.ndarray:
        k = np.arange(1, n)
        column = np.where(k > index[:, None], 1.0, np.where(k == index[:, None], -k, 0.0))
        out = np.zeros((len(index), d), np.float32)
        out[:, : n - 1] = column / np.sqrt(k * (k + 1.0)) * np.sqrt(n / (n - 1))
        return out

    return Code(f"simplex-{n}", d, n, -1.0 / (n - 1), rows)


def cross_polytope(d: int) -> Code:
    """The 2 d signed axes."""
    return Code(f"cross-polytope-{d}", d, 2 * d, 0.0, lambda index: _axes(index, d))


def delsarte_goethals(m: int, r: int = 1) -> Code:
    """D = 2^m, m odd: forms Tr(a_1 x^3 + a_2 x^5 + ... + a_r x^(2^r + 1)), of rank at least m + 1 - 2 r.

    r = 1 is the Gold code (dual of the double-error-correcting BCH code).
    """
    if m % 2 == 0 or m not in PRIMITIVE or not 1 <= r <= (m - 1) // 2:
        raise InputError(f"Delsarte-Goethals needs odd m in {sorted(PRIMITIVE)[1:]}, 1 <= r <= (m-1)/2: {m}, {r}")
    d = 1 << m

    def form_bits(coset_n: np.ndarray) -> np.ndarray:
        exp, log, trace = _field(m)
        bits = np.zeros((len(coset_n), d), np.uint8)
        for i in range(1, r + 1):
            power = _power(np.arange(d), (1 << i) + 1, m)
            part_n = (coset_n >> ((i - 1) * m)) & (d - 1)
            bits ^= trace[_product(part_n[:, None], power[None, :], exp, log)]
        return bits

    name = f"gold-{d}" if r == 1 else f"delsarte-goethals-{d}-{r}"
    return _reed_muller_cosets(name, m, 1 << (m * r), 2.0 ** (r - (m + 1) / 2), form_bits)


def kerdock(k: int) -> Code:
    """D = 4^k: forms on F x F_2, F = GF(2^m), m = 2k - 1, one for each a in F, all differences of full rank:

    Q_a(x, y) = sum_{i=1}^{(m-1)/2} Tr((a x)^(2^i + 1)) + y Tr(a x).
    """
    m = 2 * k - 1
    if m not in PRIMITIVE:
        raise InputError(f"Kerdock codes are known here for d = 4^k, k in 1..{(max(PRIMITIVE) + 1) // 2}, got {k}")
    q = 1 << m

    def form_bits(coset_n: np.ndarray) -> np.ndarray:
        exp, log, trace = _field(m)
        half = np.zeros(q, np.uint8)
        for i in range(1, (m - 1) // 2 + 1):
            half ^= trace[_power(np.arange(q), (1 << i) + 1, m)]
        ax = _product(coset_n[:, None], np.arange(q)[None, :], exp, log)
        return np.concatenate([half[ax], half[ax] ^ trace[ax]], axis=1)

    return _reed_muller_cosets(f"kerdock-{2 * q}", m + 1, q, 2.0**-k, form_bits)


def orthogonal_sum(parts: list[Code], d: int) -> Code:
    """The parts in mutually orthogonal subspaces of R^d; rows of different parts have cosine 0."""
    dims, sizes = [p.dim for p in parts], [p.size for p in parts]
    if sum(dims) > d:
        raise InputError(f"orthogonal parts of {sum(dims)} dimensions do not fit in {d}")
    first_dim, first_row = np.cumsum([0, *dims]), np.cumsum([0, *sizes])

    def rows(index: np.ndarray) -> np.ndarray:
        out = np.zeros((len(index), d), np.float32)
        part_n = np.searchsorted(first_row, index, side="right") - 1
        for i, part in enumerate(parts):
            at = np.flatnonzero(part_n == i)
            out[at, first_dim[i] : first_dim[i + 1]] = part.rows(index[at] - first_row[i])
        return out

    largest = max(p.max_cosine for p in parts)
    return Code("+".join(p.name for p in parts), d, sum(sizes), max(largest, 0.0) if len(parts) > 1 else largest, rows)


def blocks_within(d: int) -> list[Code]:
    """Every Kerdock and Delsarte-Goethals code of at most d dimensions, larger ones first."""
    found = [kerdock(j // 2) for j in range(2, d.bit_length(), 2) if j - 1 in PRIMITIVE]
    for m in range(3, d.bit_length(), 2):
        if m in PRIMITIVE:
            found += [delsarte_goethals(m, r) for r in range(1, (m - 1) // 2) if (r + 1) * m < 60]
    return sorted((c for c in found if c.dim <= d), key=lambda c: -c.size)


def known_codes(d: int) -> list[Code]:
    """For every max cosine that a block attains the largest code of R^d here: blocks, whole or shortened, side by side
    in orthogonal subspaces, those with the most points, and a cross-polytope in what dimensions are left.
    """
    blocks, found = blocks_within(d), [cross_polytope(d)]
    blocks += [c.shortened(k) for c in blocks if c.shortened is not None for k in range(1, c.shortenings + 1)]
    for level in sorted({c.max_cosine for c in blocks}):
        fullest: dict[int, list[Code]] = {}  # dimension, a power of two -> the blocks that fill it with most points
        parts, rest = [], d
        for dim in [1 << i for i in range(1, d.bit_length())]:
            choices = [[c] for c in blocks if c.dim == dim and c.max_cosine <= level]
            choices += [fullest[dim // 2] * 2] if dim // 2 in fullest else []
            if choices:
                fullest[dim] = max(choices, key=lambda parts: sum(c.size for c in parts))
        for dim in sorted(fullest, reverse=True):
            parts += fullest[dim] * (rest // dim)
            rest %= dim
        parts += [cross_polytope(rest)] if rest else []
        found.append(parts[0] if len(parts) == 1 else orthogonal_sum(parts, d))
    return found


def best_code(n: int, d: int) -> Code | None:
    """The code with the smallest max cosine that has n points in R^d (the larger one at a tie), or None."""
    if n <= d + 1:
        return simplex(n, d)
    fitting = [c for c in known_codes(d) if c.size >= n]
    return min(fitting, key=lambda c: (c.max_cosine, -c.size), default=None)


def subset_index(code: Code, n: int, seed: int) -> np.ndarray:
    """The n different rows of a code that a seed chooses, sorted, int64; all of them when n is its size."""
    if n > code.size:
        raise InputError(f"{code.name} has {code.size} points, {n} were asked")
    if n == code.size:
        return np.arange(n)
    return np.sort(rng.generator(seed, "pack", "code-rows").choice(code.size, n, replace=False))


def rotation(d: int, seed: int) -> np.ndarray:
    """A keyed rotation or reflection, uniform (Haar) over the orthogonal group, float64 [d, d]."""
    q_dd, r_dd = np.linalg.qr(rng.generator(seed, "pack", "rotation").standard_normal((d, d)))
    return q_dd * np.sign(np.diagonal(r_dd))


def points(code: Code, index: np.ndarray, rotation_dd: np.ndarray | None = None) -> np.ndarray:
    """Rows of a code, rotated where a rotation is given, chunk by chunk, float32 [len(index), dim]."""
    out = np.empty((len(index), code.dim), np.float32)
    turn = None if rotation_dd is None else rotation_dd.astype(np.float32)
    for a in range(0, len(index), CHUNK):
        rows = code.rows(index[a : a + CHUNK])
        out[a : a + CHUNK] = rows if turn is None else rows @ turn
    return out


def _reed_muller_cosets(
    name: str, m: int, cosets: int, largest: float, form_bits: Callable[[np.ndarray], np.ndarray], k: int = 0
) -> Code:
    """The signed axes, then for every form the rows (-1)^(Q(x) + <b, x> + c) / sqrt(d), d = 2^m; shortened k times.

    Index past the axes: c is bit 0, b the next m bits, the form the rest. Where k > 0, c is 0, Q being 0 there; the
    first k - 1 bits of b are those of Q(e_1), Q(e_2), ..., and the index leaves all these out.
    """
    d = 1 << m
    dropped = np.array([0, *(1 << np.arange(k - 1))][: max(k, 0)], np.int64)
    kept = np.setdiff1d(np.arange(d), dropped)
    cosine = (largest * d - k) / (d - k)
    # an axis has cosine 1/sqrt(d - k) with the rows; it stays where that is not above theirs
    axes, bits_of_row = 2 * len(kept) if (d - k) ** -0.5 <= cosine else 0, m + 1 - k

    def rows(index: np.ndarray) -> np.ndarray:
        out = np.zeros((len(index), d), np.float32)
        axis, word = np.flatnonzero(index < axes), np.flatnonzero(index >= axes)
        out[axis, kept[index[axis] >> 1]] = 1.0 - 2.0 * (index[axis] & 1)
        row_n, form_n = (index[word] - axes) & ((1 << bits_of_row) - 1), (index[word] - axes) >> bits_of_row
        bits = form_bits(form_n)
        if k == 0:
            row_n, bits = row_n >> 1, bits ^ (row_n & 1).astype(np.uint8)[:, None]
        else:
            row_n = row_n << (k - 1) | (bits[:, dropped[1:]] << np.arange(k - 1)).sum(1)
        bits = bits ^ (np.bitwise_count(row_n[:, None] & np.arange(d)[None, :]) & 1).astype(np.uint8)
        out[np.ix_(word, kept)] = (1.0 - 2.0 * bits[:, kept]) / np.sqrt(len(kept))
        return out

    def shortened(more: int) -> Code:
        return _reed_muller_cosets(name, m, cosets, largest, form_bits, more)

    size = axes + cosets * (1 << bits_of_row)
    if k:
        return Code(f"{name}-shortened-{k}", d, size, cosine, rows)
    return Code(name, d, size, cosine, rows, min(m + 1, round(largest * d) - 1), shortened)


def _axes(index: np.ndarray, d: int) -> np.ndarray:
    out = np.zeros((len(index), d), np.float32)
    out[np.arange(len(index)), index >> 1] = 1.0 - 2.0 * (index & 1)
    return out


@lru_cache
def _field(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """GF(2^m): powers of the generator, logarithms (of 0: unused), and the trace to F_2 as 0 or 1."""
    order = (1 << m) - 1
    exp = np.empty(order, np.int64)
    value = 1
    for i in range(order):
        exp[i] = value
        value <<= 1
        if value >> m:
            value ^= PRIMITIVE[m]
    log = np.zeros(order + 1, np.int64)
    log[exp] = np.arange(order)
    trace = np.zeros(order + 1, np.int64)
    power = np.arange(order + 1)
    for _ in range(m):
        trace ^= power
        power = _product(power, power, exp, log)
    return exp, log, trace.astype(np.uint8)


def _product(a: np.ndarray, b: np.ndarray, exp: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Products in the field, broadcast."""
    return np.where((a == 0) | (b == 0), 0, exp[(log[a] + log[b]) % len(exp)])


def _power(a: np.ndarray, exponent: int, m: int) -> np.ndarray:
    """Powers in the field."""
    exp, log, _ = _field(m)
    return np.where(a == 0, 0, exp[(log[a] * exponent) % len(exp)])
