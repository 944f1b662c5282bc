import json

import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.embed import means, run, sources
from synface.embed.config import EmbedConfig
from synface.models import recognizers, weights
from synface.models.embedding import Embedder
from synface.settings import build
from synface.store import artifact, images, tables
from synface.store.schemas import embeddings
from tests.train.conftest import pixels, write_toy

SIZE = 32


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory) -> str:
    torch.manual_seed(4)
    module = recognizers.build("tiny", 16, SIZE)
    module(torch.rand(32, 3, SIZE, SIZE) * 2 - 1)
    folder = str(tmp_path_factory.mktemp("weights"))
    config = weights.WeightsConfig("tiny", 16, SIZE, licence="none", training_data="none: random numbers")
    weights.save_pretrained(folder, module.eval(), config)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> str:
    return write_toy(str(tmp_path_factory.mktemp("toy") / "images"), identities=5, per_identity=4, shard=6)


def config_of(images_uri: str, output, recognizer: str, **changes) -> EmbedConfig:
    fields = {"images": images_uri, "output": str(output), "weights": recognizer, "numerics": {"micro_batch": 8}}
    return build(EmbedConfig, fields | changes)


def naive(recognizer: str, samples: int = 4, flip: bool = False) -> np.ndarray:
    """One picture at a time through the embedder; mean of unit rows, renormalised."""
    embedder = Embedder.from_pretrained(recognizer, threads=1, micro_batch=8)
    means_nd = []
    for i in range(5):
        rows = [embedder.embed(pixels(i, k, SIZE)[None], flip)[0].astype(np.float64) for k in range(samples)]
        mean = sum(rows)
        means_nd.append(mean / np.linalg.norm(mean))
    return np.array(means_nd)


@pytest.mark.ray
def test_identities_are_the_mean_directions(ray_cluster, toy, recognizer, tmp_path):
    config = config_of(toy, tmp_path / "out", recognizer)
    result = run.run(config)
    assert (result["identities"], result["images"], result["cached"]) == (5, 20, False)
    table = tables.read_identities(config.output, dim=16)
    assert table["identity_id"].to_pylist() == [f"toy-{i:03d}" for i in range(5)]
    assert table["seed"].to_pylist() == [1000 + i for i in range(5)]
    assert set(table["source"].to_pylist()) == {"heads-real"}
    np.testing.assert_allclose(embeddings(table), naive(recognizer), atol=1e-6)
    metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    assert metadata["embedder_sha256"] == weights.read_config(recognizer).sha256
    assert metadata["crop"] == "arcface-five-point 32"
    again = run.run(config)
    assert again["cached"] and again["identities"] == 5


@pytest.mark.ray
def test_similarities_to_the_mean_stand_beside_the_table(ray_cluster, toy, recognizer, tmp_path):
    config = config_of(toy, tmp_path / "out", recognizer, similarities=True)
    run.run(config)
    plain = config_of(toy, tmp_path / "plain", recognizer)
    run.run(plain)
    kept = [f.sha256 for f in artifact.require(plain.output).files]
    assert kept == [f.sha256 for f in artifact.require(config.output).files if f.path == tables.IDENTITIES_FILE]
    assert tables.read_identities(config.output).equals(tables.read_identities(plain.output))
    identity, similarity, digest = tables.read_similarities(config.output)
    assert identity.tolist() == [f"toy-{i:03d}" for i in range(5) for _ in range(4)]
    assert digest == artifact.content_digest(toy)
    embedder = Embedder.from_pretrained(recognizer, threads=1, micro_batch=8)
    x = np.array([embedder.embed(pixels(i, k, SIZE)[None])[0] for i in range(5) for k in range(4)])
    np.testing.assert_allclose(similarity, (x * naive(recognizer).repeat(4, 0)).sum(1), atol=1e-6)
    with pytest.raises(InputError, match=r"no similarities\.parquet"):
        tables.read_similarities(plain.output)


def test_similarities_are_those_of_all_images_of_a_table(toy, recognizer, tmp_path):
    with pytest.raises(InputError, match="leave images_per_identity out"):
        config_of(toy, tmp_path / "out", recognizer, similarities=True, images_per_identity=2)
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "a.png").write_bytes(images.encode(pixels(0, 0, SIZE), "png", 0, "algorithmicMedia"))
    with pytest.raises(InputError, match="no finished synface result stands there"):
        run.plan(config_of(str(folder), tmp_path / "out", recognizer, similarities=True))


@pytest.mark.ray
def test_actors_limits_and_kept_parts_change_no_bit(ray_cluster, toy, recognizer, tmp_path):
    one = config_of(toy, tmp_path / "one", recognizer, images_per_identity=2, how={"actors": 1})
    two = config_of(toy, tmp_path / "two", recognizer, images_per_identity=2, how={"actors": 3})
    run.run(one)
    # as if a run had been killed after its first part
    source = sources.open_source(toy)
    embedder = Embedder.from_pretrained(recognizer, threads=1, micro_batch=8)
    artifact.open_output(two, {"images": source.digest, "weights": embedder.sha256})
    pictures = [p for p in sources.read_part(source.parts[0]) if p.sample < 2]
    rows = embedder.embed(np.stack(sources.decode_all(pictures, SIZE)))
    kept = run.distributed.Embedded(
        [p.identity_id for p in pictures],
        np.array([p.sample for p in pictures]),
        np.array([p.seed for p in pictures]),
        [p.source for p in pictures],
        rows,
    )
    run.save_part(two.output, 0, source.parts[0], kept)
    run.run(two)
    for name in (tables.IDENTITIES_FILE, artifact.MANIFEST):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    np.testing.assert_allclose(embeddings(tables.read_identities(one.output)), naive(recognizer, samples=2), atol=1e-6)
    assert not list((tmp_path / "two").rglob("*.npz"))


@pytest.mark.ray
def test_folders_of_pictures(ray_cluster, recognizer, tmp_path):
    for i in range(5):
        for k in range(4):
            path = tmp_path / "nested" / f"person-{i}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.encode(pixels(i, k, SIZE), "png", 0, "algorithmicMedia"))
    config = config_of(str(tmp_path / "nested"), tmp_path / "out", recognizer)
    assert run.plan(config)["images"] == 20
    run.run(config)
    table = tables.read_identities(config.output)
    assert table["identity_id"].to_pylist() == [f"person-{i}" for i in range(5)]
    np.testing.assert_allclose(embeddings(table), naive(recognizer), atol=1e-6)


def test_flat_folders_and_mixed_ones(tmp_path):
    data = images.encode(pixels(0, 0, SIZE), "png", 0, "algorithmicMedia")
    for name in ("b.png", "a.jpg"):
        (tmp_path / name).write_bytes(data)
    source = sources.open_source(str(tmp_path))
    assert [p.identity_id for p in sources.read_part(source.parts[0])] == ["a", "b"]
    before = source.digest
    (tmp_path / "c.png").write_bytes(data)
    assert sources.open_source(str(tmp_path)).digest != before
    (tmp_path / "id").mkdir()
    (tmp_path / "id" / "x.png").write_bytes(data)
    with pytest.raises(InputError, match="one subfolder per identity"):
        sources.open_source(str(tmp_path))


def test_means_by_hand():
    rows = means.first_samples(["b", "a", "b", "b"], np.array([5, 0, 1, 1]), 2)
    assert {k: v.tolist() for k, v in rows.items()} == {"a": [1], "b": [2, 3]}
    x = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], np.float32)
    expected = np.array([1.6, 0.8]) / np.hypot(1.6, 0.8)
    np.testing.assert_allclose(means.identity_means(x, rows), [[0, 1], expected], atol=1e-7)


@pytest.mark.parametrize("bad", [np.array([[1, 0], [-1, 0]]), np.array([[np.nan, 0], [1, 0]])])
def test_identities_without_a_mean_direction_are_refused(bad):
    with pytest.raises(InputError, match=r"identity 'x'.*no mean direction"):
        means.identity_means(bad.astype(np.float32), {"x": np.array([0, 1])})


def test_missing_input_and_weights(tmp_path, toy, recognizer):
    with pytest.raises(InputError, match="nothing stands there"):
        run.run(config_of(str(tmp_path / "none"), tmp_path / "out", recognizer))
    with pytest.raises(InputError, match="unknown pretrained weights"):
        run.run(config_of(toy, tmp_path / "out", "heads-fr-huge"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures below it"):
        run.run(config_of(str(tmp_path / "empty"), tmp_path / "out", recognizer))


@pytest.mark.ray
def test_pictures_of_another_size_and_damaged_ones_are_named(ray_cluster, recognizer, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(images.encode(pixels(0, 0, 64), "png", 0, "algorithmicMedia"))
    with pytest.raises(InputError, match=r"a\.png: 64x64 pixels, these weights take 32x32"):
        run.run(config_of(str(folder), tmp_path / "out", recognizer))
    (folder / "a.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        run.run(config_of(str(folder), tmp_path / "other", recognizer))
    assert not (tmp_path / "other" / artifact.MANIFEST).exists()


def test_plan_touches_nothing(toy, recognizer, tmp_path):
    plan = run.plan(config_of(toy, tmp_path / "out", recognizer))
    assert (plan["images"], plan["parts"], plan["image_size"]) == (20, 4, SIZE)
    assert not (tmp_path / "out").exists()
    assert json.dumps(plan)
