"""The closed loop: which round is kept, and the whole flow on small random weights."""

import itertools
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from synface.core import sphere
from synface.core.errors import InputError
from synface.flows import closed_loop, realised
from synface.flows.closed_loop_config import ClosedLoopConfig
from synface.models import recognizers, weights
from synface.models.embedding import Embedder
from synface.pack import correction
from synface.settings import build
from synface.store import images, schemas, tables
from tests.flows.conftest import people_table, unit


def config_of(small_cemiface, output="unused", **fields) -> ClosedLoopConfig:
    base = {
        "rounds": 1, "samples": 2, "variation": {"m": 0.7}, "output": str(output),
        "sampler": {"steps": 2}, "numerics": {"micro_batch": 8}, "how": {"max_actors": 1},
    }  # fmt: skip
    return build(ClosedLoopConfig, base | small_cemiface | fields)


def line(followed, nearest, wanted=0.0):
    return {"cosine_to_asked_mean": followed, "mean_nearest_cosine": nearest, "cosine_to_wanted_mean": wanted}


def test_the_round_that_is_kept():
    lines = [line(0.8, 0.5, 0.7), line(0.75, 0.4, 0.72), line(0.7, 0.1, 0.9), line(0.73, 0.45, 0.71)]
    assert closed_loop.best_round(lines, "spread", 0.9) == 1  # round 2 spreads apart because it follows nothing
    assert closed_loop.best_round(lines, "spread", 0.5) == 2
    assert closed_loop.best_round(lines, "follow", 0.9) == 1
    assert closed_loop.best_round(lines, "follow", 0.0) == 2
    assert closed_loop.best_round([line(-0.1, 0.5), line(-0.2, 0.6)], "spread", 0.9) == 0


def test_a_round_that_an_independent_judge_tells_apart_less_well_is_not_kept():
    lines = [line(0.8, 0.5) | {"judge_margin": 0.15}, line(0.8, 0.4) | {"judge_margin": 0.16},
             line(0.8, 0.3) | {"judge_margin": 0.14}]  # fmt: skip
    assert closed_loop.best_round(lines, "spread", 0.9) == 1
    assert closed_loop.best_round(lines[::2], "spread", 0.9) == 0
    assert closed_loop.best_round([{**one, "judge_margin": 0.1} for one in lines], "spread", 0.9) == 2


@pytest.mark.ray
def test_rounds_follow_from_what_was_measured(ray_cluster, small_cemiface, tmp_path):
    config = config_of(small_cemiface, tmp_path / "out")
    plan = closed_loop.plan(config)
    assert plan.pop("estimate")["a_round"]["generate"]["amount"] == 16
    assert plan == {"identities": 8, "rounds": 1, "images": 32}
    seen = []
    realise = closed_loop._realise

    def watching(config, table, sent_nd, number):
        seen.append((sent_nd, realise(config, table, sent_nd, number)))
        return seen[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop, "_realise", watching)
        result = closed_loop.run(config)
    lines = json.loads((tmp_path / "out" / closed_loop.FILE).read_text())
    asked = schemas.embeddings(tables.read_identities(small_cemiface["identities"]))
    np.testing.assert_array_equal(seen[0][0], asked)
    for (sent, came), after in itertools.pairwise(seen):
        np.testing.assert_array_equal(after[0], correction.spread(sent, came, 0.15, 20.0))
    for (sent, came), stated in zip(seen, lines, strict=True):
        assert stated["mean_nearest_cosine"] == pytest.approx(sphere.nearest_cosine(came)[0].mean(), abs=1e-6)
        assert stated["cosine_to_asked_mean"] == pytest.approx(np.einsum("nd,nd->n", came, sent).mean(), abs=1e-5)
        assert stated["max_cosine"] == pytest.approx(realised.measured(came)["max_cosine"], abs=1e-6)
    best = closed_loop.best_round(lines, "spread", 0.9)
    kept = tables.read_identities(result["uri"])
    np.testing.assert_allclose(schemas.embeddings(kept), seen[best][0], atol=1e-6)
    assert kept["identity_id"].to_pylist() == [f"p{i}" for i in range(8)]
    assert (
        schemas.metadata_of(kept.schema)["embedder_sha256"]
        == schemas.metadata_of(tables.read_identities(small_cemiface["identities"]).schema)["embedder_sha256"]
    )
    assert not (tmp_path / "out" / closed_loop.WORK).exists() or not list(
        (tmp_path / "out" / closed_loop.WORK).rglob("*.parquet")
    )
    again = closed_loop.run(config)
    assert again["cached"] and again["best_round"] == best == result["best_round"]


@pytest.fixture
def judge(tmp_path) -> str:
    """Another recognizer, random as well."""
    torch.manual_seed(2)
    stated = weights.WeightsConfig("tiny", 8, 32, "CC0-1.0", "noise")
    weights.save_pretrained(str(tmp_path / "judge"), recognizers.build("tiny", 8, 32), stated)
    return str(tmp_path / "judge")


@pytest.mark.ray
def test_the_judges_margin_is_that_of_the_rounds_images(ray_cluster, small_cemiface, judge, tmp_path):
    config = config_of(small_cemiface, tmp_path / "out", judge=judge)
    assert set(closed_loop.plan(config)["estimate"]["a_round"]) == {"generate", "embed", "judge"}

    def keeping(folder):
        if folder.endswith(closed_loop.WORK):
            shutil.copytree(folder, tmp_path / "kept")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop.uris, "delete_files", keeping)
        result = closed_loop.run(config)
    lines = json.loads((tmp_path / "out" / closed_loop.FILE).read_text())
    assert result["judge_margin"] == lines[result["best_round"]]["judge_margin"]
    seen = Embedder.from_pretrained(judge, threads=1)
    for number, stated in enumerate(lines):
        table = pa.concat_tables(tables.iter_images(str(tmp_path / "kept" / f"round-{number:03d}")))
        pictures = np.stack([images.decode(row["bytes"]) for row in table["image"].to_pylist()])
        x_nd, label = seen.embed(pictures).astype(np.float64), table["label"].to_numpy()
        centre = sphere.normalize(np.stack([x_nd[label == i].mean(0) for i in range(8)]))
        cosine = centre @ centre.T - 2 * np.eye(8)
        margin = np.einsum("nd,nd->n", x_nd, centre[label]).mean() - cosine.max(1).mean()
        assert stated["judge_margin"] == pytest.approx(margin, abs=1e-4)


def test_refusals(small_cemiface, judge, tmp_path):
    with pytest.raises(InputError, match="has the scorer's own weights"):
        closed_loop.run(config_of(small_cemiface, tmp_path / "o", judge=small_cemiface["scorer"]))
    with pytest.raises(InputError, match="takes crops of 64 pixels, the generator makes images of 32"):
        closed_loop.run(config_of(small_cemiface, tmp_path / "o", judge="heads-fr-tiny"))
    other = tmp_path / "other.parquet"
    other.write_bytes(tables.parquet_bytes(people_table(unit(4, 8), "another")))
    with pytest.raises(InputError, match="embed or pack the identities with that recognizer"):
        closed_loop.run(config_of(small_cemiface, tmp_path / "o", identities=str(other)))
    sha = schemas.metadata_of(tables.read_identities(small_cemiface["identities"]).schema)["embedder_sha256"]
    lonely = tmp_path / "one.parquet"
    lonely.write_bytes(tables.parquet_bytes(people_table(unit(1, 8), sha)))
    with pytest.raises(InputError, match="needs at least two"):
        closed_loop.run(config_of(small_cemiface, tmp_path / "o", identities=str(lonely)))
    with pytest.raises(InputError, match="variation"):
        closed_loop.plan(config_of(small_cemiface, tmp_path / "o", variation={}))
    assert not (tmp_path / "o").exists()
