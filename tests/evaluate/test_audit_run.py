"""The verb audit through Ray, on blobs of which some are leaked on purpose."""

import io
import json

import numpy as np
import pytest
from blobs import SIZE, blob, png
from PIL import Image
from report_runs import commit, make_images

from synface.core.errors import InputError
from synface.core.sphere import nearest_cosine, uniform
from synface.evaluate import audit_run as stage
from synface.evaluate import distributed
from synface.evaluate.audit_config import AuditConfig
from synface.settings import build
from synface.store import artifact, card, schemas, tables

PEOPLE, PICTURES = 6, 4


def config(output, weights, **fields):
    data = {"output": str(output), "weights": weights, **fields}
    data["how"] = {"embeddings_gb": 0, **fields.get("how", {})}  # earlier runs of the tests leave nothing
    return build(AuditConfig, data)


def picture(offset):
    return lambda i, k: png(blob(offset + i, k))


@pytest.fixture(scope="module")
def tables_of(tmp_path_factory):
    """A dataset whose identity 2 are pictures of reference person 3, and which holds one picture twice."""
    root = tmp_path_factory.mktemp("audit")

    def synthetic(i, k):
        if i == 2:
            return png(blob(503, 10 + k))
        return png(blob(i, 0 if (i, k) == (0, 1) else k))

    names = [f"person-{i}" for i in range(PEOPLE)]
    images = make_images(root / "images", PEOPLE, PICTURES, synthetic, names)
    reference = make_images(root / "reference", PEOPLE, PICTURES, picture(500))
    x = uniform(np.random.default_rng(0), PEOPLE, 64)
    table = schemas.identities_table(names, x, ["s"] * PEOPLE, list(range(PEOPLE)))
    entry = tables.write_identities(str(root / "identities"), table)
    identities = commit(root / "identities", "identities", [entry], {"num_identities": PEOPLE})
    return {"images": images, "reference": reference, "identities": identities}


def mean_colours(images):
    return images.reshape(len(images), -1, 3).mean(1)


@pytest.mark.ray
def test_audit_finds_the_leaked_person(ray_cluster, tmp_path, random_weights, tables_of):
    output = tmp_path / "o"
    asked = config(output, random_weights, leak_far=0.05, worst_pairs=4, style=f"{__name__}:mean_colours", **tables_of)
    result = stage.run(asked)
    leak = result["leakage"]
    assert leak["threshold_rule"] == "FAR 0.05 among the reference people"
    table = tables.parse_parquet((output / "data/leaks.parquet").read_bytes(), "leaks")
    assert set(table["identity_id"].to_pylist()) == {"person-2"}
    assert set(table["reference_identity_id"].to_pylist()) == {"heads-real-3"}
    cosine = table["cosine"].to_pylist()
    assert cosine == sorted(cosine, reverse=True)
    assert leak["leaking_samples"] >= PICTURES
    assert result["duplicate_images"] == 1
    assert result["images"] == PEOPLE * PICTURES
    with Image.open(io.BytesIO((output / "worst_pairs.png").read_bytes())) as sheet:
        assert sheet.size == (5 * 200 + 8, 96 + 16)
    assert 0 < result["uniqueness"] <= 1
    x = schemas.embeddings(tables.read_identities(tables_of["identities"]))
    assert result["promised_max_cosine"] == pytest.approx(nearest_cosine(x)[0].max())
    assert result["similarity"]["to"] == "identity's embedding"
    assert json.loads((output / "audit.json").read_text())["uniqueness"] == result["uniqueness"]
    assert result["frechet_distance"] > 0
    assert result["style"]["extractor"] == asked.style
    assert result["style"]["frechet_distance"] > 0 and 0 <= result["style"]["diversity"] <= 1
    again = stage.run(asked)
    assert again["cached"]
    assert again["leakage"] == leak
    images = artifact.require(tables_of["images"])
    line = card.leakage_text(str(output), images)
    assert line.startswith(
        f"{leak['leaking_samples']} of {PEOPLE * PICTURES} samples ({leak['leaking_identities']} ident"
    )
    assert f"cosine {leak['threshold_cosine']:.4f} (FAR 0.05 among" in line and "24 images of 6 people" in line
    with pytest.raises(InputError, match=r"of a table with content .* audit it as it is now"):
        card.leakage_text(str(output), artifact.require(tables_of["reference"]))


@pytest.mark.ray
def test_same_bytes_for_any_number_of_actors(ray_cluster, tmp_path, random_weights, tables_of):
    for count in (1, 2):
        stage.run(config(tmp_path / str(count), random_weights, images=tables_of["images"], how={"actors": count}))
    one, two = ((tmp_path / str(n) / "audit.json").read_bytes() for n in (1, 2))
    assert one == two


@pytest.mark.ray
def test_kept_embeddings_give_the_same_bytes_and_are_not_made_again(
    ray_cluster, tmp_path, random_weights, tables_of, monkeypatch
):
    def audit(name, gb, **fields):
        how = {"cache": str(tmp_path / "cache"), "embeddings_gb": gb, "actors": 1}
        stage.run(config(tmp_path / name, random_weights, images=tables_of["images"], how=how, **fields))
        return (tmp_path / name / "audit.json").read_bytes()

    made = audit("made", 1)
    kept = list((tmp_path / "cache" / "embeddings").glob("*.embedding"))
    assert len(kept) == len(list(tables.listed_files(tables_of["images"])))  # one a shard
    assert made == audit("without", 0)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "EmbedPool", lambda *_: pytest.fail("embedded again"))
        assert made == audit("again", 1)
        audit("other-question", 1, r=0.4)
        with pytest.raises(pytest.fail.Exception, match="embedded again"):
            audit("other-embeddings", 1, flip=True)


@pytest.mark.ray
def test_distributed_search_equals_the_plain_one(ray_cluster):
    x, y = (uniform(np.random.default_rng(s), n, 8) for s, n in ((0, 103), (1, 57)))
    cosine, index = distributed.nearest_reference(x, y, block=20)
    expected = x @ y.T
    np.testing.assert_array_equal(index, expected.argmax(1))
    np.testing.assert_allclose(cosine, expected.max(1), atol=1e-6)


def test_refusals_before_any_work(tmp_path, random_weights, tables_of, monkeypatch):
    monkeypatch.setattr(distributed, "EmbedPool", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError, match="holds 'identities', expected 'images'"):
        stage.run(config(tmp_path / "a", random_weights, images=tables_of["identities"]))
    lonely = make_images(tmp_path / "lonely", 1, 3, picture(0))
    with pytest.raises(InputError, match="3 images of 1 identities; an audit needs two identities"):
        stage.run(config(tmp_path / "b", random_weights, images=lonely))
    other = make_images(tmp_path / "other", 2, 2, picture(0), ["nobody", "no one"])
    with pytest.raises(InputError, match=r"has no identity 'nobody' \(2 of 2 are missing\)"):
        stage.run(config(tmp_path / "c", random_weights, images=other, identities=tables_of["identities"]))
    with pytest.raises(InputError, match="leak_cosine needs a reference"):
        config(tmp_path / "e", random_weights, images="x", leak_cosine=0.5)


@pytest.mark.ray
def test_a_broken_image_is_named(ray_cluster, tmp_path, random_weights):
    broken = make_images(tmp_path / "broken", 2, 2, lambda i, k: b"no image")
    with pytest.raises(InputError, match=r"broken.*image 0.*cannot be decoded"):
        stage.run(config(tmp_path / "d", random_weights, images=broken))
    assert artifact.load_manifest(str(tmp_path / "d")) is None


def test_separability_is_the_mean_distance_of_different_centres():
    x = uniform(np.random.default_rng(3), 9, 5)
    i, j = np.triu_indices(9, 1)
    assert stage._separability(x) == pytest.approx(np.mean(1 - (x @ x.T)[i, j]), abs=1e-6)


def test_picture_sheet_places_pairs():
    red, blue = (np.full((SIZE, SIZE, 3), c, np.uint8) for c in ((255, 0, 0), (0, 0, 255)))
    with Image.open(io.BytesIO(stage.picture_sheet([(png(red), png(blue))], columns=1))) as sheet:
        assert sheet.getpixel((20, 20)) == (255, 0, 0)
        assert sheet.getpixel((120, 20)) == (0, 0, 255)


def test_plan(random_weights, tables_of, tmp_path):
    plan = stage.plan(config(tmp_path / "o", random_weights, **tables_of))
    n = PEOPLE * PICTURES
    assert plan["pairs"] == n * (n - 1) // 2 + n * n
