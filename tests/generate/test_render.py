import io

import numpy as np
import pytest
from pattern_generator import Pattern
from PIL import Image

from synface.generate.plan import Identity, shard_items
from synface.generate.render import render_shard
from synface.store import provenance


def shard(config, people=None, samples=4):
    description = Pattern.describe(config)
    people = people or [Identity(n, f"id-{n}", "pattern", n) for n in range(5)]
    items = shard_items(config.seed, people, samples)
    return render_shard(Pattern(config), description, config, "c" * 64, items)


def test_rows_say_what_was_made(pattern, tmp_path):
    table, failed = shard(pattern(tmp_path, seed=3))
    assert not failed and table.num_rows == 20
    assert table["label"].to_pylist() == [n for n in range(5) for _ in range(4)]
    assert table["sample"].to_pylist() == list(range(4)) * 5
    row = table.to_pylist()[7]
    assert row["image"]["path"] == "0000001_00003.jpg" and row["attributes"]["name"] == "id-1"
    assert row["similarity_inquiry"] is None and row["config_hash"] == "c" * 64
    assert provenance.read_mark(row["image"]["bytes"]) == "algorithmicMedia"
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        assert image.size == (16, 16) and image.format == "JPEG"


def test_pixels_are_those_of_the_generator(pattern, tmp_path):
    config = pattern(tmp_path, format="png")
    table, _ = shard(config)
    items = shard_items(config.seed, [Identity(2, "id-2", "pattern", 2)], 1)
    (sample,) = Pattern(config).render(items)
    with Image.open(io.BytesIO(table["image"][8].as_py()["bytes"])) as image:
        assert (np.asarray(image) == sample.pixels).all()


@pytest.mark.parametrize("micro_batch", [1, 3, 7, 64])
def test_the_micro_batch_changes_no_row(pattern, tmp_path, micro_batch):
    whole, _ = shard(pattern(tmp_path))
    assert shard(pattern(tmp_path, numerics={"micro_batch": micro_batch}))[0].equals(whole)


@pytest.mark.parametrize("bad_batch", [False, True])
def test_a_bad_image_costs_one_image(pattern, tmp_path, bad_batch):
    whole, _ = shard(pattern(tmp_path))
    bad = {"bad_samples": [[1, 2], [4, 0]], "bad_batch": bad_batch}
    table, failed = shard(pattern(tmp_path, options=bad))
    assert [(f["identity_id"], f["sample"]) for f in failed] == [("id-1", 2), ("id-4", 0)]
    kept = [n for n in range(20) if n not in (6, 16)]
    assert table.equals(whole.take(kept))


def test_a_wrong_size_is_a_failure_not_a_crash(pattern, tmp_path):
    generator = Pattern(pattern(tmp_path, image_size=32))
    config = pattern(tmp_path)
    items = shard_items(0, [Identity(0, "id-0", "pattern", 0)], 2)
    table, failed = render_shard(generator, Pattern.describe(config), config, "c", items)
    assert table.num_rows == 0 and "expected [16, 16, 3]" in failed[0]["error"]
