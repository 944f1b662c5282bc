import math

import numpy as np
import pytest
import torch

from synface.train import margins

S = 30.0
SETTINGS = {
    "softmax": {},
    "cosface": {"m": 0.35},
    "arcface": {"m": 0.5},
    "combined": {"m1": 0.9, "m2": 0.3, "m3": 0.2},
    "adaface": {"m": 0.4, "h": 0.333, "mean": torch.tensor(20.0), "std": torch.tensor(5.0)},
}


def closed_form(name: str, cos: float, norm: float) -> float:
    theta = math.acos(cos)
    if name == "softmax":
        return cos
    if name == "cosface":
        return cos - 0.35
    if name == "arcface":  # the addition theorem, not arccos
        return cos * math.cos(0.5) - math.sqrt(1 - cos * cos) * math.sin(0.5)
    if name == "combined":
        return math.cos(0.9 * theta + 0.3) - 0.2
    z = min(1.0, max(-1.0, (min(norm, 100.0) - 20.0) / 5.001 * 0.333))
    return math.cos(min(max(theta - 0.4 * z, 1e-3), math.pi - 1e-3)) - (0.4 + 0.4 * z)


def batch(dtype=torch.float64):
    rng = np.random.default_rng(0)
    cos = torch.tensor(rng.uniform(-0.95, 0.95, (9, 5)), dtype=dtype)
    labels = torch.tensor(rng.integers(0, 5, 9))
    norms = torch.tensor(rng.uniform(2, 60, 9), dtype=dtype)
    return cos, labels, norms


@pytest.mark.parametrize("name", sorted(margins.MARGINS))
def test_values_are_the_closed_form(name: str):
    cos, labels, norms = batch()
    logits = margins.MARGINS[name](cos, labels, norms, s=S, **SETTINGS[name])
    for i in range(9):
        for j in range(5):
            c = float(cos[i, j])
            expected = closed_form(name, c, float(norms[i])) if j == labels[i] else c
            assert float(logits[i, j]) == pytest.approx(S * expected, abs=1e-5)


@pytest.mark.parametrize("name", sorted(margins.MARGINS))
def test_gradient_is_the_textbook_one(name: str):
    cos, labels, norms = batch()
    weight = torch.tensor(np.random.default_rng(1).normal(size=cos.shape))
    cos.requires_grad_()
    (margins.MARGINS[name](cos, labels, norms, s=S, **SETTINGS[name]) * weight).sum().backward()
    assert cos.grad is not None
    step = 1e-6
    for i in range(9):
        j = int(labels[i])
        c, norm = float(cos[i, j].detach()), float(norms[i])
        slope = (closed_form(name, c + step, norm) - closed_form(name, c - step, norm)) / (2 * step)
        assert float(cos.grad[i, j]) == pytest.approx(S * slope * float(weight[i, j]), rel=1e-5)
        other = (j + 1) % 5
        assert float(cos.grad[i, other]) == pytest.approx(S * float(weight[i, other]), rel=1e-12)


def test_autograd_agrees_with_finite_differences():
    cos, labels, norms = batch()
    cos.requires_grad_()
    for name, function in margins.MARGINS.items():
        # bind the loop variables: gradcheck calls later
        assert torch.autograd.gradcheck(
            lambda c, f=function, n=name: f(c, labels, norms, s=S, **SETTINGS[n]), (cos,), eps=1e-7, atol=1e-4
        )


def test_straight_through_keeps_the_value_and_drops_the_slope():
    cos, labels, norms = batch()
    cos.requires_grad_()
    textbook = margins.arcface(cos, labels, norms, s=S, m=0.5)
    straight = margins.arcface(cos, labels, norms, s=S, m=0.5, straight_through=True)
    torch.testing.assert_close(straight, textbook)
    straight.sum().backward()
    torch.testing.assert_close(cos.grad, torch.full_like(cos, S))


def test_straight_through_ratio_is_sine_over_shifted_sine():
    theta, m = 1.1, 0.5
    cos = torch.tensor([[math.cos(theta)]], dtype=torch.float64, requires_grad=True)
    margins.arcface(cos, torch.tensor([0]), s=1.0, m=m).sum().backward()
    assert cos.grad is not None
    assert float(cos.grad) == pytest.approx(math.sin(theta + m) / math.sin(theta), rel=1e-9)


def test_combined_contains_the_others():
    cos, labels, norms = batch()
    torch.testing.assert_close(
        margins.combined(cos, labels, norms, s=S, m1=1, m2=0.5, m3=0), margins.arcface(cos, labels, norms, s=S, m=0.5)
    )
    torch.testing.assert_close(
        margins.combined(cos, labels, norms, s=S, m1=1, m2=0, m3=0.35),
        margins.cosface(cos, labels, norms, s=S, m=0.35),
    )


@pytest.mark.parametrize("name", sorted(margins.MARGINS))
def test_ends_of_the_range_are_finite(name: str):
    cos = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], requires_grad=True)
    logits = margins.MARGINS[name](cos, torch.tensor([0, 0]), torch.tensor([0.0, 1e9]), s=64.0, **SETTINGS[name])
    logits.logsumexp(1).sum().backward()
    assert cos.grad is not None
    assert torch.isfinite(logits).all() and torch.isfinite(cos.grad).all()


@pytest.mark.parametrize("name", sorted(margins.MARGINS))
def test_rows_without_a_class_here_get_no_margin(name: str):
    cos, labels, norms = batch()
    labels = labels.clone()
    labels[[2, 5]] = -1
    logits = margins.MARGINS[name](cos, labels, norms, s=S, **SETTINGS[name])
    torch.testing.assert_close(logits[[2, 5]], S * cos[[2, 5]])


def test_adaface_statistics_are_a_moving_average():
    norms = torch.tensor([1.0, 2.0, 4.0, 200.0])
    clipped = np.array([1.0, 2.0, 4.0, 100.0])
    mean, std = margins.adaface_statistics(norms, torch.tensor(20.0), torch.tensor(100.0), 0.01)
    assert float(mean) == pytest.approx(0.01 * clipped.mean() + 0.99 * 20)
    assert float(std) == pytest.approx(0.01 * clipped.std(ddof=1) + 0.99 * 100)
    mean, std = margins.adaface_statistics(norms[:1], torch.tensor(20.0), torch.tensor(100.0), 1.0)
    assert (float(mean), float(std)) == (1.0, 100.0)


def test_adaface_gives_clear_images_an_angular_and_blurred_ones_an_additive_margin():
    z = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    cos = torch.tensor([0.5, 0.5], dtype=torch.float64)
    blurred, clear = margins.adaface_target(cos, z, 0.4).tolist()
    assert blurred == pytest.approx(math.cos(math.acos(0.5) + 0.4))  # z = -1: ArcFace
    assert clear == pytest.approx(math.cos(math.acos(0.5) - 0.4) - 0.8)
