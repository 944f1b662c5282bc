import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from synface.core import rng, sphere
from synface.pack import energy


def points(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x_nd = rng.generator(seed, "test").standard_normal((n, d))
    return torch.from_numpy(sphere.normalize(x_nd)).to(dtype)


def dense_energy(x_nd: torch.Tensor, sharpness: float) -> torch.Tensor:
    """The naive reference: the whole Gram matrix, autograd."""
    cos_nn = x_nd @ x_nd.T
    upper = torch.triu(torch.ones_like(cos_nn), 1).bool()
    return torch.logsumexp(sharpness * cos_nn[upper], 0) / sharpness


@pytest.mark.parametrize("tile", [3, 7, 16, 64])
@pytest.mark.parametrize("sharpness", [0.5, 8.0, 40.0])
def test_energy_and_gradient_equal_dense_autograd(tile, sharpness):
    x_nd = points(23, 6)
    leaf = x_nd.clone().requires_grad_(True)
    reference = dense_energy(leaf, sharpness)
    reference.backward()
    value, gradient_nd = energy.energy_and_gradient(x_nd, sharpness, tile)
    # pairs more than 30/sharpness below the maximum weigh exp(-30) each
    assert value == pytest.approx(float(reference.detach()), abs=1e-10)
    torch.testing.assert_close(gradient_nd, leaf.grad, atol=1e-10, rtol=0)


def test_gradient_equals_finite_differences():
    x_nd, sharpness, step = points(12, 4, seed=3), 10.0, 1e-6
    _, gradient_nd = energy.energy_and_gradient(x_nd, sharpness)
    for i, k in itertools.product(range(0, 12, 5), range(4)):
        ends = []
        for sign in (1, -1):
            moved = x_nd.clone()
            moved[i, k] += sign * step
            ends.append(float(dense_energy(moved, sharpness)))
        assert gradient_nd[i, k] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_energy_bounds_the_max_cosine():
    x_nd = points(40, 8)
    for sharpness in (1.0, 10.0, 100.0, 1000.0):
        value, _ = energy.energy_and_gradient(x_nd, sharpness)
        largest = energy.max_cosine(x_nd)
        assert largest <= value + 1e-12 <= largest + np.log(40 * 39 / 2) / sharpness + 1e-9


@pytest.mark.parametrize("cuts", [(0, 31), (0, 10, 31), (0, 1, 2, 17, 31)])
def test_blocks_of_shards_sum_to_the_whole(cuts):
    x_nd, options = points(31, 5), {"sharpness": 12.0, "shift": 0.9, "tile": 8}
    whole = energy.block_energy(x_nd, **options)
    mass, largest, pulls = 0.0, -2.0, []
    shards = [x_nd[a:b] for a, b in itertools.pairwise(cuts)]
    for i, rows in enumerate(shards):
        own = energy.block_energy(rows, **options)
        mass, largest, pull = mass + float(own.mass), max(largest, float(own.max_cosine)), own.pull_nd
        for j, others in enumerate(shards):
            if i != j:
                cross = energy.block_energy(rows, others, pull_nd=pull, **options)
                mass += float(cross.mass) / 2
                largest = max(largest, float(cross.max_cosine))
        pulls.append(pull)
    assert mass == pytest.approx(float(whole.mass), rel=1e-12)
    assert largest == float(whole.max_cosine)
    torch.testing.assert_close(torch.cat(pulls), whole.pull_nd, atol=1e-12, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 9), st.integers(0, 10**6), st.floats(0.5, 30.0))
def test_rotation_and_permutation(n, d, seed, sharpness):
    x_nd = points(n, d, seed)
    value, gradient_nd = energy.energy_and_gradient(x_nd, sharpness)
    rotation_dd = torch.from_numpy(ortho_group.rvs(d, random_state=seed % 2**31))
    turned, turned_gradient_nd = energy.energy_and_gradient(x_nd @ rotation_dd, sharpness)
    assert turned == pytest.approx(value, abs=1e-10)
    torch.testing.assert_close(turned_gradient_nd, gradient_nd @ rotation_dd, atol=1e-9, rtol=0)
    order = torch.from_numpy(rng.permutation(n, seed))
    mixed, mixed_gradient_nd = energy.energy_and_gradient(x_nd[order], sharpness, tile=4)
    assert mixed == pytest.approx(value, abs=1e-10)
    torch.testing.assert_close(mixed_gradient_nd, gradient_nd[order], atol=1e-9, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 8), st.integers(0, 10**6), st.integers(1, 50))
def test_max_and_nearest_cosines_equal_the_naive(n, d, seed, tile):
    x_nd = points(n, d, seed)
    cos_nn = (x_nd @ x_nd.T).fill_diagonal_(-2)
    best_n, index_n = energy.nearest_cosines(x_nd, tile=tile)
    torch.testing.assert_close(best_n, cos_nn.max(1).values, atol=1e-14, rtol=0)
    torch.testing.assert_close(cos_nn[torch.arange(n), index_n], best_n, atol=1e-14, rtol=0)
    assert energy.max_cosine(x_nd, tile) == pytest.approx(float(cos_nn.max()), abs=1e-14)
    y_md = points(7, d, seed + 1)
    best_n, index_n = energy.nearest_cosines(x_nd, y_md, tile)
    torch.testing.assert_close(best_n, (x_nd @ y_md.T).max(1).values, atol=1e-14, rtol=0)
    torch.testing.assert_close((x_nd * y_md[index_n]).sum(1), best_n, atol=1e-14, rtol=0)


def test_torch_and_numpy_nearest_cosines_agree():
    x_nd = points(50, 16, dtype=torch.float32)
    ours_n, index_n = energy.nearest_cosines(x_nd, tile=16)
    theirs_n, their_index_n = sphere.nearest_cosine(x_nd.numpy(), tile=16)
    np.testing.assert_allclose(ours_n.numpy(), theirs_n, atol=1e-6)
    assert (index_n.numpy() == their_index_n).all()


def test_mean_square_cosine():
    x_nd = points(60, 7)
    cos_nn = (x_nd @ x_nd.T).fill_diagonal_(0)
    assert energy.mean_square_cosine(x_nd) == pytest.approx(float(cos_nn.square().sum()) / (60 * 59), abs=1e-12)


@pytest.mark.parametrize("before", [True, False])
def test_denormal_flag_is_restored(before):
    torch.set_flush_denormal(before)
    try:
        with energy.flushed_denormals():
            assert float(torch.full((1,), 1e-40) * torch.ones(1)) == 0
        assert (float(torch.full((1,), 1e-40) * torch.ones(1)) == 0) is before
    finally:
        torch.set_flush_denormal(False)


def test_a_pass_never_holds_the_gram_matrix(monkeypatch):
    largest = 0
    original = torch.addmm

    def watched(offset, a, b, **options):
        nonlocal largest
        largest = max(largest, a.shape[0] * b.shape[1])
        return original(offset, a, b, **options)

    monkeypatch.setattr(torch, "addmm", watched)
    energy.block_energy(points(300, 4), sharpness=5.0, shift=1.0, tile=32)
    assert 0 < largest <= 32 * 32
