import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synface.cli import main
from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.pack import problem, run
from synface.pack.config import PackConfig
from synface.settings import build
from synface.store import artifact
from synface.store.schemas import embedding_column, embeddings, identities_table, metadata_of
from synface.store.tables import read_identities

SMALL = {"numerics": {"threads": 1}, "passes": 20}


def table(n: int, d: int, seed: int = 0) -> pa.Table:
    x_nd = sphere.uniform(rng.generator(seed, "pool"), n, d)
    ids = [f"pool-{i}" for i in range(n)]
    return identities_table(ids, x_nd, ["heads"] * n, list(range(100, 100 + n)), {"embedder": "tiny"})


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.parquet"
    pq.write_table(table(60, 8), path)
    return str(path)


def config(tmp_path, **fields) -> PackConfig:
    return build(PackConfig, {"output": str(tmp_path / "out"), **SMALL, **fields})


def test_packed_points(tmp_path):
    asked = config(tmp_path, num_identities=40, dim=16, seed=5)
    result = run.run(asked)
    made = read_identities(asked.output)
    assert made["identity_id"].to_pylist()[:2] == ["packed-000000", "packed-000001"]
    assert set(made["source"].to_pylist()) == {"packed"}
    x_nd = embeddings(made)
    assert result["max_cosine"] == pytest.approx(sphere.nearest_cosine(x_nd)[0].max(), abs=1e-6)
    np.testing.assert_allclose(made["nearest_cosine"].to_numpy(), sphere.nearest_cosine(x_nd)[0], atol=1e-6)
    assert result["gap"] == result["max_cosine"] - result["bound"] > 0
    assert result["max_cosine"] < result["iid_max_cosine"]
    for name in ("mean_nearest_cosine", "passes", "num_identities", "dim", "workers"):
        assert name in result
    json.dumps(result, allow_nan=False)


def test_a_second_run_does_nothing_and_says_the_same(tmp_path):
    asked = config(tmp_path, num_identities=30, dim=8)
    first, digest = run.run(asked), artifact.require(asked.output).content_digest
    second = run.run(asked)
    assert not first.pop("cached") and second.pop("cached")
    assert first.pop("work")["flops_per_worker_pass"] == 6 * 8 * 30 * 29 // 2  # of the run that did it
    assert first == second
    again = run.run(config(tmp_path / "elsewhere", num_identities=30, dim=8))
    assert artifact.require(again["uri"]).content_digest == digest


def test_how_changes_no_byte(tmp_path):
    plain = run.run(config(tmp_path / "a", num_identities=30, dim=8))
    talkative = run.run(config(tmp_path / "b", num_identities=30, dim=8, how={"progress_seconds": 0.001}))
    digests = {artifact.require(r["uri"]).content_digest for r in (plain, talkative)}
    assert len(digests) == 1


def test_subset_keeps_the_pool_members(tmp_path, pool):
    asked = config(tmp_path, solver="subset", pool=pool, num_identities=12)
    result = run.run(asked)
    made, given = read_identities(asked.output), read_identities(pool)
    rows = [given["identity_id"].to_pylist().index(i) for i in made["identity_id"].to_pylist()]
    assert rows == sorted(rows)
    assert made["seed"].to_pylist() == [100 + r for r in rows]
    assert (embeddings(made) == embeddings(given)[rows]).all()
    assert metadata_of(made.schema)["embedder"] == "tiny"
    assert result["effective_dimension"] <= 8 and "bound_at_effective_dimension" in result
    assert result["max_cosine"] < sphere.nearest_cosine(embeddings(given)[:12])[0].max()


def test_gallery_packing_states_both_terms(tmp_path, pool):
    result = run.run(config(tmp_path, gallery=pool, num_identities=20, alpha=0.5))
    made, given = read_identities(str(tmp_path / "out")), read_identities(pool)
    cosine_n = sphere.nearest_cosine(embeddings(made), embeddings(given))[0]
    np.testing.assert_allclose(made["gallery_cosine"].to_numpy(), cosine_n, atol=1e-6)
    assert result["gallery_distance"] == pytest.approx(1 - cosine_n.mean(), abs=1e-5)
    expected = result["max_cosine"] - 1 + 0.5 * result["gallery_distance"]
    assert result["published_loss"] == pytest.approx(expected, abs=1e-5)


def test_warm_start(tmp_path):
    first = run.run(config(tmp_path / "a", num_identities=50, dim=16, passes=40))
    uri = first["uri"]
    again = run.run(config(tmp_path / "b", num_identities=50, start=uri, passes=40))
    assert again["max_cosine"] <= first["max_cosine"] + 1e-5 and again["start"] == "table"


def test_plan_does_no_work(tmp_path):
    planned = run.plan(config(tmp_path, num_identities=1000, dim=64))
    assert planned["flops_per_pass"] == 3 * 1000**2 * 64
    assert planned["bound"] < planned["iid_max_cosine"]
    assert not (tmp_path / "out").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"num_identities": 1, "dim": 8}, "num_identities = 1.*greater than or equal to 2"),
            ({"num_identities": 10, "dim": 1}, "dim = 1.*greater than or equal to 2"),
            ({"num_identities": 10, "dim": 8, "alpha": -0.1}, "alpha = -0.1"),
            ({"num_identities": 10, "dim": 8, "alpha": float("nan")}, "alpha"),
            ({"num_identities": 10}, "give dim"),
            ({"num_identities": 10, "dim": 8, "solver": "magic"}, "solver = 'magic'"),
            ({"num_identities": 10, "solver": "subset"}, "give pool"),
            ({"num_identities": 10, "dim": 8, "pool": "x"}, "pool belongs to solver subset"),
            ({"num_identities": 10, "dim": 8, "initial": "gallery"}, "needs a gallery"),
            ({"num_identities": 10, "dim": 8, "passes": 0}, "passes = 0"),
        ],
    )
    def test_fields(self, tmp_path, fields, message):
        with pytest.raises(InputError, match=message):
            config(tmp_path, **fields)
        assert not (tmp_path / "out").exists()

    def refused(self, tmp_path, message, **fields):
        with pytest.raises(InputError, match=message):
            run.run(config(tmp_path, **fields))
        assert not (tmp_path / "out").exists()

    def test_missing_gallery(self, tmp_path):
        self.refused(tmp_path, "nothing.parquet", num_identities=5, gallery=str(tmp_path / "nothing.parquet"))

    def test_gallery_of_another_dimension(self, tmp_path, pool):
        self.refused(tmp_path, "8 dimensions, expected 16", num_identities=5, dim=16, gallery=pool)

    def test_subset_larger_than_the_pool(self, tmp_path, pool):
        self.refused(tmp_path, "only 60 rows", solver="subset", pool=pool, num_identities=61)

    def test_start_of_another_size(self, tmp_path, pool):
        self.refused(tmp_path, "must be equal", start=pool, num_identities=59)

    def test_target_below_the_bound_names_the_bound(self, tmp_path):
        self.refused(tmp_path, "below the bound -0.11111", num_identities=10, dim=16, target_cosine=-0.2)

    def test_ceiling_below_the_bound(self, tmp_path, pool):
        self.refused(tmp_path, "below the bound", solver="subset", pool=pool, num_identities=50, max_cosine=-0.5)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda x: x * 2, "norm 2"),
            (lambda x: np.where(np.arange(60)[:, None] == 7, 0, x), "row 7.*norm 0"),
            (lambda x: np.where(np.arange(60)[:, None] == 9, np.nan, x), "row 9.*norm nan"),
        ],
    )
    def test_spoilt_embeddings(self, tmp_path, spoil, message):
        good = table(60, 8)
        bad = good.set_column(1, good.schema.field(1), embedding_column(spoil(embeddings(good))))
        pq.write_table(bad, tmp_path / "bad.parquet")
        self.refused(tmp_path, message, gallery=str(tmp_path / "bad.parquet"), num_identities=5)

    def test_duplicate_ids(self, tmp_path):
        good = table(60, 8)
        pq.write_table(good.set_column(0, good.schema.field(0), [["twin"] * 60]), tmp_path / "bad.parquet")
        uri = str(tmp_path / "bad.parquet")
        self.refused(tmp_path, "'twin' stands more than once", solver="subset", pool=uri, num_identities=5)

    def test_no_bytes_of_parquet(self, tmp_path):
        (tmp_path / "bad.parquet").write_bytes(b"not a table")
        uri = str(tmp_path / "bad.parquet")
        self.refused(tmp_path, "not a readable Parquet", gallery=uri, num_identities=5)

    def test_more_than_memory_allows_says_what_fits(self, tmp_path):
        self.refused(tmp_path, r"at most num_identities = \d+ fit", num_identities=10**11, dim=512)

    def test_the_number_that_fits_does_fit(self, tmp_path):
        asked = config(tmp_path, num_identities=10**6, dim=512)
        given = problem.Problem(512, None, None, None, None)
        with pytest.raises(InputError) as error:
            problem.check_memory(asked, given, 10**9)
        fits = int(str(error.value).split("num_identities = ")[2].split()[0])
        problem.check_memory(config(tmp_path, num_identities=fits, dim=512), given, 10**9)
        with pytest.raises(InputError):
            problem.check_memory(config(tmp_path, num_identities=fits + 1, dim=512), given, 10**9)

    def test_a_ceiling_that_the_pool_cannot_hold(self, tmp_path, pool):
        asked = config(tmp_path, solver="subset", pool=pool, num_identities=40, max_cosine=0.25)
        with pytest.raises(InputError, match=r"only \d+ were found"):
            run.run(asked)
        assert artifact.load_manifest(asked.output) is None

    def test_another_configuration_at_the_output(self, tmp_path):
        run.run(config(tmp_path, num_identities=10, dim=8))
        with pytest.raises(InputError, match="seed"):
            run.run(config(tmp_path, num_identities=10, dim=8, seed=1))


def test_command_line(tmp_path, capsys):
    arguments = ["pack", "--num-identities", "20", "--dim", "8", "--passes", "10", "--numerics.threads", "1"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"max_cosine", "bound", "gap", "passes", "seconds", "num_identities", "dim", "workers"}
    assert wanted <= set(line)
    assert main([*arguments, "--output", str(tmp_path / "b"), "--target-cosine", "-0.9"]) == 2


class TestSolvers:
    def test_code(self, tmp_path):
        result = run.run(config(tmp_path, solver="code", num_identities=200, dim=16, seed=3))
        assert result["code"] == "kerdock-16" and result["max_cosine"] == pytest.approx(0.25, abs=1e-6)
        assert result["passes"] == 0

    def test_lse_starts_from_a_code_where_that_pays(self, tmp_path):
        result = run.run(config(tmp_path, num_identities=280, dim=16, passes=30))
        assert result["start"] == "kerdock-16"
        assert result["max_cosine"] == pytest.approx(0.25, abs=1e-6)
        assert (result["passes"], result["stopped_by"]) == (0, "start")
        solved = run.run(config(tmp_path / "s", num_identities=280, dim=16, passes=30, initial="code"))
        assert (solved["passes"], solved["start"]) == (30, "kerdock-16") and solved["max_cosine"] <= 0.25 + 1e-6
        lower = config(tmp_path / "t", num_identities=280, dim=16, passes=30, target_cosine=0.249)
        assert run.run(lower)["passes"] == 30
        random = run.run(config(tmp_path / "r", num_identities=280, dim=16, passes=30, initial="random"))
        assert random["start"] == "random" and random["max_cosine"] > 0.26

    @pytest.mark.parametrize(("n", "optimum"), [(17, -1 / 16), (30, 0.0)])
    def test_an_optimal_code_needs_no_pass(self, tmp_path, n, optimum):
        result = run.run(config(tmp_path, num_identities=n, dim=16))
        assert result["max_cosine"] == pytest.approx(optimum, abs=1e-6) and result["passes"] == 0
        assert result["stopped_by"] == "start"

    @pytest.mark.parametrize("solver", ["algorithm1", "algorithm2", "row_max"])
    def test_baselines(self, tmp_path, solver, pool):
        asked = config(tmp_path, solver=solver, num_identities=30, gallery=pool, alpha=0.1, batch=20)
        result = run.run(asked)
        assert result["solver"] == solver and result["start"] == "gallery"
        assert result["max_cosine"] < 0.99 and result["learning_rate"] == 1e-3

    def test_kept_identities_stay_bit_for_bit(self, tmp_path):
        first = run.run(config(tmp_path / "a", num_identities=60, dim=16, initial="random"))
        more = run.run(config(tmp_path / "b", num_identities=90, keep=first["uri"], passes=60))
        old, new = read_identities(first["uri"]), read_identities(more["uri"])
        assert (embeddings(new)[:60] == embeddings(old)).all()
        assert new["identity_id"].to_pylist() == [f"packed-{i:06d}" for i in range(90)]
        assert more["kept"] == 60 and more["max_cosine"] < 0.35

    def test_new_ids_avoid_those_that_are_kept(self, tmp_path):
        odd = table(3, 8)
        odd = odd.set_column(0, odd.schema.field(0), [["packed-000004", "b", "c"]])
        pq.write_table(odd, tmp_path / "odd.parquet")
        run.run(config(tmp_path, num_identities=6, keep=str(tmp_path / "odd.parquet")))
        ids = read_identities(str(tmp_path / "out"))["identity_id"].to_pylist()
        assert ids == ["packed-000004", "b", "c", "packed-000003", "packed-000005", "packed-000006"]

    def test_band_holds_for_every_identity(self, tmp_path, pool):
        result = run.run(config(tmp_path, gallery=pool, num_identities=20, alpha=0.0, tau_lo=0.7, tau_hi=0.9))
        made, given = read_identities(str(tmp_path / "out")), read_identities(pool)
        cosine_n = sphere.nearest_cosine(embeddings(made), embeddings(given))[0]
        assert result["outside_band"] == 0.0
        assert cosine_n.min() >= 0.7 - 1e-4 and cosine_n.max() <= 0.9 + 1e-4
        assert result["least_gallery_cosine"] == pytest.approx(cosine_n.min(), abs=1e-5)

    def test_subspace(self, tmp_path):
        x_nd = np.zeros((80, 12), np.float32)
        x_nd[:, :5] = sphere.uniform(rng.generator(0, "low"), 80, 5)
        faces = identities_table([str(i) for i in range(80)], x_nd, ["heads"] * 80, list(range(80)))
        pq.write_table(faces, tmp_path / "low.parquet")
        uri = str(tmp_path / "low.parquet")
        inside = run.run(config(tmp_path / "a", gallery=uri, num_identities=30, alpha=0.0, subspace=0.999))
        everywhere = {"gallery": uri, "num_identities": 30, "alpha": 0.0, "initial": "random", "subspace": "all"}
        free = run.run(config(tmp_path / "b", **everywhere))
        made = embeddings(read_identities(inside["uri"]))
        assert np.abs(made[:, 5:]).max() < 1e-6
        assert inside["effective_dimension"] == 5 and inside["energy_outside_subspace"] < 1e-6
        assert free["energy_outside_subspace"] > 0.3
        assert inside["max_cosine"] > inside["bound_at_effective_dimension"] > free["max_cosine"] > free["bound"]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"tau_lo": 0.5, "dim": 8}, "tau_lo needs a gallery"),
            ({"subspace": 0.9, "dim": 8}, "subspace needs a gallery"),
            ({"tau_lo": 0.5, "tau_hi": 0.2, "gallery": "x"}, "tau_lo = 0.5 is above tau_hi"),
            ({"solver": "code", "dim": 8, "gallery": "x"}, "gallery belongs to solver lse"),
            ({"solver": "row_max", "dim": 8, "keep": "x"}, "keep belongs to solver lse"),
            ({"learning_rate": 0, "dim": 8}, "learning_rate = 0"),
        ],
    )
    def test_refused_fields(self, tmp_path, fields, message):
        with pytest.raises(InputError, match=message):
            config(tmp_path, num_identities=10, **fields)

    def test_no_code_of_that_size(self, tmp_path):
        with pytest.raises(InputError, match="no known code has so many points in 6 dimensions"):
            run.run(config(tmp_path, solver="code", num_identities=5000, dim=6))

    def test_keep_must_leave_room(self, tmp_path, pool):
        with pytest.raises(InputError, match="has 60 rows already"):
            run.run(config(tmp_path, num_identities=60, keep=pool))

    def test_equal_rows_of_a_start_come_apart(self, tmp_path):
        twins = table(20, 8)
        x_nd = embeddings(twins)
        x_nd[1::2] = x_nd[::2]
        twins = twins.set_column(1, twins.schema.field(1), embedding_column(x_nd))
        pq.write_table(twins, tmp_path / "twins.parquet")
        uri = str(tmp_path / "twins.parquet")
        result = run.run(config(tmp_path, start=uri, num_identities=20, passes=60))
        assert result["max_cosine"] < 0.4
