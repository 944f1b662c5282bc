"""Packing near a gallery of low effective dimension: subspace, whitening, band from a scorer, trade-off curve."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.pack import bounds, checkpoint, gallery, points, problem, run, spaces
from synface.pack.config import PackConfig
from synface.settings import StageConfig, build
from synface.store import artifact, tables
from synface.store import uri as uris
from synface.store.schemas import embeddings, identities_table
from synface.store.tables import read_identities

N, D = 300, 24
SPREAD = 0.8 ** np.arange(D)


def faces(seed: int = 0, n: int = N) -> np.ndarray:
    """Unit rows whose spread falls geometrically from direction to direction."""
    return sphere.normalize(rng.generator(seed, "faces").standard_normal((n, D)) * SPREAD).astype(np.float32)


@pytest.fixture
def uri(tmp_path):
    path = tmp_path / "faces.parquet"
    pq.write_table(identities_table([str(i) for i in range(N)], faces(), ["x"] * N, [0] * N), path)
    return str(path)


def config(tmp_path, **fields) -> PackConfig:
    base = {"output": str(tmp_path / "out"), "num_identities": 60, "passes": 60, "numerics": {"threads": 1}}
    return build(PackConfig, {**base, **fields})


def test_principal_directions_and_their_spread():
    x_nd = torch.from_numpy(faces(n=20_000)).double()
    basis_dd, spread_d = gallery.principal_directions(x_nd, 1.0)
    assert basis_dd.shape == (D, D)
    torch.testing.assert_close(basis_dd.T @ basis_dd, torch.eye(D, dtype=torch.float64), atol=1e-9, rtol=0)
    root = (x_nd @ basis_dd).square().mean(0).sqrt()
    torch.testing.assert_close(spread_d, root.clamp(min=gallery.LEAST_SPREAD * float(root[0])), atol=1e-9, rtol=0)


def test_whitened_rows_have_an_even_spectrum():
    x_nd = torch.from_numpy(faces(n=20_000)).double()
    even_nd = gallery.whitened(x_nd, x_nd)
    torch.testing.assert_close(even_nd.norm(dim=1), torch.ones(len(x_nd), dtype=torch.float64), atol=1e-12, rtol=0)
    energy_d = torch.linalg.eigvalsh(even_nd.T @ even_nd / len(even_nd))
    before = torch.linalg.eigvalsh(x_nd.T @ x_nd / len(x_nd))
    assert float(before.max() / before.min()) > 1000
    assert float(energy_d.max() / energy_d.min()) < 3.0  # exactly 1 before the rows are made unit again


def test_whitened_space_there_and_back():
    x_nd = spaces.unit(torch.from_numpy(faces()).double())
    basis_de, spread_e = gallery.principal_directions(x_nd, 1.0)
    space = spaces.Space(D, basis_de, spread_e)
    inside = space.inside(x_nd)
    torch.testing.assert_close(inside.norm(dim=1), torch.ones(N, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(space.lifted(inside), x_nd, atol=1e-9, rtol=0)


def test_packed_in_whitened_coordinates_the_spectrum_is_the_gallerys(tmp_path, uri):
    common = {"gallery": uri, "alpha": 0.0, "initial": "random"}
    free = run.run(config(tmp_path / "a", **common, subspace="all"))
    white = run.run(config(tmp_path / "b", **common, whiten="space"))
    spectra = []
    for result in (free, white):
        x_nd = embeddings(read_identities(result["uri"])).astype(np.float64)
        spectra.append(np.mean(x_nd**2, axis=0))
    theirs = np.mean(faces().astype(np.float64) ** 2, axis=0)
    error = [float(np.abs(np.log(s / theirs)).mean()) for s in spectra]
    assert error[1] < 0.35 < error[0]
    assert white["energy_outside_subspace"] < 0.15 < free["energy_outside_subspace"]
    # near to the gallery's spectrum is farther from the bound of all directions
    assert white["max_cosine"] > free["max_cosine"]
    assert white["max_cosine"] < float(sphere.nearest_cosine(faces()[:60])[0].max())


def test_whitened_start_opens_all_directions(tmp_path, uri):
    plain = run.run(config(tmp_path / "a", gallery=uri, alpha=0.0, passes=5, subspace="all"))
    even = run.run(config(tmp_path / "b", gallery=uri, alpha=0.0, passes=5, whiten="start"))
    assert even["max_cosine"] < plain["max_cosine"]


def test_subspace_states_dimension_bound_and_energy(tmp_path, uri):
    result = run.run(config(tmp_path, gallery=uri, alpha=0.0, subspace=0.9))
    effective = sphere.effective_dimension(faces())
    assert result["effective_dimension"] == effective < D
    assert result["bound_at_effective_dimension"] == bounds.best(60, effective)
    assert result["energy_outside_subspace"] < 1e-5
    assert result["max_cosine"] > result["bound_at_effective_dimension"]


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, 0.9),
        ({"tau_hi": 0.9}, 0.9),
        ({"subspace": 0.5}, 0.5),
        ({"subspace": "all"}, None),
        ({"tau_lo": 0.5}, None),
        ({"whiten": "start"}, None),
        ({"whiten": "space", "subspace": 0.8}, 0.8),
        ({"solver": "algorithm1"}, None),
        ({"gallery": None, "dim": 8}, None),
    ],
)
def test_what_can_be_rendered_is_the_default(tmp_path, uri, fields, share):
    assert config(tmp_path, **({"gallery": uri} | fields)).share == share


def test_the_default_packs_as_the_share_says(tmp_path, uri):
    plain, asked = (
        run.run(config(tmp_path / name, gallery=uri, passes=5, **fields))
        for name, fields in (("plain", {}), ("asked", {"subspace": 0.9}))
    )
    np.testing.assert_array_equal(*(embeddings(read_identities(found["uri"])) for found in (plain, asked)))


def test_leaving_what_can_be_rendered_is_warned_of(tmp_path, uri, capsys):
    run.run(config(tmp_path / "inside", gallery=uri, alpha=0.0, subspace=0.9))
    assert "warning" not in capsys.readouterr().err
    left = run.run(config(tmp_path / "outside", gallery=uri, alpha=0.0, whiten="start"))
    assert left["energy_outside_subspace"] > 0.2
    said = capsys.readouterr().err
    assert f"{left['energy_outside_subspace']:.0%} of the points' energy" in said and "--subspace 0.9" in said


class TestTradeOff:
    def test_curve_falls_and_each_point_is_what_its_alpha_gives(self, tmp_path, uri):
        alphas = [0.0, 0.2, 2.0]
        near = {"gallery": uri, "subspace": "all"}
        result = run.run(config(tmp_path / "a", **near, alpha=0.5, trade_off=alphas))
        curve = result["trade_off"]
        assert [p["alpha"] for p in curve] == alphas
        cosines, distances = ([p[name] for p in curve] for name in ("max_cosine", "gallery_distance"))
        assert cosines == sorted(cosines) and distances == sorted(distances, reverse=True)
        alone = run.run(config(tmp_path / "b", **near, alpha=0.2))
        assert curve[1]["max_cosine"] == pytest.approx(alone["max_cosine"], abs=1e-7)
        assert curve[1]["gallery_distance"] == pytest.approx(alone["gallery_distance"], abs=1e-6)
        assert artifact.require(result["uri"]).numbers["trade_off"] == curve
        main = run.run(config(tmp_path / "c", **near, alpha=0.5))
        assert main["max_cosine"] == result["max_cosine"]
        assert not uris.exists(uris.join(result["uri"], points.CURVE))

    def test_finished_points_are_not_made_twice(self, tmp_path, uri, monkeypatch):
        asked = config(tmp_path, gallery=uri, trade_off="0.1,0.3")
        move, made = points.move_lse, []

        def counting(config, task, *others):
            made.append(task.gallery.alpha)
            if len(made) == 3:
                raise KeyboardInterrupt
            return move(config, task, *others)

        monkeypatch.setattr(points, "move_lse", counting)
        with pytest.raises(KeyboardInterrupt):
            run.run(asked)
        assert len(run.run(asked)["trade_off"]) == 2
        assert made == [0.1, 0.3, 0.5, 0.5]
        assert checkpoint.latest(asked.output, "", 60) is None

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"trade_off": [0.1], "dim": 8}, "a curve of solver lse with a gallery"),
            ({"trade_off": [0.1], "solver": "row_max", "gallery": "x"}, "a curve of solver lse"),
            ({"trade_off": [-0.1], "gallery": "x"}, "every weight alpha is at least 0"),
            ({"whiten": "start", "dim": 8}, "whiten needs a gallery"),
            ({"whiten": "space", "gallery": "x", "tau_hi": 0.5}, "tau_hi: whiten 'space' solves for other cosines"),
            ({"scorer": "x", "dim": 8}, "scorer needs a gallery"),
            ({"scorer": "x", "gallery": "x", "tau_hi": 0.5}, "give tau_hi or a scorer"),
        ],
    )
    def test_refused(self, tmp_path, fields, message):
        with pytest.raises(InputError, match=message):
            config(tmp_path, **fields)


class Evaluated(StageConfig):
    verb = "evaluate"


def evaluation(tmp_path, rows) -> str:
    """An evaluation's ROC corners: (benchmark, far, threshold)."""
    output = str(tmp_path / "evaluation")
    asked = Evaluated(output=output)
    opened = artifact.open_output(asked)
    columns = {
        "benchmark": [r[0] for r in rows],
        "far": [r[1] for r in rows],
        "threshold": pa.array([r[2] for r in rows], pa.float64()),
    }
    entry = artifact.write_file(output, problem.ROC_FILE, tables.parquet_bytes(pa.table(columns)))
    artifact.commit(asked, opened, "evaluation", [entry], {})
    return output


class TestScorer:
    ROC = [("a", 0.0, None), ("a", 5e-5, 0.62), ("a", 1e-4, 0.6), ("a", 2e-4, 0.4), ("b", 0.0, 0.7), ("b", 1e-3, 0.5)]

    def test_the_band_ends_at_its_threshold(self, tmp_path, uri):
        scorer = evaluation(tmp_path, self.ROC)
        assert problem.impostor_threshold(scorer) == 0.6
        result = run.run(config(tmp_path, gallery=uri, scorer=scorer, tau_lo=0.3))
        assert result["band"] == [0.3, 0.6] and result["outside_band"] == 0.0
        cosine_n = sphere.nearest_cosine(embeddings(read_identities(result["uri"])), faces())[0]
        assert cosine_n.min() >= 0.3 - 1e-4 and cosine_n.max() <= 0.6 + 1e-4
        json.dumps(result, allow_nan=False)

    def test_refused_before_any_work(self, tmp_path, uri):
        scorer = evaluation(tmp_path, self.ROC)
        with pytest.raises(InputError, match=r"tau_lo = 0.65: above tau_hi = 0.6000, the threshold of scorer"):
            run.run(config(tmp_path, gallery=uri, scorer=scorer, tau_lo=0.65))
        with pytest.raises(InputError, match=r"no finished synface result|nothing stands there"):
            run.run(config(tmp_path, gallery=uri, scorer=str(tmp_path / "none")))
        assert not (tmp_path / "out").exists()

    def test_without_a_threshold_so_strict(self, tmp_path):
        with pytest.raises(InputError, match=r"no threshold keeps FAR at 0.0001"):
            problem.impostor_threshold(evaluation(tmp_path, [("a", 0.0, None), ("a", 0.01, 0.3)]))
