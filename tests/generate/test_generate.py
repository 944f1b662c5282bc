"""The verb on the session's Ray cluster."""

import json

import numpy as np
import pytest
from generate_helpers import files, pattern_config, write_identities
from pattern_generator import Pattern

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.generate.config import GenerateConfig
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import shard_items
from synface.generate.render import render_shard
from synface.generate.run import run
from synface.settings import build
from synface.store import artifact, ledger, tables
from synface.store.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def in_one_process(config):
    """The same images without Ray, shards or ledger: what a bare loop makes."""
    description = Pattern.describe(config)
    identities = open_identities(config, description)
    people = shard_identities(Pattern, config, range(identities.count), identities.columns)
    items = shard_items(config.seed, people, config.images_per_identity)
    name = artifact.require(config.output).config_hash
    return render_shard(Pattern(config), description, config, name, items)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory, ray_cluster):
    """One finished table that several tests look at."""
    config = pattern_config(tmp_path_factory.mktemp("made") / "o")
    return config, run(config)


def test_the_stream_makes_what_a_bare_loop_makes(made):
    config, result = made
    assert (result["images"], result["identities"], result["shards"], result["failed"]) == (48, 12, 3, 0)
    shards = list(tables.iter_images(config.output))
    assert [t.num_rows for t in shards] == [16, 16, 16]
    assert [r for t in shards for r in t.to_pylist()] == in_one_process(config).to_pylist()
    assert verify(config.output)["exit_code"] == 0


def test_a_finished_table_answers_at_once_and_changes_nothing(made):
    config, result = made
    before = files(config.output)
    again = run(config)
    assert again["cached"] and not result["cached"]
    assert {k: v for k, v in again.items() if k not in ("cached", "seconds")} == {
        k: v for k, v in result.items() if k not in ("cached", "seconds")
    }
    assert files(config.output) == before


def test_no_way_of_doing_it_changes_a_byte(made, tmp_path):
    config, _ = made
    how = {
        "min_actors": 2,
        "max_actors": 3,
        "cpus_per_actor": 0.5,
        "writers": 2,
        "cpus_per_writer": 0.3,
        "restarts": 0,
        "rounds": 1,
        "progress_seconds": 0.1,
        "max_hours": 5,
        "max_cost": 1e6,
        "cost_per_hour": 1.5,
        "append": True,
        "rate": 2.5,
        "bytes_per_image": 4000,
        "labels": {"pool": "!gpu"},
    }
    assert set(how) | {"gpus_per_actor"} == set(type(config.how).model_fields)
    run(pattern_config(tmp_path / "o", how=how))
    assert files(tmp_path / "o") == files(config.output)


def test_unfinished_work_is_finished_to_the_same_bytes(made, tmp_path):
    config, _ = made
    other = pattern_config(tmp_path / "o")
    run(other)
    # as if killed: before the manifest, with one shard written but not entered, one damaged in its entry
    root = tmp_path / "o"
    (root / artifact.MANIFEST).unlink()
    (root / ledger.entry_path(1)).unlink()
    (root / ledger.entry_path(2)).write_text("{")
    kept = (root / ledger.load(other.output)[0].path).stat().st_mtime_ns
    result = run(other)
    assert not result["cached"] and files(root) == files(config.output)
    assert (root / ledger.load(other.output)[0].path).stat().st_mtime_ns == kept


def test_damage_found_by_verify_is_made_again(made, tmp_path):
    config, _ = made
    other = pattern_config(tmp_path / "o")
    run(other)
    path = tmp_path / "o" / ledger.load(other.output)[1].path
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)
    assert verify(other.output, repair=True)["damaged"][0]["fault"] == "sha256 differs"
    run(other)
    assert files(tmp_path / "o") == files(config.output)


def test_more_samples_keep_the_first_ones(made, tmp_path):
    config, _ = made
    more = pattern_config(tmp_path / "o", images_per_identity=6, images_per_shard=30)
    run(more)

    def pictures(uri):
        rows = [r for t in tables.iter_images(uri) for r in t.to_pylist()]
        return {(r["identity_id"], r["sample"]): (r["image"], r["label"], r["seed"], r["attributes"]) for r in rows}

    old, new = pictures(config.output), pictures(more.output)
    assert len(new) == 72 and {k: new[k] for k in old} == old


def test_an_identities_table_with_embeddings(tmp_path):
    x = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    source = write_identities(tmp_path / "ids", embedding_nd=x / np.linalg.norm(x, axis=1, keepdims=True))
    config = pattern_config(
        tmp_path / "o", identities=source, options={"needs_embedding": True}, images_per_shard=8, format="png"
    )
    result = run(config)
    assert result["identities"] == 6 and result["shards"] == 3
    rows = [r for t in tables.iter_images(config.output) for r in t.to_pylist()]
    assert rows == in_one_process(config).to_pylist()
    assert [r["identity_id"] for r in rows[::4]] == [f"pattern-{n}" for n in range(6)]


@pytest.mark.parametrize("bad_batch", [False, True])
def test_images_that_cannot_be_made_are_quarantined(made, tmp_path, bad_batch):
    config, _ = made
    options = {"bad_samples": [[5, 2]], "bad_batch": bad_batch}
    other = pattern_config(tmp_path / "o", options=options)
    with pytest.raises(PartialError, match="1 of 48 images could not be made") as caught:
        run(other)
    assert caught.value.numbers["failed"] == 1
    entry = ledger.load(other.output)[1]
    assert [(f["identity_id"], f["sample"]) for f in entry.failed] == [("pattern-000005", 2)]
    # the others are whole and readable, and equal
    whole = [r for t in tables.iter_images(config.output) for r in t.to_pylist()]
    rows = [r for t in tables.iter_images(other.output) for r in t.to_pylist()]
    del whole[22]
    assert [r["image"] for r in rows] == [r["image"] for r in whole]
    # asking again tries only that shard again, and says the same
    before = files(tmp_path / "o")
    with pytest.raises(PartialError):
        run(other)
    assert files(tmp_path / "o") == before


def test_an_actor_that_dies_costs_nothing(made, tmp_path):
    config, _ = made
    other = pattern_config(tmp_path / "o", options={"die_once": str(tmp_path / "died")})
    run(other)
    assert (tmp_path / "died").exists()
    assert [r["image"] for t in tables.iter_images(other.output) for r in t.to_pylist()] == [
        r["image"] for t in tables.iter_images(config.output) for r in t.to_pylist()
    ]


def test_what_kills_every_actor_ends_with_an_error_not_in_a_loop(tmp_path):
    config = pattern_config(tmp_path / "o", options={"die_always": True}, how={"restarts": 1, "rounds": 1})
    with pytest.raises(SynfaceError, match="could not be made in 1 rounds"):
        run(config)
    assert artifact.load_manifest(config.output) is None


def test_a_generator_that_does_not_load_is_one_clear_error(tmp_path):
    with pytest.raises(SynfaceError, match="cannot be loaded: RuntimeError: weights do not fit") as caught:
        run(pattern_config(tmp_path / "o", options={"refuse_to_load": True}))
    assert str(caught.value).count("\n") < 12


def test_a_broken_set_up_is_given_up(tmp_path):
    bad = [[label, sample] for label in range(100) for sample in range(4)]
    config = pattern_config(tmp_path / "o", num_identities=100, options={"bad_samples": bad})
    with pytest.raises(SynfaceError, match="images failed, 0 were made"):
        run(config)


def test_the_time_budget_stops_cleanly_and_the_rest_follows(made, tmp_path):
    config, _ = made
    other = pattern_config(tmp_path / "o", how={"max_hours": 1e-9, "max_actors": 1})
    with pytest.raises(PartialError, match="the same command continues"):
        run(other)
    assert 0 < len(ledger.load(other.output)) <= 3 and artifact.load_manifest(other.output) is None
    run(pattern_config(tmp_path / "o"))
    assert files(tmp_path / "o") == files(config.output)


def test_rendered_heads(tmp_path):
    fields = {"generator": "heads", "domain": "heads-digi", "num_identities": 3, "images_per_identity": 2}
    config = build(GenerateConfig, fields | {"image_size": 32, "output": str(tmp_path / "o"), "first_seed": 11})
    result = run(config)
    assert result["images"] == 6 and result["generator"] == "heads"
    (table,) = tables.iter_images(config.output)
    row = table.to_pylist()[2]
    assert row["identity_id"] == "heads-digi-0000000012" and row["attributes"]["identity_seed"] == 12
    assert row["attributes"]["domain"] == "heads-digi" and len(row["attributes"]["landmarks"]) == 10
    # a table of the same people gives the same pictures, whatever its order
    ids = ["heads-digi-0000000013", "heads-digi-0000000011"]
    write_identities(tmp_path / "ids", count=2, ids=ids, source="heads-digi", seed=[13, 11])
    again = config.model_copy(
        update={"identities": str(tmp_path / "ids"), "num_identities": None, "domain": None, "first_seed": 0}
    )
    run(again.model_copy(update={"output": str(tmp_path / "p")}))
    (other,) = tables.iter_images(str(tmp_path / "p"))
    pictures = {(r["identity_id"], r["sample"]): r["image"]["bytes"] for r in table.to_pylist()}
    for r in other.to_pylist():
        assert r["image"]["bytes"] == pictures[r["identity_id"], r["sample"]]


def test_an_unreadable_folder_of_a_finished_run_is_refused(tmp_path):
    config = pattern_config(tmp_path / "o", num_identities=2)
    run(config)
    (tmp_path / "o" / artifact.MANIFEST).write_text(json.dumps({"verb": "generate"}))
    with pytest.raises(InputError, match="damaged manifest"):
        run(config)
