"""Embeddings kept by content: equal bits with and without, nothing embedded twice, damage found, size held."""

import dataclasses
import hashlib
import os

import numpy as np
import pytest
from blobs import blob, png

from synface.evaluate import embedding_cache
from synface.evaluate import run as stage
from synface.models import weights
from synface.store import leases
from synface.store.formats import verification_bin
from tests.evaluate.test_run import config

FILES = ("results.json", "data/scores.parquet", "data/roc.parquet", "_synface/manifest.json")
NUMERICS = {"device": "cpu", "threads": 1, "micro_batch": 64}


def entries(cache):
    return sorted((cache / embedding_cache.FOLDER).glob(f"*{embedding_cache.SUFFIX}"))


@pytest.mark.ray
def test_kept_embeddings_give_the_same_bytes_and_are_not_made_again(
    ray_cluster, random_weights, blob_pack, tmp_path, monkeypatch, capsys
):
    def evaluate(name, gb, **fields):
        how = {"cache": str(tmp_path / "cache"), "embeddings_gb": gb, "actors": 1}
        return stage.run(config(tmp_path / name, random_weights, blob_pack, how=how, **fields))

    def bytes_of(name):
        return [(tmp_path / name / file).read_bytes() for file in FILES]

    evaluate("without", 0)
    assert not (tmp_path / "cache").exists()
    evaluate("made", 1)
    (entry,) = entries(tmp_path / "cache")
    assert bytes_of("made") == bytes_of("without")
    whole = entry.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(stage.distributed, "EmbedPool", lambda *_: pytest.fail("embedded again"))
        evaluate("kept", 1)
        evaluate("other-question", 1, far_rule="nearest")
    assert bytes_of("kept") == bytes_of("without")
    # a bit that turned is found, told, and the entry made again
    entry.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    capsys.readouterr()
    evaluate("again", 1)
    assert "is damaged; its pictures are embedded again" in capsys.readouterr().err
    assert bytes_of("again") == bytes_of("without") and entry.read_bytes() == whole


def test_whatever_decides_the_bits_is_in_the_key(random_weights, blob_pack, monkeypatch):
    pack = verification_bin.read_pack(blob_pack)
    digests = [hashlib.sha256(data).digest() for data in pack.encoded]
    recognizer = weights.read_config(random_weights)

    def key(digests=digests, side=32, flip=True, recognizer=recognizer, **numerics):
        return embedding_cache.key(digests, side, flip, recognizer, {**NUMERICS, **numerics})

    keys = [
        key(),
        key(threads=2),
        key(micro_batch=32),
        key(side=64),
        key(flip=False),
        key([digests[1], digests[0], *digests[2:]]),
        key([*digests[:-1], hashlib.sha256(png(blob(9, 9))).digest()]),
        key(recognizer=dataclasses.replace(recognizer, sha256="0" * 64)),
        key(recognizer=dataclasses.replace(recognizer, colour_order="BGR")),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache, "versions", lambda: {"torch": "9.9"})
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key(iter(digests)) == keys[0]
    assert key(recognizer=dataclasses.replace(recognizer, architecture="my.code:network")) is None


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 500])
def test_a_damaged_entry_is_none(tmp_path, damage):
    x = np.random.default_rng(0).normal(size=(5, 3))
    embedding_cache.keep(str(tmp_path), "k", x, 1)
    found = embedding_cache.read(str(tmp_path), "k")
    assert found is not None and found.dtype == np.float64 and found.tobytes() == x.tobytes()
    (entry,) = tmp_path.glob("k*")
    entry.write_bytes(damage)
    assert embedding_cache.read(str(tmp_path), "k") is None
    assert embedding_cache.read(str(tmp_path), "other") is None


def test_the_oldest_go_beyond_the_size_and_none_under_a_lease(tmp_path, monkeypatch):
    x = np.zeros((100, 16))
    names = ["c", "a", "b"]
    for name in names:
        embedding_cache.keep(str(tmp_path), name, x, 1)
    size = (tmp_path / "c.embedding").stat().st_size
    embedding_cache.keep(str(tmp_path), "large", x, x.nbytes / 1e9 / 2)
    assert len(list(tmp_path.glob("*.embedding"))) == 3
    for age, name in enumerate(names):
        times = 1_700_000_000 + age
        os.utime(tmp_path / f"{name}.embedding", (times, times))
    with leases.held(str(tmp_path), "evaluate"):
        assert embedding_cache.trim(str(tmp_path), 0) == []
    assert embedding_cache.trim(str(tmp_path), 3 * size) == []
    assert embedding_cache.trim(str(tmp_path), 2 * size) == ["c.embedding"]
    with embedding_cache.opened(str(tmp_path.parent), 0) as folder:
        assert folder is None
    assert embedding_cache.trim(str(tmp_path), size - 1) == ["a.embedding", "b.embedding"]


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with embedding_cache.opened(str(tmp_path / "file"), 1) as folder:
        assert folder is None
        embedding_cache.keep(folder, "k", np.zeros((2, 2)), 1)
    assert "embeddings are not kept" in capsys.readouterr().err
