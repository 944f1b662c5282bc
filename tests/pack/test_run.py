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
    np.testing.assert_allclose(embeddings(made), embeddings(given)[rows], atol=1e-6)
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
    assert again["max_cosine"] < first["max_cosine"] + 0.02


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
