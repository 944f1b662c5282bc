"""Growing a finished table, packing it into larger files, and reading what stood before."""

import pytest
from generate_helpers import files, pattern_config
from pattern_generator import Pattern
from scored import rows_of, scored_config, without_ray, write_people

from synface.core.errors import InputError, PartialError
from synface.generate.plan import Part, ShardPlan, plan_shards
from synface.generate.run import run
from synface.store import artifact, ledger, tables
from synface.store import uri as uris
from synface.store.clean import clean
from synface.store.compact import compact
from synface.store.export import export
from synface.store.status import status
from synface.store.verify import verify


@pytest.fixture(autouse=True)
def here(monkeypatch):
    without_ray(monkeypatch)


def more(output, **fields):
    """12 x 4 images and what `fields` add to them."""
    return pattern_config(output, **fields, how={"append": True})


def pictures(uri):
    return {(r["identity_id"], r["sample"]): {k: v for k, v in r.items() if k != "config_hash"} for r in rows_of(uri)}


def data_files(root):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (root / "data").iterdir()}


@pytest.mark.parametrize(
    "growth", [{"num_identities": 15}, {"images_per_identity": 6}, {"num_identities": 15, "images_per_identity": 6}]
)
def test_a_grown_table_holds_what_one_made_at_once_holds(tmp_path, growth):
    first = pattern_config(tmp_path / "o")
    run(first)
    before, old = data_files(tmp_path / "o"), artifact.require(first.output)
    result = run(more(tmp_path / "o", **growth))
    run(pattern_config(tmp_path / "p", **growth))
    assert pictures(first.output) == pictures(str(tmp_path / "p")) and result["version"] == 2
    # nothing was made again or moved, and readers of the old manifest find what it lists
    after = data_files(tmp_path / "o")
    assert {name: after[name] for name in before} == before
    assert artifact.earlier_versions(first.output) == {1: old}
    assert all(tables.read_listed(first.output, f) for f in old.files)
    assert verify(first.output)["exit_code"] == 0 and clean(first.output, min_age_hours=0)["removed"] == []
    # the same command, the old command: nothing to do
    assert run(more(tmp_path / "o", **growth))["cached"] and run(first)["cached"]
    assert run(first)["images"] == 48
    assert run(pattern_config(tmp_path / "o", **growth))["images"] == result["images"]


def test_growing_twice(tmp_path):
    run(pattern_config(tmp_path / "o"))
    run(more(tmp_path / "o", num_identities=14))
    run(more(tmp_path / "o", num_identities=14, images_per_identity=5))
    result = run(more(tmp_path / "o", num_identities=17, images_per_identity=5))
    assert result["version"] == 4 and result["images"] == 85
    run(pattern_config(tmp_path / "p", num_identities=17, images_per_identity=5))
    assert pictures(str(tmp_path / "o")) == pictures(str(tmp_path / "p"))
    hashes = {r["config_hash"] for r in rows_of(str(tmp_path / "o"))}
    assert hashes == {m.config_hash for m in artifact.earlier_versions(str(tmp_path / "o")).values()} | {
        artifact.require(str(tmp_path / "o")).config_hash
    }


def test_a_killed_append_continues_and_the_old_table_stands_meanwhile(tmp_path, monkeypatch):
    growth = {"num_identities": 20, "images_per_identity": 6}
    for name in ("o", "p"):
        run(pattern_config(tmp_path / name))
    old = pictures(str(tmp_path / "o"))
    without_ray(monkeypatch, lambda todo: todo[::-1], limit=2)
    with pytest.raises(KeyboardInterrupt):
        run(more(tmp_path / "o", **growth))
    assert pictures(str(tmp_path / "o")) == old and status(str(tmp_path / "o"))["state"] == "growing"
    assert run(pattern_config(tmp_path / "o"))["cached"]
    without_ray(monkeypatch)
    run(pattern_config(tmp_path / "o", **growth))  # the plan stands: append need not be said again
    run(more(tmp_path / "p", **growth))
    assert files(tmp_path / "o") == files(tmp_path / "p")
    assert status(str(tmp_path / "o"))["state"] == "finished"


def test_a_damaged_shard_of_an_earlier_version_is_made_again_to_the_same_bytes(tmp_path):
    run(pattern_config(tmp_path / "o"))
    config = more(tmp_path / "o", num_identities=15)
    run(config)
    before = files(tmp_path / "o")
    (tmp_path / "o" / ledger.load(config.output)[1].path).write_bytes(b"short")
    assert verify(config.output, repair=True)["exit_code"] == 1
    run(config)
    assert files(tmp_path / "o") == before


@pytest.mark.parametrize("referenced", [False, True])
def test_identities_of_a_table_grow_behind_the_old_ones(tmp_path, people, scorer, referenced):
    filters = {"unique_below": 0.6, "least_similarity": -0.2}
    run(scored_config(tmp_path / "o", people, scorer, filters | ({"references": people} if referenced else {})))
    longer = write_people(tmp_path / "longer", scorer, count=9)
    filters |= {"references": longer} if referenced else {}
    grown = scored_config(tmp_path / "o", longer, scorer, filters, how={"append": True})
    result = run(grown)
    run(scored_config(tmp_path / "p", longer, scorer, filters))
    assert result["identities"] == 9 and pictures(grown.output) == pictures(str(tmp_path / "p"))
    swapped = write_people(tmp_path / "swapped", scorer, count=9)
    table = tables.read_identities(swapped).take([1, 0, *range(2, 9)])
    uris.write_bytes(str(tmp_path / "swapped.parquet"), tables.parquet_bytes(table))
    with pytest.raises(InputError, match=r"the first 9 rows of .* are not the identities"):
        run(grown.model_copy(update={"identities": str(tmp_path / "swapped.parquet")}))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"num_identities": 11}, "holds 12 identities x 4 images, asked are 11 x 4; a table only grows"),
        ({"images_per_identity": 3, "num_identities": 20}, "asked are 20 x 3"),
        ({"num_identities": 15, "seed": 1}, r"fields\.seed"),
        ({"num_identities": 15, "quality": 80}, r"fields\.quality"),
    ],
)
def test_what_is_no_growth_is_refused(tmp_path, fields, match):
    run(pattern_config(tmp_path / "o"))
    before = files(tmp_path / "o")
    with pytest.raises(InputError, match=match):
        run(more(tmp_path / "o", **fields))
    assert files(tmp_path / "o") == before


def test_growth_is_asked_for_and_follows_a_finished_version(tmp_path, monkeypatch):
    without_ray(monkeypatch, limit=1)
    with pytest.raises(KeyboardInterrupt):
        run(pattern_config(tmp_path / "o"))
    with pytest.raises(InputError, match="is not finished; run its own command to the end"):
        run(more(tmp_path / "o", num_identities=15))
    without_ray(monkeypatch)
    run(pattern_config(tmp_path / "o"))
    with pytest.raises(InputError, match="another configuration"):
        run(pattern_config(tmp_path / "o", num_identities=15))
    assert run(more(tmp_path / "p"))["images"] == 48  # nothing there yet: a first version


def test_a_damaged_plan_is_told(tmp_path):
    run(pattern_config(tmp_path / "o"))
    run(more(tmp_path / "o", num_identities=15))
    place = tmp_path / "o" / artifact.PLAN
    place.write_text(place.read_text().replace('"parts":[[0,', '"parts":[[-1,'))
    with pytest.raises(InputError, match="damaged plan"):
        run(more(tmp_path / "o", num_identities=15))


def test_a_plan_of_parts_covers_every_image_once():
    first = plan_shards(10, 4, 12, 2048).named("a")
    second = plan_shards(13, 7, 12, 2048, first).named("b")
    asked = [
        (label, k, shard.config_hash)
        for shard in map(second.shard, range(second.shards))
        for label in shard.labels
        for k in shard.samples
    ]
    assert len(asked) == len({a[:2] for a in asked}) == second.images == 13 * 7
    assert {a[2] for a in asked if a[0] < 10 and a[1] < 4} == {"a"} and second.shard(0) == first.shard(0)
    assert ShardPlan(tuple(Part.from_list(p.as_list()) for p in second.parts)) == second


def test_compaction_sorts_keeps_bytes_and_stands_for_the_shards(tmp_path):
    config = more(tmp_path / "o", images_per_identity=6, num_identities=15)
    run(pattern_config(tmp_path / "o"))
    run(config)
    rows = rows_of(config.output)
    with pytest.raises(InputError, match="synface compact"):
        export(config.output, "recordio", str(tmp_path / "unsorted"))
    found = compact(config.output, images_per_file="40")
    assert (found["files"], found["cached"]) == (3, False) and compact(config.output)["cached"]
    assert rows_of(config.output) == sorted(rows, key=lambda r: (r["label"], r["sample"]))
    sizes = [f.rows for f in artifact.require(config.output).files]
    assert sum(sizes) == 90 and min(sizes[:-1]) >= 40 and all(size % 6 == 0 for size in sizes)
    export(config.output, "recordio", str(tmp_path / "rec"))
    # earlier versions stand until they are removed; the shards' own files are then not missed
    assert len(artifact.earlier_versions(config.output)) == 2 and clean(config.output, 0)["removed"] == []
    removed = clean(config.output, min_age_hours=0, earlier_versions="true")["removed"]
    assert len([p for p in removed if p.startswith("data/train-")]) == len(ledger.load(config.output))
    assert verify(config.output)["exit_code"] == 0 and run(config)["cached"]
    # and it grows on: only the new shards are made
    result = run(more(tmp_path / "o", images_per_identity=6, num_identities=16))
    assert result["images"] == 96 and len(rows_of(config.output)) == 96
    assert len([p for p in (tmp_path / "o" / "data").iterdir() if p.name.startswith("train-")]) == 1
    assert compact(config.output)["files"] == 1 and len(rows_of(config.output)) == 96


def test_a_damaged_compacted_file_is_made_again_from_its_shards(tmp_path):
    config = pattern_config(tmp_path / "o")
    run(config)
    before = pictures(config.output)
    compact(config.output)
    clean(config.output, min_age_hours=0, earlier_versions=True)
    (file,) = (tmp_path / "o" / "data").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert verify(config.output, repair="true")["exit_code"] == 1
    assert not run(config)["cached"] and pictures(config.output) == before
    assert verify(config.output)["exit_code"] == 0


def test_a_shard_that_is_tried_again_dissolves_the_compacted_file(tmp_path, monkeypatch):
    """Its rows stand among those of shards whose own files are gone: all are made again, none is lost."""
    bad = pattern_config(tmp_path / "o", options={"bad_samples": [[5, 2]]})
    with pytest.raises(PartialError):
        run(bad)
    compact(bad.output)
    clean(bad.output, min_age_hours=0, earlier_versions=True)
    monkeypatch.setattr(Pattern, "render", lambda self, items: [self.one(item) for item in items])
    assert run(bad)["images"] == 48 and verify(bad.output)["exit_code"] == 0
    assert len(rows_of(bad.output)) == 48 and len(ledger.load(bad.output)) == 3
