import pytest
import torch
from torch.nn.functional import normalize

from synface.pack import baselines, closest, energy, starts
from synface.pack.gallery import Gallery, distance


def start(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(starts.random_start(n, d, seed)).double()


def published_loss(x_nd: torch.Tensor, gallery_md: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """HyperFace's loss, dense: - d(closest pair) + alpha * mean_k min_g d(x_k, g), with d = 1 - cosine."""
    cos_nn = x_nd @ x_nd.T - 3 * torch.eye(len(x_nd), dtype=x_nd.dtype)
    loss = -(1 - cos_nn.max())
    return loss if gallery_md is None else loss + alpha * (1 - (x_nd @ gallery_md.T).max(1).values).mean()


def row_max_loss(x_nd: torch.Tensor) -> torch.Tensor:
    cos_nn = x_nd @ x_nd.T - 3 * torch.eye(len(x_nd), dtype=x_nd.dtype)
    return cos_nn.max(1).values.mean()


def dense_adam(x_nd: torch.Tensor, loss, steps: int, learning_rate: float) -> torch.Tensor:
    """The reference: autograd on the dense loss, torch's Adam, renormalised rows."""
    leaf = x_nd.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([leaf], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(leaf).backward()
        optimizer.step()
        with torch.no_grad():
            leaf.copy_(normalize(leaf, dim=1))
    return leaf.detach()


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_algorithm1_equals_dense_autograd_with_torch_adam(alpha):
    x_nd, gallery_md = start(40, 6), start(70, 6, 1)
    near = None if alpha is None else Gallery(gallery_md, alpha)
    found = baselines.algorithm1(x_nd, 25, 1e-2, near, tile=16)
    expected = dense_adam(x_nd, lambda x: published_loss(x, gallery_md if near else None, alpha or 0), 25, 1e-2)
    torch.testing.assert_close(found.x_nd, expected, atol=1e-9, rtol=0)
    assert found.max_cosine == pytest.approx(energy.max_cosine(expected), abs=1e-9)


def test_row_max_equals_dense_autograd_with_torch_adam():
    x_nd = start(40, 6)
    found = baselines.row_max(x_nd, 25, 1e-2, tile=16)
    torch.testing.assert_close(found.x_nd, dense_adam(x_nd, row_max_loss, 25, 1e-2), atol=1e-9, rtol=0)


def test_algorithm2_with_the_whole_set_as_its_batch_is_algorithm1():
    x_nd = start(30, 6)
    one = baselines.algorithm1(x_nd, 15, 1e-2)
    two = baselines.algorithm2(x_nd, 15, 1e-2, batch=30, seed=0)
    torch.testing.assert_close(two.x_nd, one.x_nd, atol=1e-12, rtol=0)


def test_algorithm2_moves_only_rows_of_its_batches_and_improves():
    x_nd = start(300, 16)
    moved = baselines.algorithm2(x_nd, 1, 1e-2, batch=20, seed=0).x_nd
    assert int(((moved - x_nd).abs().amax(1) > 1e-5).sum()) == 2  # the closest pair of the batch
    assert baselines.algorithm2(x_nd, 300, 1e-3, batch=100, seed=0).max_cosine < energy.max_cosine(x_nd)


@pytest.mark.parametrize("tile", [5, 16, 64])
def test_closest_pair(tile):
    x_nd = start(37, 5)
    i, j, cosine = baselines.closest_pair(x_nd, tile)
    assert i < j and cosine == pytest.approx(float(x_nd[i] @ x_nd[j]), abs=1e-12)
    assert cosine == pytest.approx(energy.max_cosine(x_nd), abs=1e-12)


@pytest.mark.parametrize("with_gallery", [False, True])
def test_algorithm1_takes_the_steps_of_the_dense_one(with_gallery):
    """1,200 steps of 60 rows: most come to rest and are woken again; near a gallery all move all the time."""
    x_nd, near = start(60, 12), Gallery(start(90, 12, 1), 0.5) if with_gallery else None
    at_rest, largest_t = [], []
    found = baselines.algorithm1(x_nd, 1200, 1e-3, near, 16, lambda _, c: at_rest.append(c), refresh=7)
    record = lambda _, c: largest_t.append(c)  # noqa: E731
    dense = baselines._adam(x_nd, baselines.pair_gradient, 1200, 1e-3, near, 16, record, refresh=7)
    torch.testing.assert_close(found.x_nd, dense.x_nd, atol=1e-9, rtol=0)
    assert at_rest == pytest.approx(largest_t, abs=1e-9)


@pytest.mark.parametrize("step", [0.5, 0.05, 0.005])
def test_the_closest_pair_is_found_while_rows_move(step):
    x_nd, pick = start(600, 5), torch.Generator().manual_seed(0)
    found = closest.ClosestPair(x_nd, tile=64)
    looked = []
    look_up, found._look_up = found._look_up, lambda x, rows: (looked.append(len(rows)), look_up(x, rows))
    for _ in range(100):
        rows_r = torch.randperm(600, generator=pick)[: int(torch.randint(1, 8, (), generator=pick))]
        before_rd = x_nd[rows_r]
        x_nd[rows_r] = normalize(before_rd + step * torch.randn(len(rows_r), 5, generator=pick).double(), dim=1)
        found.moved(rows_r, (x_nd[rows_r] - before_rd).norm(dim=1))
        assert found.find(x_nd)[:2] == baselines.closest_pair(x_nd)[:2]
    assert sum(looked) < 100 * 600 / 3  # and little was compared again


def test_gallery_term_pulls():
    x_nd, near = start(50, 8), Gallery(start(200, 8, 1), 5.0)
    assert distance(near, baselines.row_max(x_nd, 50, 1e-2, near).x_nd) < distance(near, x_nd) - 0.1
