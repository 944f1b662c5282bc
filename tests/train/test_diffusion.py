import dataclasses

import numpy as np
import pytest
import torch

from synface.core import rng
from synface.core.errors import InputError
from synface.models import denoisers
from synface.models.denoisers import config
from synface.train import average_loop, diffusion, similarity


def unit(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_noising_has_the_processs_moments():
    generator = torch.Generator().manual_seed(1)
    x0 = torch.full((3, 40_000), 2.0)
    noise = torch.randn(x0.shape, generator=generator)
    abar = torch.tensor([0.99, 0.36, 0.0])
    x_t = diffusion.noised(x0, noise, abar)
    torch.testing.assert_close(x_t.mean(1), 2 * abar.sqrt(), atol=0.02, rtol=0)
    torch.testing.assert_close(x_t.var(1), 1 - abar, atol=0.02, rtol=0)


def test_velocity_is_the_derivative_along_the_circle():
    """With abar = cos^2 phi, v = d x_t / d phi (Salimans & Ho 2022)."""
    x0, noise, phi, step = torch.randn(5).double(), torch.randn(5).double(), 0.6, 1e-6

    def at(angle):
        return diffusion.noised(x0, noise, torch.full((5,), np.cos(angle) ** 2, dtype=torch.float64))

    v = diffusion.velocity(x0, noise, torch.full((5,), np.cos(phi) ** 2, dtype=torch.float64))
    torch.testing.assert_close(v, (at(phi + step) - at(phi - step)) / (2 * step), rtol=1e-6, atol=1e-8)


def test_min_snr_weights_by_hand_and_in_units_of_x0():
    abar = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)  # SNR 1, 9, 99
    torch.testing.assert_close(
        diffusion.min_snr_weight(abar, "epsilon"), torch.tensor([1, 5 / 9, 5 / 99], dtype=torch.float64)
    )
    torch.testing.assert_close(
        diffusion.min_snr_weight(abar, "v_prediction"), torch.tensor([0.5, 0.5, 0.05], dtype=torch.float64)
    )
    # one error of x_0, seen as an error of eps (x sqrt SNR) or of v (x sqrt(SNR + 1)), weighs the same
    snr = abar / (1 - abar)
    torch.testing.assert_close(
        diffusion.min_snr_weight(abar, "epsilon") * snr, diffusion.min_snr_weight(abar, "v_prediction") * (snr + 1)
    )
    with pytest.raises(InputError, match="v_prediction"):
        diffusion.min_snr_weight(abar, "x0")


def test_squared_error_by_hand():
    error = diffusion.squared_error(torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]]]), torch.zeros(2, 1, 2))
    assert error.tolist() == [5.0, 2.0]
    weighted = diffusion.squared_error(torch.tensor([[2.0]]), torch.zeros(1, 1), torch.tensor([0.25]))
    assert weighted.tolist() == [1.0]


def test_ema_equals_its_sum():
    values = [torch.tensor([float(k * k)]) for k in range(20)]
    average = torch.zeros(1, dtype=torch.float64)
    weights = np.zeros(20)
    for k, value in enumerate(values):
        decay = average_loop.ema_decay(k, 0.6)
        average_loop.ema_update([average], [value], decay)
        weights *= decay
        weights[k] = 1 - decay
    assert average.item() == pytest.approx(float(weights @ np.arange(20.0) ** 2), rel=1e-12)
    assert average_loop.ema_decay(0, 0.997) == 0.1 and average_loop.ema_decay(10**6, 0.997) == 0.997


def test_drawn_steps_cover_the_process():
    t = diffusion.draw_steps(rng.generator(0, "t"), 5000, 10)
    assert sorted(set(t.tolist())) == list(range(10)) and np.bincount(t).min() > 400


def groups(identities=30, each=8, d=16):
    centre = unit(identities, d).repeat(each, 0)
    x = centre + 0.6 * unit(identities * each, d, 1)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.arange(identities).repeat(each) * 7


def test_pairs_measure_their_cosine_and_repeat_by_key():
    x, identity = groups()
    a = diffusion.relation_pairs(rng.generator(3, "pairs"), x, identity, 64)
    b = diffusion.relation_pairs(rng.generator(3, "pairs"), x, identity, 64)
    assert np.array_equal(a.target_n, b.target_n)
    by_hand = [float(x[i] @ x[j]) for i, j in zip(a.inquiry_n, a.target_n, strict=True)]
    np.testing.assert_allclose(a.m_n, by_hand, atol=1e-6)


def test_pairs_of_one_identity_and_of_a_level():
    x, identity = groups()
    same = diffusion.relation_pairs(rng.generator(0), x, identity, 200, same_share=1.0)
    assert np.array_equal(identity[same.inquiry_n], identity[same.target_n])
    assert len(np.unique(same.target_n)) > 80
    # a level is met as well as the best candidate can, and everybody was a candidate here
    level = diffusion.relation_pairs(rng.generator(0), x, identity, 50, same_share=0.0, low=0.3, high=0.3)
    assert np.abs(level.m_n - 0.3).max() < 0.1
    far = diffusion.relation_pairs(rng.generator(0), x, identity, 50, 0.0, 1.0, 1.0, candidates=5)
    assert np.array_equal(far.inquiry_n, far.target_n)  # one's own image is the nearest to cosine 1


def test_pairs_cover_the_range_that_chance_leaves_empty():
    x, identity = groups(60, 8, 32)
    chance = np.einsum("nd,nd->n", x, x[rng.permutation(len(x), 0)])
    chosen = diffusion.relation_pairs(rng.generator(1), x, identity, 500, same_share=0.0).m_n
    assert (np.abs(chance - 0.45) < 0.15).mean() < 0.06 < 0.15 < (np.abs(chosen - 0.45) < 0.15).mean()


def test_pairs_refuse_bad_levels():
    x, identity = groups(3, 2)
    with pytest.raises(InputError, match="levels"):
        diffusion.relation_pairs(rng.generator(0), x, identity, 2, low=0.5, high=0.1)


def linear_data(n=300, d=6, k=10, seed=0):
    generator = np.random.default_rng(seed)
    x = unit(n, d, seed)
    y = x @ generator.standard_normal((d, k)) + generator.standard_normal(k) + 0.3 * generator.standard_normal((n, k))
    return x, y.astype(np.float32)


@pytest.mark.parametrize("penalty", [0.0, 0.2, 30.0])
def test_ridge_equals_augmented_least_squares(penalty):
    """Ridge is least squares with sqrt(penalty) I rows appended, the intercept's column zero there."""
    x, y = linear_data()
    sums = diffusion.RidgeSums(6, 10)
    sums.add(x, y)
    weight, intercept = sums.solve(penalty)
    rows = np.vstack([np.column_stack([x, np.ones(300)]), np.sqrt(penalty) * np.eye(6, 7)]).astype(np.float64)
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((6, 10))]), rcond=None)[0]
    np.testing.assert_allclose(weight, expected[:6], atol=1e-5)
    np.testing.assert_allclose(intercept, expected[6], atol=1e-5)
    if penalty == 0.2:
        held_x, held_y = linear_data(seed=0)[0][::2], linear_data(seed=0)[1][::2]
        held = diffusion.RidgeSums(6, 10)
        held.add(held_x, held_y)
        residual = ((held_y - held_x @ weight - intercept) ** 2).sum()
        by_hand = 1 - residual / ((held_y - held_y.mean(0)) ** 2).sum()
        assert held.r2(weight, intercept) == pytest.approx(by_hand, abs=1e-5)


def test_ridge_in_blocks_and_workers_equals_ridge_at_once():
    x, y = linear_data()
    once, first, second = (diffusion.RidgeSums(6, 10) for _ in range(3))
    once.add(x, y)
    first.add(x[:70], y[:70])
    first.add(x[70:100], y[70:100])
    second.add(x[100:], y[100:].reshape(200, 5, 2))
    first.merge(second)
    for got, expected in zip(first.solve(0.2), once.solve(0.2), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert first.r2(*first.solve(0.2)) == pytest.approx(once.r2(*once.solve(0.2)), abs=1e-9)
    with pytest.raises(ValueError, match="no images"):
        diffusion.RidgeSums(6, 10).solve(1.0)


SMALL = dataclasses.replace(
    config.TINY,
    sample_size=4,
    channels=2,
    widths=(16, 32),
    attention=(False, False),
    embedding_dim=6,
    condition_dim=64,
)
SMALL = dataclasses.replace(SMALL, head_channels=16, norm_groups=8)


def small_batch(n=4):
    torch.manual_seed(2)
    inquiry, target = torch.from_numpy(unit(n, 6)), torch.from_numpy(unit(n, 6, 1))
    return diffusion.Batch(
        x0_nchw=torch.randn(n, 2, 4, 4),
        noise_nchw=torch.randn(n, 2, 4, 4),
        t_n=torch.tensor([10, 300, 600, 990]),
        inquiry_nd=inquiry,
        target_nd=target,
        m_n=(inquiry * target).sum(1),
        conditioned_n=torch.tensor([True, True, True, False]),
    )


@pytest.mark.parametrize("mode", ["paper", "relation", "hybrid"])
def test_losses_of_a_batch_are_their_parts(mode):
    """Row by row from the formulas; a dropped row sees the null condition and pays no matching loss."""
    torch.manual_seed(0)
    model = denoisers.build(dataclasses.replace(SMALL, mode=mode)).double()
    model.mean.weight_dk.normal_()
    batch = small_batch()
    batch = dataclasses.replace(
        batch,
        **{k: v.double() for k, v in vars(batch).items() if v is not None and v.is_floating_point()},
    )
    read = torch.randn(32, 6, dtype=torch.float64)

    def embed(x):
        return torch.tanh(x.flatten(1)) @ read

    got = diffusion.generator_losses(model, batch, embed, 0.3)
    errors, matchings = [], []
    for i in range(4):
        a, t = model.alphas_cumprod[batch.t_n[i]], batch.t_n[i : i + 1]
        x_t = a.sqrt() * batch.x0_nchw[i] + (1 - a).sqrt() * batch.noise_nchw[i]
        condition = model.condition(batch.inquiry_nd[i : i + 1], batch.m_n[i : i + 1])
        condition = condition if i < 3 else model.null_condition(1)
        v = model(x_t[None], t, condition)[0]
        truth = a.sqrt() * batch.noise_nchw[i] - (1 - a).sqrt() * batch.x0_nchw[i]
        snr = a / (1 - a)
        errors.append(min(snr, 5.0) / (snr + 1) * ((v - truth) ** 2).mean())
        feature = embed((a.sqrt() * x_t - (1 - a).sqrt() * v)[None])[0]
        feature = feature / feature.norm()
        gamma = t[0] / 1000
        to_target, to_inquiry = feature @ batch.target_nd[i], feature @ batch.inquiry_nd[i]
        unit_target, unit_inquiry = batch.target_nd[i].norm(), batch.inquiry_nd[i].norm()
        matchings.append(
            (1 - gamma) * (1 - to_target / unit_target) ** 2 + gamma * (batch.m_n[i] - to_inquiry / unit_inquiry) ** 2
        )
    torch.testing.assert_close(got.squared_error_n, torch.stack(errors))
    if mode == "relation":
        assert got.matching_n is None and got.total.item() == pytest.approx(torch.stack(errors).mean().item())
        return
    torch.testing.assert_close(got.matching_n, torch.stack(matchings))
    expected = torch.stack(errors).mean() + 0.3 * torch.stack(matchings[:3]).sum() / 4
    assert got.total.item() == pytest.approx(expected.item())


def test_learning_steps_lower_the_loss_and_reach_the_condition():
    torch.manual_seed(0)
    model = denoisers.build(SMALL)
    batch, read = small_batch(), torch.randn(32, 6)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    history = []
    for _ in range(14):
        loss = diffusion.generator_losses(model, batch, lambda x: x.flatten(1) @ read, similarity.LAMBDA).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-3:]) < 0.7 * history[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.conditioner.parameters())
