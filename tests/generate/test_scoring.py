"""Scoring in the stream: what is measured, what is made again under which key, and what is left out."""

import dataclasses

import numpy as np
import pytest
import yaml
from generate_helpers import files, pattern_config
from pattern_generator import Pattern
from scored import rows_of, scored_config, without_ray, write_people, write_scorer

from synface.core.errors import InputError
from synface.core.rng import derived_seed
from synface.generate import scoring
from synface.generate.config import GenerateConfig
from synface.generate.identities import open_identities, shard_identities
from synface.generate.plan import Item, shard_items
from synface.generate.render import render_shard
from synface.generate.run import plan, run
from synface.generate.scoring import Judge, Score, refusal
from synface.generate.scoring_config import Scoring
from synface.models.embedding import Embedder
from synface.settings import build, config_hash, hashed_fields
from synface.store import images, ledger, schemas, tables
from synface.store.status import status

#: of six people's images about half lie above 0
FILTERS = {"least_similarity": 0.05, "attempts": 4}


def prepared(config):
    """Items of all people, and the judge."""
    described = scoring.describe(config)
    found = open_identities(config, Pattern.describe(config), described)
    identities = shard_identities(Pattern, config, range(found.count), found.columns)
    items = shard_items(config.seed, identities, config.images_per_identity)
    return items, Judge(config, described, found.reference_nd)


def made(config, items, judge):
    return render_shard(Pattern(config), Pattern.describe(config), config, "c" * 64, items, judge)


def test_the_hash_of_a_run_without_scoring_is_pinned():
    """Fields that came later leave the names of finished tables as they were."""
    name = config_hash(hashed_fields(pattern_config("o"), {}))
    assert name == "43e018635dae153cd907fbb95f3f4acc97f0306d865874bb91f73dded108619c"


def test_similarity_is_the_cosine_of_the_stored_image_to_the_inquiry(tmp_path, people, scorer):
    config = scored_config(tmp_path, people, scorer, format="jpeg", quality=40)
    items, judge = prepared(config)
    table, lost = made(config, items, judge)
    assert not lost and table.num_rows == 24
    pixels = np.stack([images.decode(row["bytes"]) for row in table["image"].to_pylist()])
    embedder = Embedder.from_pretrained(scorer, micro_batch=4)
    reference = schemas.embeddings(tables.read_identities(people))
    expected = np.einsum("nd,nd->n", embedder.embed(pixels), reference[table["label"].to_numpy()])
    assert np.abs(table["similarity_inquiry"].to_numpy() - expected).max() < 1e-6
    norm = np.linalg.norm(embedder.features(pixels), axis=1)
    assert np.abs(table["quality"].to_numpy() / norm - 1).max() < 1e-6
    assert set(table["attempt"].to_pylist()) == {0} and table["similarity_other"].null_count == 24
    stated = schemas.metadata_of(table.schema)
    assert stated["scorer_sha256"] == embedder.sha256 and stated["scorer"] == "tiny"
    assert expected.std() > 0.05  # the images do differ


def test_a_refused_image_is_made_again_under_keys_of_its_own(tmp_path, people, scorer):
    config = scored_config(tmp_path, people, scorer, FILTERS)
    items, judge = prepared(config)
    table, lost = made(config, items, judge)
    rows = {(r["identity_id"], r["sample"]): r for r in table.to_pylist()}
    seen = set()
    for item in items:  # naively: one by one, attempt by attempt
        for attempt in range(FILTERS["attempts"]):
            key = (0, item.identity.identity_id, item.sample) + (("attempt", attempt) if attempt else ())
            (sample,) = Pattern(config).render([Item(item.identity, item.sample, key)])
            data = images.encode(sample.pixels, "png", 95, "algorithmicMedia")
            (score,) = judge.measure([data], [item.identity])
            if score.similarity >= FILTERS["least_similarity"]:
                row = rows.pop((item.identity.identity_id, item.sample))
                assert (row["attempt"], row["seed"], row["image"]["bytes"]) == (attempt, derived_seed(*key), data)
                assert row["similarity_inquiry"] == score.similarity
                seen.add(attempt)
                break
        else:
            (entry,) = [f for f in lost if (f["identity_id"], f["sample"]) == (item.identity.identity_id, item.sample)]
            assert entry["refused"] and "refused 4 times, the last time: similarity" in entry["error"]
            seen.add("lost")
    assert not rows and {0, 1, "lost"} <= seen


def test_neighbours_and_order_change_no_row(tmp_path, people, scorer):
    config = scored_config(tmp_path, people, scorer, FILTERS | {"unique_below": 0.5})
    items, judge = prepared(config)
    table, lost = made(config, items, judge)
    whole = {(r["identity_id"], r["sample"]): r for r in table.to_pylist()}
    mixed = [items[i] for i in np.random.default_rng(0).permutation(len(items))]
    again, lost_again = made(config, mixed, judge)
    assert {(r["identity_id"], r["sample"]): r for r in again.to_pylist()} == whole
    assert sorted(map(str, lost)) == sorted(map(str, lost_again))
    alone, _ = made(config, items[5:6], judge)
    assert alone.to_pylist() == [whole[k] for k in [(items[5].identity.identity_id, items[5].sample)] if k in whole]


def test_uniqueness_looks_at_earlier_identities_only(tmp_path, people, scorer, monkeypatch):
    monkeypatch.setattr(scoring, "TILE", 2)
    config = scored_config(tmp_path, people, scorer, {"unique_below": 0.3, "attempts": 1})
    items, judge = prepared(config)
    table, lost = made(config, items, judge)
    reference = schemas.embeddings(tables.read_identities(people)).astype(np.float64)
    embedder = Embedder.from_pretrained(scorer, micro_batch=4)
    for item in items:
        (sample,) = Pattern(config).render([item])
        x = embedder.embed(sample.pixels[None])[0].astype(np.float64)
        label = item.identity.label
        largest = (reference[:label] @ x).max() if label else None
        row = [r for r in table.to_pylist() if (r["label"], r["sample"]) == (label, item.sample)]
        assert bool(row) == (largest is None or largest < 0.3)
        if row and label:
            assert row[0]["similarity_other"] == pytest.approx(largest, abs=1e-6)
    assert lost and all("to another identity, not below 0.3" in f["error"] for f in lost)


def test_copies_of_given_pictures_are_scored_but_never_refused(tmp_path, people, scorer, monkeypatch):
    config = scored_config(tmp_path, people, scorer, {"least_similarity": 1.0, "attempts": 2})
    items, judge = prepared(config)
    one = Pattern.one

    def copied(self, item):
        sample = one(self, item)
        return type(sample)(sample.pixels, sample.attributes, copied=item.sample == 0)

    monkeypatch.setattr(Pattern, "one", copied)
    table, lost = made(config, items, judge)
    assert table["sample"].to_pylist() == [0] * 6 and table["attempt"].to_pylist() == [0] * 6
    assert table["similarity_inquiry"].null_count == 0 and len(lost) == 18


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"least_similarity": 0.5}, "similarity 0.4000 below 0.5"),
        ({"largest_similarity": 0.3}, "similarity 0.4000 above 0.3"),
        ({"unique_below": 0.2}, "similarity 0.2000 to another identity"),
        ({"least_quality": 8.0}, "quality 7.0000 below 8"),
        ({"least_similarity": 0.4, "largest_similarity": 0.4, "unique_below": 0.21, "least_quality": 7.0}, None),
    ],
)
def test_filters(filters, says):
    found = refusal(Score(0.4, 7.0, 0.2), Scoring(weights="x", **filters))
    assert found is None if says is None else says in found


def test_tolerance_holds_on_both_sides_of_the_target():
    scoring = Scoring(weights="x", tolerance=0.1)
    assert refusal(Score(0.4, 7.0), scoring, 0.31) is None and refusal(Score(0.4, 7.0), scoring, 0.49) is None
    assert "similarity 0.4000 further than 0.1 from the asked 0.2900" in str(refusal(Score(0.4, 7.0), scoring, 0.29))
    assert "from the asked 0.5100" in str(refusal(Score(0.4, 7.0), scoring, 0.51))


def test_what_misses_its_target_is_made_again_with_the_same_target(tmp_path, people, scorer, monkeypatch):
    config = scored_config(tmp_path, people, scorer, {"tolerance": 0.15, "attempts": 8})
    items, judge = prepared(config)
    one = Pattern.one

    def aimed(self, item):
        return dataclasses.replace(one(self, item), similarity_target=0.1 * item.sample)

    monkeypatch.setattr(Pattern, "one", aimed)
    table, lost = made(config, items, judge)
    rows = table.to_pylist()
    assert rows and any(r["attempt"] for r in rows) and all("further than 0.15" in f["error"] for f in lost)
    for row in rows:
        assert row["similarity_target"] == pytest.approx(0.1 * row["sample"])
        assert abs(row["similarity_inquiry"] - row["similarity_target"]) <= 0.15 + 1e-6


def test_a_filtered_table_is_finished_and_says_what_is_missing(tmp_path, people, scorer, monkeypatch):
    without_ray(monkeypatch)
    config = scored_config(tmp_path / "o", people, scorer, FILTERS)
    result = run(config)
    assert result["refused"] > 0 and result["failed"] == 0 and result["images"] + result["refused"] == 24
    assert run(config)["cached"]  # the same keys would be refused again
    rows = rows_of(config.output)
    assert min(r["similarity_inquiry"] for r in rows) >= FILTERS["least_similarity"]
    assert status(config.output)["refused"] == result["refused"]
    text = (tmp_path / "o" / "README.md").read_text()
    assert f"refused | {result['refused']} |" in text and result["scorer_sha256"] in text
    assert yaml.safe_load(text.split("---\n")[1])["size_categories"] == ["n<1K"]
    # in another order, and after a death in the middle: the same bytes
    other = scored_config(tmp_path / "p", people, scorer, FILTERS, how={"max_actors": 1, "rounds": 1})
    without_ray(monkeypatch, lambda todo: todo[::-1], limit=1)
    with pytest.raises(KeyboardInterrupt):
        run(other)
    without_ray(monkeypatch)
    run(other)
    assert files(tmp_path / "p") == files(tmp_path / "o")


@pytest.mark.ray
def test_scored_on_the_cluster(ray_cluster, tmp_path, people, scorer, monkeypatch):
    filters = FILTERS | {"unique_below": 0.9}
    how = {"max_actors": 2, "cpus_per_actor": 0.4}
    config = scored_config(tmp_path / "o", people, scorer, filters, how=how, images_per_shard=8)
    run(config)
    without_ray(monkeypatch)
    run(scored_config(tmp_path / "p", people, scorer, filters, images_per_shard=8))
    assert files(tmp_path / "p") == files(tmp_path / "o")
    assert len(ledger.load(config.output)) == 3


def refused(config, match):
    with pytest.raises(InputError, match=match):
        plan(config)


def test_what_cannot_be_scored_is_refused_before_any_work(tmp_path, people, scorer):
    refused(pattern_config("o", scoring={"weights": scorer}, image_size=32), "num_identities has none; give")
    refused(scored_config("o", people, scorer, {"tolerance": 0.1}), "scoring.tolerance: .* give variation.similarity")
    small = write_scorer(tmp_path / "small", size=48)
    refused(scored_config("o", people, small), "takes crops of 48 pixels, image_size is 32")
    other = write_people(tmp_path / "other", scorer, sha="cd" * 32)
    refused(scored_config("o", other, scorer), r"weights cdcdcdcdcdcd\), but the scorer is 'tiny'")
    refused(scored_config("o", people, "arcface"), "unknown pretrained weights")
    few = write_people(tmp_path / "few", scorer, count=4)
    refused(scored_config("o", people, scorer, {"references": few}), "no identity 'p4', nor 1 others")


def test_references_may_be_another_table(tmp_path, people, scorer):
    """A judge that the generator does not know: its own embeddings of the same people."""
    judge_weights = write_scorer(tmp_path / "judge", seed=9)
    references = write_people(tmp_path / "refs", judge_weights, count=8)
    config = scored_config(tmp_path / "o", people, judge_weights, {"references": references})
    items, judge = prepared(config)
    table, _ = made(config, items, judge)
    assert table["similarity_inquiry"].null_count == 0
    assert np.allclose(items[0].identity.reference, schemas.embeddings(tables.read_identities(references))[0])


@pytest.mark.parametrize(
    ("scoring_fields", "match"),
    [
        ({"least_similarity": 0.3}, "give scoring.weights"),
        ({"weights": "x", "attempts": 5}, "nothing is tried again without a filter"),
        ({"weights": "x", "least_similarity": 0.5, "largest_similarity": 0.4}, "is above largest_similarity"),
        ({"weights": "x", "least_similarity": 1.5}, "least_similarity = 1.5"),
        ({"weights": "x", "least_similarity": 0.5, "attempts": 0}, "attempts = 0"),
    ],
)
def test_refused_fields(scoring_fields, match):
    with pytest.raises(InputError, match=match):
        build(GenerateConfig, {"output": "o", "num_identities": 3, "scoring": scoring_fields})
