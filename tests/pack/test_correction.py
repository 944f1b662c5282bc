"""Corrections of asked embeddings, against autograd and in worlds whose generator is known."""

import numpy as np
import pytest
import torch

from synface.core import rng, sphere
from synface.pack import correction


def unit(n, d, seed):
    return sphere.uniform(rng.generator(seed, "test"), n, d)


@pytest.mark.parametrize("tile", [3, 1024])
def test_repulsion_is_the_descent_of_each_rows_energy(tile):
    x_nd, sharpness = unit(10, 6, 0), 7.0
    found = correction.repulsion(x_nd, sharpness, tile)
    for i in range(10):
        x = torch.from_numpy(x_nd[i].astype(np.float64)).requires_grad_()
        others = torch.from_numpy(np.delete(x_nd, i, 0).astype(np.float64))
        torch.logsumexp(sharpness * (others @ x), 0).backward()
        down = -x.grad.numpy()
        down -= (down @ x_nd[i]) * x_nd[i]
        np.testing.assert_allclose(found[i], down / np.linalg.norm(down), atol=1e-5)


def test_forces_that_cancel_move_nothing():
    square = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    np.testing.assert_array_equal(correction.repulsion(square, 3.0), 0)


def test_spread_turns_a_row_by_the_angle():
    x_nd = unit(5, 4, 1)
    moved = correction.spread(x_nd, x_nd, 0.2, 10.0)
    np.testing.assert_allclose(np.einsum("nd,nd->n", moved, x_nd), np.cos(0.2), atol=1e-5)


def on_manifold(sent_nd, seed=5, dim=6):
    """A generator that renders only the first directions: the rest of what is asked is lost."""
    inside = sent_nd.copy()
    inside[:, dim:] = 0.01 * rng.generator(seed, "loss").standard_normal((len(sent_nd), sent_nd.shape[1] - dim))
    return sphere.normalize(inside).astype(np.float32)


def test_follow_reaches_what_can_be_rendered():
    """r = unit(a + bias) is off at first; the loop asks for the opposite of the bias."""
    wanted = unit(40, 16, 2)
    bias = 0.5 * unit(1, 16, 3)
    sent = wanted
    before = np.einsum("nd,nd->n", sphere.normalize(sent + bias), wanted).mean()
    for _ in range(12):
        sent = correction.follow(sent, sphere.normalize(sent + bias), wanted, 0.5)
    after = np.einsum("nd,nd->n", sphere.normalize(sent + bias), wanted).mean()
    assert before < 0.95 and after > 0.9999


def test_spread_parts_the_realised_identities_of_a_manifold():
    """Far apart as asked is not far apart as realised; the loop drives the realised ones."""
    sent = on_manifold(unit(60, 32, 4))
    start = sphere.nearest_cosine(on_manifold(sent))[0].mean()
    for _ in range(10):
        sent = correction.spread(sent, on_manifold(sent), 0.1, 20.0).astype(np.float32)
    came = on_manifold(sent)
    assert sphere.nearest_cosine(came)[0].mean() < start - 0.1
    assert np.einsum("nd,nd->n", came, sent).mean() > 0.9
