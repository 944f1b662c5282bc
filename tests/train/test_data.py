import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.store import artifact
from synface.train import data
from tests.train.conftest import pixels, write_toy

SIZE = 32


def source_of(uri: str, **options) -> data.ImageSource:
    return data.ImageSource(data.scan([uri], SIZE), SIZE, options.pop("memory_bytes", 1e9), **options)


def test_catalog_holds_labels_of_sorted_identities(toy_images):
    catalog = data.scan([toy_images], SIZE)
    assert len(catalog) == 24
    assert catalog.classes == tuple(f"toy-{i:03d}" for i in range(6))
    assert catalog.labels.tolist() == np.repeat(np.arange(6), 4).tolist()
    assert [s.start for s in catalog.shards] == [0, 10, 20]


def test_two_tables_have_their_own_classes_unless_merged(toy_images, tmp_path):
    other = write_toy(str(tmp_path / "more"), identities=3, per_identity=2)
    apart = data.scan([toy_images, other], SIZE)
    assert len(apart.classes) == 9
    assert len(np.unique(apart.labels[24:])) == 3 and apart.labels[24:].min() == 6
    merged = data.scan([toy_images, other], SIZE, merge_identities=True)
    assert len(merged.classes) == 6
    assert merged.labels[24:].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("memory", [1e9, 24 * SIZE * SIZE * 3 - 1])
def test_pixels_are_those_of_the_table(toy_images, memory):
    source = source_of(toy_images, memory_bytes=memory, window=3)
    assert source.streams == (memory < 1e9)
    index = np.array([23, 0, 11, 10, 9, 0])
    expected = np.stack([pixels(int(i) // 4, int(i) % 4, SIZE) for i in index])
    assert np.array_equal(source.take(index), expected)


def test_streaming_keeps_few_shards_and_gives_the_same_images(toy_images):
    source = source_of(toy_images, memory_bytes=1.0, window=1)
    for i in range(24):
        assert np.array_equal(source.take(np.array([i]))[0], pixels(i // 4, i % 4, SIZE))
    assert len(source._files) <= 3


def test_a_data_set_beyond_the_memory_bound_names_the_ways_out(toy_images):
    with pytest.raises(InputError, match=r"memory_gb allows .* set shuffle_shards"):
        source_of(toy_images, memory_bytes=10.0)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(sum),
    st.one_of(st.none(), st.integers(1, 4)),
    st.integers(0, 3),
)
def test_an_epoch_takes_every_image_once(rows, window, epoch):
    order = data.epoch_order(rows, window, 5, epoch)
    assert sorted(order.tolist()) == list(range(sum(rows)))
    assert np.array_equal(order, data.epoch_order(rows, window, 5, epoch))


def test_epochs_and_seeds_differ():
    orders = [data.epoch_order([50, 50], None, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


def test_a_window_needs_only_its_shards_at_a_time():
    order = data.epoch_order([10] * 6, 2, 0, 0)
    for start in range(0, 60, 20):
        assert len({int(i) // 10 for i in order[start : start + 20]}) == 2
    assert order[:20].tolist() != sorted(order[:20].tolist())


def test_ranks_divide_each_batch():
    order = data.epoch_order([40], None, 0, 0)
    for step in range(3):
        parts = [order[data.rank_slice(step, 12, rank, 3)] for rank in range(3)]
        assert np.array_equal(np.concatenate(parts), order[data.rank_slice(step, 12, 0, 1)])


def test_prefetching_changes_nothing():
    for depth in (0, 1, 3, 50):
        assert list(data.prefetched(iter(range(17)), depth)) == list(range(17))


def test_prefetching_hands_errors_on():
    def broken():
        yield 1
        raise InputError("bad image")

    got = data.prefetched(broken(), 2)
    assert next(got) == 1
    with pytest.raises(InputError, match="bad image"):
        next(got)


def test_one_identity_is_refused(tmp_path):
    uri = write_toy(str(tmp_path / "one"), identities=1)
    with pytest.raises(InputError, match=r"4 images of 1 identity.*at least two"):
        data.scan([uri], SIZE)


def test_other_image_size_is_refused(toy_images):
    with pytest.raises(InputError, match=r"images are 32x32 pixels, image_size asks 64"):
        data.scan([toy_images], 64)


def test_too_large_a_batch_is_refused():
    with pytest.raises(InputError, match="global_batch_size 128 is larger than the 24"):
        data.steps_per_epoch(24, 128)


def test_missing_and_wrong_tables(tmp_path, toy_images):
    with pytest.raises(InputError, match="nothing stands there"):
        data.scan([str(tmp_path / "none")], SIZE)
    damaged = write_toy(str(tmp_path / "damaged"))
    path = tmp_path / "damaged" / artifact.require(damaged).files[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="sha256"):
        data.scan([damaged], SIZE)
