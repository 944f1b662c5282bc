"""The verb evaluate on a verification pack, through Ray, against a plain loop."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from synface.core import crops, scores
from synface.core.errors import InputError
from synface.evaluate import face_folder
from synface.evaluate import run as stage
from synface.evaluate.config import EvaluateConfig
from synface.models import weights
from synface.settings import build
from synface.store import artifact, tables
from synface.store.formats import verification_bin


def config(output, weights_uri, pack, **fields):
    data = {"output": str(output), "weights": weights_uri, "benchmarks": [pack], **fields}
    data["how"] = {"embeddings_gb": 0, **fields.get("how", {})}  # earlier runs of the tests leave nothing
    return build(EvaluateConfig, data)


def naive_embeddings(folder, pack):
    """One image at a time: decode, embed it and its mirror image, add, normalise."""
    module, _ = weights.from_pretrained(folder)
    rows = []
    with torch.inference_mode():
        for data in verification_bin.read_pack(pack).encoded:
            image = verification_bin.decode_image(data, "x")
            pair = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
            x = torch.from_numpy(crops.to_network(np.stack([np.asarray(i) for i in pair])))
            total = module(x).double().sum(0).numpy()
            rows.append(total / np.linalg.norm(total))
    return np.array(rows)


@pytest.fixture(scope="module")
def evaluated(ray_cluster, tmp_path_factory, random_weights, blob_pack):
    output = tmp_path_factory.mktemp("evaluation") / "out"
    return output, stage.run(config(output, random_weights, blob_pack))


@pytest.mark.ray
def test_numbers_equal_a_plain_loop(evaluated, random_weights, blob_pack):
    output, result = evaluated
    x = naive_embeddings(random_weights, blob_pack)
    same = verification_bin.read_pack(blob_pack).same_n
    expected = scores.fold_accuracy(scores.squared_distance(x[0::2], x[1::2]), same)
    assert not result["cached"]
    assert result["accuracy"] == {"blobs/verification": expected.accuracy}
    table = tables.parse_parquet((output / "data/scores.parquet").read_bytes(), "scores")
    np.testing.assert_allclose(table["cosine"].to_numpy(), (x[0::2] * x[1::2]).sum(1), atol=1e-5)
    assert table["same"].to_pylist() == same.tolist()
    numbers = json.loads((output / "results.json").read_text())
    row = numbers["results"]["blobs"]["verification"]
    assert row["accuracy"] == numbers["average"]["all"]["accuracy"] == expected.accuracy
    assert row["auc"] == pytest.approx(scores.auc((x[0::2] * x[1::2]).sum(1), same), abs=1e-3)
    assert numbers["recognizer"]["sha256"] == weights.read_config(random_weights).sha256
    roc = tables.parse_parquet((output / "data/roc.parquet").read_bytes(), "roc")
    assert np.trapezoid(roc["tar"].to_numpy(), roc["far"].to_numpy()) == pytest.approx(row["auc"])


@pytest.mark.ray
def test_finished_output_answers_at_once_and_files_are_listed(evaluated, random_weights, blob_pack, monkeypatch):
    output, result = evaluated
    monkeypatch.setattr(stage.distributed, "EmbedPool", lambda *_: pytest.fail("embedded again"))
    again = stage.run(config(output, random_weights, blob_pack))
    assert again["cached"]
    assert again["accuracy"] == result["accuracy"]
    manifest = artifact.require(str(output), "evaluation")
    assert sorted(f.path for f in manifest.files) == ["data/roc.parquet", "data/scores.parquet", "results.json"]
    assert "seconds" not in json.dumps(manifest.numbers)


@pytest.mark.ray
def test_same_bytes_for_every_how_field_and_place(evaluated, tmp_path, random_weights, blob_pack, ray_cluster):
    output, _ = evaluated
    moved = tmp_path / "blobs.bin"
    shutil.copy(blob_pack, moved)
    other = config(tmp_path / "o", random_weights, str(moved), how={"actors": 1, "cache": str(tmp_path)})
    stage.run(other)
    for name in ("results.json", "data/scores.parquet", "data/roc.parquet", "_synface/manifest.json"):
        assert (tmp_path / "o" / name).read_bytes() == (output / name).read_bytes(), name


def test_another_question_at_the_same_output_is_refused(evaluated, random_weights, blob_pack):
    output, _ = evaluated
    with pytest.raises(InputError, match=r"another configuration(.|\n)*far_rule"):
        stage.run(config(output, random_weights, blob_pack, far_rule="nearest"))


def test_another_content_under_the_same_name_is_another_question(evaluated, tmp_path, random_weights, blob_pack):
    output, _ = evaluated
    pack = verification_bin.read_pack(blob_pack)
    changed = tmp_path / "blobs.bin"
    verification_bin.write_pack(str(changed), pack.encoded[::-1], pack.same_n)
    with pytest.raises(InputError, match=r"another configuration(.|\n)*benchmarks"):
        stage.run(config(output, random_weights, str(changed)))


def test_plan_says_sizes(random_weights, blob_pack, tmp_path):
    plan = stage.plan(config(tmp_path / "o", random_weights, blob_pack))
    assert plan["benchmarks"]["blobs"]["pairs"] == 60
    assert plan["forward_passes"] == 240
    cold = {"how": {"cache": str(tmp_path)}, "benchmarks": ["heads-val/mixed", "heads-v1/lookalike"]}
    plan = stage.plan(config(tmp_path / "o", random_weights, blob_pack, **cold))
    assert plan["benchmarks"]["heads-val"]["images_to_render"] == 4800
    assert plan["benchmarks"]["heads-v1"]["images_to_render"] == 1200
    assert not (tmp_path / "o").exists()


def test_missing_things_are_named(random_weights, blob_pack, tmp_path):
    with pytest.raises(InputError, match="unknown pretrained weights 'heads-fr-huge'"):
        stage.run(config(tmp_path / "o", "heads-fr-huge", blob_pack))
    other = tmp_path / "other-architecture"
    shutil.copytree(random_weights, other)
    stated = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(stated | {"architecture": "r18"}))
    with pytest.raises(InputError, match=r"weights of another architecture; first differing keys:\n  conv1\.weight"):
        stage.run(config(tmp_path / "o", str(other), blob_pack))
    with pytest.raises(InputError, match=r"none\.bin: cannot be read"):
        stage.run(config(tmp_path / "o", random_weights, str(tmp_path / "none.bin")))
    assert not (tmp_path / "o").exists()


class Hostile:
    def __reduce__(self):
        return (open, ("/tmp/synface-must-not-exist", "w"))


@pytest.mark.ray
def test_the_gap_to_a_real_evaluation_and_statistics_over_groups(evaluated, tmp_path, random_weights, blob_pack):
    real, result = evaluated
    pack = verification_bin.read_pack(blob_pack)
    half = tmp_path / "half.bin"
    verification_bin.write_pack(str(half), pack.encoded[:60], pack.same_n[:30])
    benchmarks = [blob_pack, str(half)]
    groups = {"parts": ["blobs", "half"]}
    asked = config(tmp_path / "o", random_weights, blob_pack, benchmarks=benchmarks, real=str(real), groups=groups)
    accuracy = stage.run(asked)["accuracy"]
    content = json.loads((tmp_path / "o" / "results.json").read_text())
    gap = content["gap_to_real"]
    assert gap["blobs/verification"]["points"] == 0
    assert gap["average"]["real"] == 100 * result["accuracy"]["blobs/verification"]
    assert set(gap) == {"blobs/verification", "average"}
    values = np.array(list(accuracy.values()))
    assert content["groups"]["parts"]["mean"] == pytest.approx(values.mean())
    assert content["groups"]["parts"]["std"] == pytest.approx(values.std())


def test_groups_name_benchmarks(random_weights, blob_pack, tmp_path):
    with pytest.raises(InputError, match=r"groups\.rfw = \['blobs', 'asian'\]: at least two .*: blobs"):
        config(tmp_path, random_weights, blob_pack, groups={"rfw": ["blobs", "asian"]})


def test_a_hostile_pack_is_refused_before_anything_is_written(random_weights, tmp_path):
    path = tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(([Hostile()] * 20, [True, False] * 5)))
    with pytest.raises(InputError, match=r"evil\.bin: refused"):
        stage.run(config(tmp_path / "o", random_weights, str(path)))
    assert not (tmp_path / "o").exists()


@pytest.mark.ray
def test_a_bad_image_is_named_through_ray_and_nothing_is_finished(ray_cluster, random_weights, blob_pack, tmp_path):
    pack = verification_bin.read_pack(blob_pack)
    broken = (*pack.encoded[:50], pack.encoded[50][:100], *pack.encoded[51:])
    path = str(tmp_path / "broken.bin")
    verification_bin.write_pack(path, broken, pack.same_n)
    with pytest.raises(InputError, match=r"broken\.bin: image 50 \(pair 25\): cannot be decoded"):
        stage.run(config(tmp_path / "o", random_weights, path))
    assert artifact.load_manifest(str(tmp_path / "o")) is None


def test_dead_embeddings_are_refused():
    x = np.eye(4)
    x[2] = np.nan
    with pytest.raises(InputError, match=r"weights w: 1 of 4 embeddings of lfw .*image 2"):
        face_folder.check_embeddings(x, "w", "lfw")
