"""Training on one part of every identity's images, by similarity to the identity's centre."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core import ranks
from synface.core.errors import InputError
from synface.store import artifact, tables
from synface.train import data, groups, loop, run
from tests.train.conftest import ToyConfig, write_toy
from tests.train.test_run import config_of

SIMILARITY = np.tile([0.5, 0.9, 0.7, 0.1], 6) + np.repeat(np.arange(6) / 100, 4)


def write_similarities(output, images, similarity, kind="identities"):
    """What `embed --similarities true` leaves beside its table."""
    config = ToyConfig(output=str(output), identities=6, images=4, size=32)
    opened = artifact.open_output(config)
    identity = [n for t in tables.iter_images(images, ["identity_id"]) for n in t["identity_id"].to_pylist()]
    entry = tables.write_similarities(config.output, identity, similarity, artifact.content_digest(images))
    artifact.commit(config, opened, kind, [entry], {})
    return config.output


@pytest.fixture(scope="module")
def similarities(toy_images, tmp_path_factory):
    return write_similarities(tmp_path_factory.mktemp("groups") / "embedded", toy_images, SIMILARITY)


def grouped(toy_images, output, similarities, group, **changes):
    asked = {"identities": similarities, "groups": 2, "group": group}
    return config_of(toy_images, output, **{"similarity_group": asked, "global_batch_size": 4, **changes})


@pytest.mark.parametrize(("group", "samples", "mean"), [(0, [1, 2], 0.8), (1, [0, 3], 0.3)])
def test_a_group_is_a_part_of_each_identity(toy_images, similarities, tmp_path, group, samples, mean):
    config = grouped(toy_images, tmp_path / "out", similarities, group)
    label_n, similarity_n, kept_n = groups.read(config.similarity_group, toy_images)
    assert np.flatnonzero(kept_n).tolist() == [4 * i + k for i in range(6) for k in samples]
    found = ranks.part_statistics(similarity_n, label_n, kept_n)
    shift = np.arange(6).mean() / 100
    assert found["mean"] == pytest.approx(mean + shift)
    assert found["mean_highest"] == pytest.approx(max(SIMILARITY[samples]) + shift)
    assert found["mean_lowest"] == pytest.approx(min(SIMILARITY[samples]) + shift)
    assert run.plan(config)["steps_per_epoch"] == 3


@pytest.mark.parametrize("window", [None, 2])
def test_an_epoch_takes_each_image_of_the_group_once_and_no_other(toy_images, similarities, tmp_path, window):
    config = grouped(toy_images, tmp_path / "out", similarities, 0, shuffle_shards=window)
    _, _, kept_n = groups.read(config.similarity_group, toy_images)
    whole = data.scan([toy_images], 32)
    catalog = groups.select(whole, kept_n)
    assert (catalog.used, catalog.per_epoch, len(catalog.classes)) == (12, 12, 6)
    shape = loop.shape_of(config, catalog)
    assert shape.total_steps == 6
    asked = []

    class Source:
        def take(self, index_n):
            asked.append(index_n)
            return np.zeros((len(index_n), 32, 32, 3), np.uint8)

    labels = [labels for _, labels in loop.batches(config, catalog, Source(), shape, 0)]
    for epoch in range(2):
        rows = np.concatenate(asked[3 * epoch : 3 * epoch + 3])
        assert sorted(rows.tolist()) == np.flatnonzero(kept_n).tolist()
        assert np.concatenate(labels[3 * epoch : 3 * epoch + 3]).tolist() == whole.labels[rows].tolist()


@given(
    st.lists(st.booleans(), min_size=24, max_size=24).filter(lambda k: len({i // 4 for i in np.flatnonzero(k)}) > 1)
)
def test_classes_without_images_are_left_out(toy_images, kept):
    whole, kept_n = data.scan([toy_images], 32), np.array(kept)
    catalog = groups.select(whole, kept_n)
    names = [whole.classes[i] for i in whole.labels[kept_n]]
    assert [catalog.classes[i] for i in catalog.labels[kept_n]] == names
    assert set(catalog.classes) == set(names) and (catalog.labels[~kept_n] == -1).all()


def test_what_is_asked_wrongly_is_refused(toy_images, similarities, tmp_path):
    for change, message in (
        ({"images": [toy_images, "x"]}, "exactly one images table"),
        ({"repeat": [2]}, "exactly one images table"),
        ({"similarity_group": {"identities": similarities, "groups": 2, "group": 2}}, "group 2 of 2: 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            grouped(toy_images, tmp_path / "out", similarities, 0, **change)
    other = write_toy(str(tmp_path / "other"), identities=3)
    with pytest.raises(InputError, match="those of other images"):
        run.plan(grouped(other, tmp_path / "out", similarities, 0))
    plain = ToyConfig(output=str(tmp_path / "plain"), identities=1, images=1, size=32)
    artifact.commit(plain, artifact.open_output(plain), "identities", [], {})
    with pytest.raises(InputError, match=r"has no similarities\.parquet; embed again"):
        run.plan(grouped(toy_images, tmp_path / "out", plain.output, 0))
    asked = {"identities": similarities, "groups": 9, "group": 8}
    with pytest.raises(InputError, match="group 8 of 9 is empty"):
        run.plan(config_of(toy_images, tmp_path / "out", similarity_group=asked))
