"""Training data in foreign formats, and mixing, against the images themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.settings import build
from synface.store import export
from synface.train import data, sources
from synface.train.config import Source, TrainRecognizerConfig
from tests.train.conftest import pixels

SIZE = 32
FORMATS = ("folder", "recordio", "webdataset")


@pytest.fixture(scope="module")
def exported(toy_images, tmp_path_factory):
    """The toy table in every foreign format."""
    root = tmp_path_factory.mktemp("foreign")
    for name in FORMATS:
        export.export(toy_images, name, str(root / name))
    return root


def source_of(exported, name):
    return Source(uri=str(exported / name), format=name)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(sources, "SHARD_IMAGES", 7)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("memory", [1e9, 1.0])
def test_a_foreign_source_gives_the_same_images_and_classes(exported, small_shards, name, memory):
    catalog = data.scan([], SIZE, foreign=[source_of(exported, name)])
    assert len(catalog) == 24 and len(catalog.classes) == 6
    assert [s.rows for s in catalog.shards] == ([10, 10, 4] if name == "webdataset" else [7, 7, 7, 3])
    assert catalog.labels.tolist() == np.repeat(np.arange(6), 4).tolist()
    source = data.ImageSource(catalog, SIZE, memory, window=1)
    index = np.array([23, 0, 11, 6, 7, 13, 14, 0])
    expected = np.stack([pixels(int(i) // 4, int(i) % 4, SIZE) for i in index])
    assert np.array_equal(source.take(index), expected)
    assert catalog.encoded_bytes == data.scan([], SIZE, foreign=[source_of(exported, "folder")]).encoded_bytes


def test_records_whose_images_hold_the_magic_are_found_again(tmp_path, monkeypatch):
    """A payload that is cut into several parts, the last of them as long as a head, is one image."""
    from synface.store.formats import recordio

    monkeypatch.setattr(sources, "SHARD_IMAGES", 2)
    images = [bytes([i]) * 8 + recordio._MAGIC_BYTES * 3 + bytes([i]) * 5 for i in range(5)]
    assert all(len(recordio.frame(recordio.pack((0.0,), 1, image))) > len(image) + 32 + 8 for image in images)
    payloads = [recordio.frame(recordio.pack((float(i),), i + 1, image)) for i, image in enumerate(images)]
    (tmp_path / "train.rec").write_bytes(b"".join(payloads))
    found = list(sources.scan(Source(uri=str(tmp_path), format="recordio"), 100))
    assert [f.shard.start for f in found] == [100, 102, 104]
    assert [image for f in found for image in f.shard.files()] == images
    assert [i for f in found for i in f.identities] == [f"{i:07d}" for i in range(5)]


def test_tables_and_sources_mix_with_their_own_classes(toy_images, exported):
    both = data.scan([toy_images], SIZE, foreign=[source_of(exported, "folder")])
    assert len(both) == 48 and len(both.classes) == 12
    assert both.labels[:24].max() == 5 and both.labels[24:].min() == 6
    merged = data.scan([toy_images], SIZE, merge_identities=True, foreign=[source_of(exported, "folder")])
    assert len(merged.classes) == 6


def test_what_changed_since_the_start_is_refused(toy_images, exported, tmp_path):
    export.export(toy_images, "recordio", str(tmp_path / "r"))
    catalog = data.scan([], SIZE, foreign=[Source(uri=str(tmp_path / "r"), format="recordio")])
    rec = tmp_path / "r" / "train.rec"
    rec.write_bytes(rec.read_bytes()[:5000])
    with pytest.raises(InputError, match="it was longer when the training began"):
        catalog.shards[0].files()
    with pytest.raises(InputError, match="no images of format 'folder' there"):
        data.scan([], SIZE, foreign=[Source(uri=str(tmp_path / "r"), format="folder")])


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(sum),
    st.sampled_from([None, 1, 3]),
    st.data(),
)
def test_an_epoch_takes_each_shard_as_often_as_asked(rows, window, choose):
    repeat = [choose.draw(st.sampled_from([0.3, 0.5, 1.0, 2.0, 2.7])) for _ in rows]
    orders = [data.epoch_order(rows, window, 5, epoch, repeat) for epoch in (0, 1)]
    assert np.array_equal(orders[0], data.epoch_order(rows, window, 5, 0, repeat))
    start = 0
    for count, times in zip(rows, repeat, strict=True):
        for order in orders:
            seen = np.bincount(order[(order >= start) & (order < start + count)] - start, minlength=count)
            assert seen.sum() == round(count * times)
            if count:
                assert seen.max() - seen.min() <= 1
        start += count
    whole = data.epoch_order(rows, window, 5, 0, [1.0] * len(rows))
    assert np.array_equal(whole, data.epoch_order(rows, window, 5, 0))


def test_half_of_a_table_is_another_half_in_every_epoch():
    halves = [set(data.epoch_order([100], None, 0, epoch, [0.5]).tolist()) for epoch in range(8)]
    assert len(set.union(*halves)) > 95 and all(len(h) == 50 for h in halves)


def config_of(**fields):
    return build(TrainRecognizerConfig, {"output": "o", "image_size": SIZE, **fields})


def test_refused_mixtures(toy_images):
    with pytest.raises(InputError, match="at least one images table, or sources"):
        config_of()
    with pytest.raises(InputError, match="2 numbers for 1 tables and sources"):
        config_of(images=[toy_images], repeat=[1, 2])
    with pytest.raises(InputError, match=r"sources\.0\.format"):
        config_of(sources=[{"uri": "a", "format": "lmdb"}])
    with pytest.raises(InputError, match=r"sample_rate 0\.1 needs head\.sharded"):
        config_of(images=[toy_images], head={"sample_rate": 0.1})


def test_the_plan_counts_what_an_epoch_takes(toy_images, exported, tmp_path):
    from synface.train import run

    folder = {"uri": str(exported / "folder"), "format": "folder"}
    asked = config_of(images=[toy_images], sources=[folder], repeat=[1, 2.5], global_batch_size=8)
    plan = run.plan(asked)
    assert plan["images"] == {toy_images: 24, folder["uri"]: 24}
    assert plan["steps_per_epoch"] == (24 + 60) // 8
    catalog = data.scan(asked.images, SIZE, False, asked.sources, asked.repeat)
    assert catalog.per_epoch == 84
    digests = run.input_digests(asked)
    assert set(digests) == {"images.0", "sources.0.uri"}
    assert len(digests["sources.0.uri"]) == 64
