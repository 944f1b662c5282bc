import itertools
import math

import numpy as np
import pytest
import torch

from synface.core import sphere
from synface.core.errors import InputError
from synface.pack import bounds, codes, solver


def gram(code: codes.Code) -> np.ndarray:
    x_nd = codes.points(code, np.arange(code.size)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(x_nd, axis=1), 1, atol=1e-6)
    cos_nn = x_nd @ x_nd.T
    np.fill_diagonal(cos_nn, -2)
    return cos_nn


def walsh(bits_nd: np.ndarray) -> np.ndarray:
    """Integer Walsh spectra of (-1)^bits: the inner products with every row of the first-order code."""
    out = 1 - 2 * bits_nd.astype(np.int32)
    half = 1
    while half < out.shape[1]:
        out = out.reshape(len(bits_nd), -1, 2, half)
        out = np.stack([out[:, :, 0] + out[:, :, 1], out[:, :, 0] - out[:, :, 1]], 2).reshape(len(bits_nd), -1)
        half *= 2
    return out


def form_bits(code: codes.Code, forms: np.ndarray) -> np.ndarray:
    """The quadratic form's bits: rows with b = 0 and c = 0."""
    m = int(math.log2(code.dim))
    return (codes.points(code, 2 * code.dim + (forms << (m + 1))) < 0).astype(np.uint8)


SMALL = [
    codes.simplex(2, 2),
    codes.simplex(7, 6),
    codes.simplex(5, 9),
    codes.cross_polytope(5),
    codes.delsarte_goethals(3),
    codes.delsarte_goethals(5),
    codes.kerdock(1),
    codes.kerdock(2),
    codes.kerdock(3),
    codes.orthogonal_sum([codes.kerdock(2), codes.delsarte_goethals(3), codes.cross_polytope(3)], 28),
]


@pytest.mark.parametrize("code", SMALL, ids=lambda c: c.name)
def test_every_pair_of_a_small_code(code):
    cos_nn = gram(code)
    assert cos_nn.max() == pytest.approx(code.max_cosine, abs=1e-6)
    assert code.max_cosine >= bounds.best(code.size, code.dim) - 1e-9


@pytest.mark.parametrize(
    ("code", "size", "cosine"),
    [
        (codes.kerdock(1), 24, 0.5),  # the 24-cell
        (codes.kerdock(2), 288, 0.25),
        (codes.kerdock(3), 4224, 0.125),
        (codes.kerdock(4), 66_048, 1 / 16),
        (codes.kerdock(5), 1_050_624, 1 / 32),
        (codes.delsarte_goethals(5), 2112, 0.25),
        (codes.delsarte_goethals(7), 33_024, 0.125),
        (codes.delsarte_goethals(9), 525_312, 1 / 16),
        (codes.delsarte_goethals(9, 2), 2 * 512**3 + 1024, 0.125),
    ],
)
def test_sizes_and_cosines(code, size, cosine):
    assert (code.size, code.max_cosine) == (size, cosine)


@pytest.mark.parametrize("m", [5, 7, 9])
def test_every_pair_of_the_gold_codes_by_exact_spectra(m):
    """The forms are closed under addition: the spectra of all forms but 0 hold the products of all pairs."""
    code = codes.delsarte_goethals(m)
    spectra = walsh(form_bits(code, np.arange(1, 1 << m)))
    assert np.abs(spectra).max() == code.max_cosine * code.dim
    bits = form_bits(code, np.array([3, 6, 3 ^ 6]))
    assert (bits[0] ^ bits[1] == bits[2]).all()


def test_the_second_level_in_512_dimensions_by_spectra_of_a_sample():
    code = codes.delsarte_goethals(9, 2)
    forms = np.random.default_rng(0).choice(np.arange(1, 1 << 18), 3000, replace=False)
    assert np.abs(walsh(form_bits(code, forms))).max() == code.max_cosine * code.dim


@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_pair_of_the_kerdock_codes_by_exact_spectra(k):
    code = codes.kerdock(k)
    bits = form_bits(code, np.arange(code.dim // 2))
    for i in range(1, len(bits)):
        spectra = walsh(bits[i] ^ bits[:i])
        assert (np.abs(spectra) == code.max_cosine * code.dim).all()


@pytest.mark.parametrize("m", [1, 3, 5, 7, 9, 11])
def test_fields(m):
    exp, log, trace = codes._field(m)
    assert sorted(exp) == list(range(1, 1 << m))  # the polynomial is primitive
    assert trace.sum() == 1 << (m - 1) and set(trace) <= {0, 1}
    a, b, c = (np.random.default_rng(i).integers(0, 1 << m, 200) for i in range(3))
    left = codes._product(a, b ^ c, exp, log)
    assert (left == codes._product(a, b, exp, log) ^ codes._product(a, c, exp, log)).all()
    assert (trace[a ^ b] == trace[a] ^ trace[b]).all()


def test_rows_on_demand_are_rows_of_the_whole():
    code = codes.delsarte_goethals(5)
    whole = codes.points(code, np.arange(code.size))
    index = codes.subset_index(code, 100, seed=1)
    assert (codes.points(code, index) == whole[index]).all()
    assert len(np.unique(whole, axis=0)) == code.size


def test_rotation_is_orthogonal_and_keeps_cosines():
    code, turn = codes.kerdock(2), codes.rotation(16, seed=4)
    np.testing.assert_allclose(turn @ turn.T, np.eye(16), atol=1e-12)
    x_nd = codes.points(code, np.arange(code.size), turn)
    assert sphere.nearest_cosine(x_nd)[0].max() == pytest.approx(0.25, abs=1e-5)
    assert (codes.rotation(16, 4) == turn).all() and (codes.rotation(16, 5) != turn).any()


@pytest.mark.parametrize(
    ("n", "d", "name"),
    [
        (33, 32, "simplex-33"),
        (64, 32, "cross-polytope-32"),
        (1000, 64, "kerdock-64-shortened-2"),
        (10_000, 128, "gold-128-shortened-1"),
        (50_000, 512, "gold-512-shortened-3"),
        (525_312, 512, "gold-512"),
        (10_000, 512, "kerdock-256-shortened-3+kerdock-256-shortened-3"),
        (10**6, 512, "delsarte-goethals-512-2-shortened-8"),
        (500, 48, "gold-32-shortened-2+kerdock-16-shortened-1"),
    ],
)
def test_best_code(n, d, name):
    found = codes.best_code(n, d)
    assert found.name == name
    assert found.size >= n and found.dim == d


def test_no_code_for_too_many_points():
    assert codes.best_code(10**6, 6) is None
    assert codes.best_code(10, 3) is None


def test_refusals():
    for wrong in (
        lambda: codes.simplex(9, 3),
        lambda: codes.delsarte_goethals(4),
        lambda: codes.kerdock(9),
        lambda: codes.subset_index(codes.kerdock(1), 25, 0),
        lambda: codes.orthogonal_sum([codes.kerdock(2), codes.kerdock(2)], 31),
    ):
        with pytest.raises(InputError):
            wrong()


def test_a_million_rows_index_without_building_them():
    code = codes.delsarte_goethals(9, 2)
    index = codes.subset_index(code, 2000, seed=0)
    assert len(set(index.tolist())) == 2000
    cos_nn = codes.points(code, index) @ codes.points(code, index).T
    assert max(cos_nn[i, j] for i, j in itertools.pairwise(range(2000))) <= 0.125 + 1e-6
    np.fill_diagonal(cos_nn, -2)
    assert cos_nn.max() == pytest.approx(0.125, abs=1e-6)


SHORTENED = [
    (codes.kerdock(2), 1, 128, 3 / 15),
    (codes.kerdock(2), 3, 32, 1 / 13),
    (codes.kerdock(3), 1, 2048, 7 / 63),
    (codes.kerdock(3), 2, 1024, 6 / 62),
    (codes.delsarte_goethals(5), 1, 1086, 7 / 31),
    (codes.delsarte_goethals(5), 2, 572, 6 / 30),
    (codes.delsarte_goethals(5), 4, 128, 4 / 28),
    (codes.delsarte_goethals(5), 6, 32, 2 / 26),
    (codes.delsarte_goethals(7), 4, 2296, 12 / 124),
]


@pytest.mark.parametrize(("code", "k", "size", "cosine"), SHORTENED, ids=lambda v: getattr(v, "name", None))
def test_every_pair_of_a_shortened_code(code, k, size, cosine):
    found = code.shortened(k)
    assert (found.size, found.dim) == (size, code.dim)
    assert found.max_cosine == pytest.approx(cosine, abs=1e-12)
    assert gram(found).max() == pytest.approx(cosine, abs=1e-6)
    assert cosine >= bounds.best(size, code.dim - k) - 1e-9


def test_a_shortened_code_is_those_rows_that_are_positive_at_the_dropped_places():
    code, k = codes.delsarte_goethals(5), 3
    whole, places = codes.points(code, np.arange(2 * 32, code.size)), [0, 1, 2]
    rows = whole[(whole[:, places] > 0).all(1)]
    rows[:, places] = 0
    found = codes.points(code.shortened(k), np.arange(code.shortened(k).size))
    words = found[np.count_nonzero(found, axis=1) > 1]
    np.testing.assert_allclose(
        np.unique(sphere.normalize(rows).round(6), axis=0), np.unique(words.round(6), axis=0), atol=1e-6
    )


def test_shortened_kerdock_codes_are_close_to_the_bound():
    for k, gap in ((1, 0.0018), (2, 0.0016)):
        code = codes.kerdock(3).shortened(k)
        assert 0 < code.max_cosine - bounds.best(code.size, 64 - k) < gap


@pytest.mark.parametrize(("n", "d"), [(10_000, 512), (30_000, 512), (1_000_000, 512), (10_000, 128)])
def test_rows_of_large_shortened_codes(n, d):
    code = codes.best_code(n, d)
    x_nd = codes.points(code, codes.subset_index(code, n, 0)[:: n // 1000])
    np.testing.assert_allclose(np.linalg.norm(x_nd, axis=1), 1, atol=1e-6)
    assert sphere.nearest_cosine(x_nd)[0].max() == pytest.approx(code.max_cosine, abs=1e-6)


def test_no_solve_gets_below_a_shortened_code():
    """Why a start from one is kept; where this fails, `docs/packing.md` has to change."""
    code = codes.best_code(700, 32)
    assert code.name == "gold-32-shortened-1"
    x_nd = torch.from_numpy(codes.points(code, codes.subset_index(code, 700, 0)))
    found = solver.solve(x_nd, solver.default_schedule(32, 60, "packed"))
    assert found.max_cosine == pytest.approx(code.max_cosine, abs=2e-3)
