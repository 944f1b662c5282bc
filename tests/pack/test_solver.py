import math

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from synface.core import rng, sphere
from synface.pack import bounds, energy, gallery, solver, starts
from synface.pack.exchange import LocalExchange


def start(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(starts.random_start(n, d, seed)).to(dtype)


def manifold(n: int, d: int, latent: int, seed: int) -> torch.Tensor:
    """Points on a curved `latent`-dimensional manifold, all in one narrow cone, like face embeddings."""
    generator = rng.generator(seed, "manifold")
    w_ld, offset_d = rng.generator(0, "map").standard_normal((latent, d)), 2.0
    x_nd = np.tanh(generator.standard_normal((n, latent)) @ w_ld / math.sqrt(latent)) + offset_d / math.sqrt(d)
    return torch.from_numpy(sphere.normalize(x_nd).astype(np.float32))


@pytest.mark.parametrize(
    ("n", "d", "optimum"),
    [
        (9, 8, -1 / 8),  # simplex
        (33, 32, -1 / 32),
        (12, 3, 1 / math.sqrt(5)),  # icosahedron
        (8, 4, 0.0),  # cross-polytope
        (5, 2, math.cos(2 * math.pi / 5)),
    ],
)
def test_known_optima(n, d, optimum):
    schedule = solver.default_schedule(d, 400)
    best = min(solver.solve(start(n, d, seed, torch.float64), schedule).max_cosine for seed in range(2))
    assert optimum - 1e-9 <= best <= optimum + 2e-3


@pytest.mark.parametrize(
    ("n", "d", "passes", "floor"), [(300, 32, 100, 0.1835), (1000, 64, 80, 0.1565), (1000, 256, 60, 0.0425)]
)
def test_quality_floors(n, d, passes, floor):
    solution = solver.solve(start(n, d), solver.default_schedule(d, passes))
    assert bounds.best(n, d) < solution.max_cosine <= floor
    assert solution.passes == passes and solution.reason == "passes"
    assert solution.max_cosine == energy.max_cosine(solution.x_nd)
    torch.testing.assert_close(solution.x_nd.norm(dim=1), torch.ones(n), atol=1e-5, rtol=0)


def test_deterministic_and_the_start_is_left_alone():
    x_nd = start(120, 16)
    kept = x_nd.clone()
    first = solver.solve(x_nd, solver.default_schedule(16, 20))
    second = solver.solve(x_nd, solver.default_schedule(16, 20))
    assert torch.equal(first.x_nd, second.x_nd)
    assert torch.equal(x_nd, kept)


def test_rotation_and_permutation_of_the_start_carry_over():
    x_nd, schedule = start(40, 6, dtype=torch.float64), solver.default_schedule(6, 8)
    rotation_dd = torch.from_numpy(ortho_group.rvs(6, random_state=0))
    order = torch.from_numpy(rng.permutation(40, 0))
    plain = solver.solve(x_nd, schedule).x_nd
    turned = solver.solve(x_nd[order] @ rotation_dd, schedule, tile=16).x_nd
    torch.testing.assert_close(turned, plain[order] @ rotation_dd, atol=1e-7, rtol=0)


def test_target_ends_the_solve_at_that_quality():
    x_nd, schedule = start(200, 32), solver.default_schedule(32, 100)
    solution = solver.solve(x_nd, schedule, target_cosine=0.3)
    assert solution.reason == "target" and solution.passes < 100
    assert solution.max_cosine <= 0.3
    assert solution.max_cosine == pytest.approx(energy.max_cosine(solution.x_nd), abs=1e-6)


def test_time_ends_the_solve():
    solution = solver.solve(start(400, 32), solver.default_schedule(32, 10**6), max_seconds=0.3)
    assert solution.reason == "time" and solution.passes < 10**6
    assert solution.max_cosine < 0.4  # the schedule was run through, so the result is a packing


def test_a_state_continues_to_the_same_bits():
    x_nd, schedule = start(90, 16), solver.default_schedule(16, 30)
    states = []

    def keep(report: solver.PassReport) -> None:
        if report.state.passes == 12:
            s = report.state
            states.append(
                solver.State(s.x_nd.clone(), s.momentum_nd.clone(), s.second_n1.clone(), s.passes, s.largest)
            )

    whole = solver.solve(x_nd, schedule, on_pass=keep)
    rest = solver.solve(x_nd, schedule, state=states[0])
    assert torch.equal(whole.x_nd, rest.x_nd)


def test_fixed_rows_stay_and_repel():
    fixed_md = solver.solve(start(100, 24), solver.default_schedule(24, 60)).x_nd
    kept = fixed_md.clone()
    new_nd = start(50, 24, seed=1)
    alone = solver.solve(new_nd, solver.default_schedule(24, 60))
    added = solver.solve(new_nd, solver.default_schedule(24, 60), fixed_md=fixed_md)
    assert torch.equal(fixed_md, kept)
    both = energy.max_cosine(torch.cat([fixed_md, added.x_nd]))
    assert added.max_cosine == pytest.approx(both, abs=1e-6)
    assert both < energy.max_cosine(torch.cat([fixed_md, alone.x_nd])) - 0.1


def test_fixed_rows_pull_as_in_one_packing():
    x_nd, y_md = start(30, 6, dtype=torch.float64), start(20, 6, 1, torch.float64)
    whole = energy.block_energy(torch.cat([x_nd, y_md]), sharpness=7.0, shift=0.5, tile=8)
    task = solver.Task(solver.default_schedule(6, 1), fixed_md=y_md, tile=8)
    state = solver.initial_state(x_nd, 0.5)
    part = solver.repulsion(state, task, LocalExchange(), 7.0)
    among_fixed = energy.block_energy(y_md, sharpness=7.0, shift=0.5)
    torch.testing.assert_close(part.pull_nd, whole.pull_nd[:30], atol=1e-12, rtol=1e-12)
    assert float(part.mass) == pytest.approx(float(whole.mass - among_fixed.mass))


class TestGallery:
    def test_gradient_equals_autograd_of_the_published_term(self):
        x_nd, g_md = start(15, 5, dtype=torch.float64), start(40, 5, 1, torch.float64)
        near = gallery.Gallery(g_md, alpha=0.7)
        leaf = x_nd.clone().requires_grad_(True)
        value = 0.7 * (1 - (leaf @ g_md.T).max(1).values).mean()
        value.backward()
        found = gallery.add_gradient_(torch.zeros_like(x_nd), near, gallery.nearest(near, x_nd, 8), 15, 4)
        torch.testing.assert_close(found, leaf.grad, atol=1e-14, rtol=0)
        assert 0.7 * gallery.distance(near, x_nd) == pytest.approx(float(value.detach()))

    def test_alpha_trades_max_cosine_for_distance(self):
        near_md, x_nd = manifold(800, 64, 16, 0), manifold(200, 64, 16, 1)
        assert solver.kind_of_start(x_nd) == "manifold"
        schedule = solver.default_schedule(64, 60, "manifold")
        found = []
        for alpha in (0.0, 0.5, 2.0):
            near = gallery.Gallery(near_md, alpha)
            solution = solver.solve(x_nd, schedule, gallery=near)
            found.append((solution.max_cosine, gallery.distance(near, solution.x_nd)))
        cosines, distances = zip(*found, strict=True)
        assert list(cosines) == sorted(cosines)
        assert list(distances) == sorted(distances, reverse=True)
        # every alpha improves on the start's own max cosine, which is near 1
        assert energy.max_cosine(x_nd) > 0.7 and cosines[1] < 0.5

    def test_published_loss(self):
        assert gallery.published_loss(0.2, 0.4, 0.5) == pytest.approx(-0.8 + 0.2)

    def test_principal_directions(self):
        x_nd = start(500, 3, dtype=torch.float64) @ torch.eye(3, 10, dtype=torch.float64)
        basis_de, spread_e = gallery.principal_directions(x_nd, 0.999)
        assert spread_e.square().sum() == pytest.approx(1.0)
        assert basis_de.shape == (10, 3)
        torch.testing.assert_close(x_nd @ basis_de @ basis_de.T, x_nd, atol=1e-9, rtol=0)


def test_kind_of_start():
    assert solver.kind_of_start(start(300, 32)) == "isotropic"


def test_gallery_start_takes_every_row_before_any_twice():
    g_md = starts.random_start(10, 8, 0)
    x_nd = starts.gallery_start(g_md, 25, seed=3)
    _, index_n = sphere.nearest_cosine(x_nd, g_md)
    assert sorted(np.bincount(index_n)) == [2] * 5 + [3] * 5
    assert sorted(index_n[:10]) == list(range(10))
    assert sphere.nearest_cosine(x_nd)[0].max() < 1 - 1e-8 and (starts.gallery_start(g_md, 25, 3) == x_nd).all()
    assert len(np.unique(x_nd.round(6), axis=0)) == 25


def rounded(x: torch.Tensor) -> torch.Tensor:
    """To TF32: float32 with 10 bits of mantissa stored, to nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def solved(x_nd: torch.Tensor, precision: solver.Precision, passes: int = 60) -> float:
    task = solver.Task(solver.default_schedule(x_nd.shape[1], passes), early_precision=precision)
    state = solver.begin(x_nd, task, LocalExchange())
    reason = solver.advance(state, task, LocalExchange(), passes)
    assert reason is not None
    return solver.finish(state, task, LocalExchange(), reason).max_cosine


def test_products_of_the_first_passes_may_be_rounded(monkeypatch):
    """Here TF32 is played by rounding what goes in; a CPU has none."""
    x_nd, seen, plain = start(400, 64), [], energy.block_energy

    def played(rows_nd, others_md=None, **options):
        seen.append(torch.get_float32_matmul_precision())
        return plain(rounded(rows_nd) if seen[-1] == "high" else rows_nd, others_md, **options)

    full = solved(x_nd, "highest")
    assert energy.max_cosine(rounded(x_nd)) != energy.max_cosine(x_nd)
    monkeypatch.setattr(solver, "block_energy", played)
    assert solved(x_nd, "high") == pytest.approx(full, abs=5e-4)
    assert seen == ["high"] * 48 + ["highest"] * 12
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_former_precision_comes_back_from_an_error():
    def broken():
        with solver.products_in("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert torch.get_float32_matmul_precision() == "highest"
