"""The cache of rendered benchmarks on a few identities."""

import threading

import numpy as np
import pytest

from synface.evaluate import distributed, rendered, sources
from synface.evaluate import heads_benchmark as hb
from synface.models import heads
from synface.store import artifact, tables
from synface.store.images import decode

SIZE = 32


@pytest.fixture
def three_people(monkeypatch):
    whole = hb.pinned("heads-val")
    part = {**whole, "identities": whole["identities"][:3]}
    monkeypatch.setattr(hb, "pinned", lambda name: part)
    return part["identities"]


@pytest.mark.ray
def test_rendered_through_ray_equals_the_renderer_and_is_kept(ray_cluster, tmp_path, three_people, monkeypatch):
    monkeypatch.setattr(rendered, "PER_TASK", 2)
    cache = str(tmp_path)
    encoded = rendered.load(cache, "heads-val", "pose", SIZE)
    assert len(encoded) == 18
    renderer = heads.HeadRenderer(SIZE)
    for row in (0, 5, 13):
        seed, sample = three_people[row // 6], row % 6
        variation = heads.sample_variation(hb.DOMAIN, "heads-val", seed, sample, stress="pose")
        expected = renderer.render(heads.sample_identity(hb.DOMAIN, seed), variation).image
        np.testing.assert_array_equal(decode(encoded[row]), expected)
    assert rendered.is_cached(cache, "heads-val", "pose", SIZE)
    assert not rendered.is_cached(cache, "heads-val", "age", SIZE)
    where = rendered.place(cache, "heads-val", "pose", SIZE)
    (table,) = tables.iter_images(where)
    assert table["identity_id"].to_pylist()[::6] == [f"heads-real-{s}" for s in three_people]
    facts = table["attributes"].to_pylist()
    assert all(abs(f["yaw"]) >= 20 for f in facts)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "render_all", lambda *_: pytest.fail("rendered again"))
        assert rendered.load(cache, "heads-val", "pose", SIZE) == encoded
    # a damaged file is noticed and made again, to the same bytes
    (entry,) = artifact.require(where).files
    path = tmp_path / where.removeprefix(cache).lstrip("/") / entry.path
    good = path.read_bytes()
    path.write_bytes(good[:-100] + bytes(100))
    assert rendered.load(cache, "heads-val", "pose", SIZE) == encoded
    assert path.read_bytes() == good
    path.write_bytes(good[:50])
    assert not rendered.is_cached(cache, "heads-val", "pose", SIZE)


@pytest.mark.ray
def test_two_writers_of_one_cache(ray_cluster, tmp_path, three_people):
    found = {}

    def work(number):
        found[number] = rendered.load(str(tmp_path), "heads-val", "frontal", SIZE)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found[0]) == 18
    assert found[0] == found[1]
    assert rendered.is_cached(str(tmp_path), "heads-val", "frontal", SIZE)
    assert not list(tmp_path.rglob("*.tmp"))


def test_keys_differ_for_every_picture():
    keys = [k for i in range(200) for k in sources.picture_keys("heads-v1", "age", i)]
    assert len(set(keys)) == 1200
