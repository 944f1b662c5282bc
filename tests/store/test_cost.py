"""Estimates against closed forms, and their constants against the results that they are taken from."""

import json
from pathlib import Path

import pytest

from synface.store import cost
from synface.store.cost import Rate, Table, Traffic

MIB = 1 << 20
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("size", "requests"),
    # one put below 64 MiB; from there on parts of 16 MiB between the upload's begin and end
    [(0, 1), (64 * MIB - 1, 1), (64 * MIB, 6), (64 * MIB + 1, 7), (160 * MIB, 12)],
)
def test_requests_of_one_object(size, requests):
    assert cost.written(size) == Traffic(put=requests, bytes_written=size)


def test_a_table_is_two_objects_a_shard_and_its_entries_read_back():
    found = cost.table_written(2500, 2500 * MIB)
    entries = 2500 * cost.LEDGER_BYTES
    assert found == Traffic(put=5000, get=2500, list=2 + 3, bytes_written=2500 * MIB + entries, bytes_read=entries)


def test_traffic_adds_and_multiplies():
    one = Traffic(1, 2, 3, 4, 5)
    assert one + one == one * 2 == Traffic(2, 4, 6, 8, 10) and sum([one, one], Traffic()) == one * 2


def test_hours_follow_from_the_rate():
    """64 million images at 10 images/s a GPU are 1,777.8 GPU-hours, on 8 GPUs 222.2 hours."""
    found = cost.estimate(64e6, "images", cost.rate_of(10.0), cpus=4, gpus=0.5, traffic=Traffic(put=1), workers=16)
    assert found["worker_hours"] == pytest.approx(64e6 / 10 / 3600)
    assert found["gpu_hours"] == pytest.approx(64e6 / 10 / 3600 / 2)
    assert found["cpu_hours"] == pytest.approx(4 * 64e6 / 10 / 3600)
    assert found["hours"] == pytest.approx(64e6 / 10 / 3600 / 16)
    assert found["rate_from"] == "how.rate" and "estimate" in found["is"]
    assert found["store"] == {"put": 1, "get": 0, "list": 0, "bytes_written": 0, "bytes_read": 0}


def test_what_nobody_measured_stays_unknown():
    found = cost.estimate(100, "images", cost.rate_of(None), 1, 1, None, workers=2)
    assert [found[k] for k in ("rate", "worker_hours", "cpu_hours", "gpu_hours", "hours", "store")] == [None] * 6
    assert "how.rate" in found["rate_from"]
    assert cost.estimate(None, "operations", Rate(5.0, "x"), 1, 0, None)["worker_hours"] is None
    assert cost.bytes_per_image(None, ("png", 95), 64) is None


def test_the_users_rate_comes_before_a_measured_one():
    assert cost.rate_of(3.0, 9.0, "ours") == Rate(3.0, "how.rate")
    assert cost.rate_of(None, 9.0, "ours") == Rate(9.0, "ours")
    assert cost.bytes_per_image(5000.0, ("jpeg", 95), 64) == 5000.0


def test_a_total_is_unknown_where_a_part_is():
    known = cost.estimate(7200, "images", Rate(1.0, "x"), 2, 1, Traffic(put=3), 1)
    unknown = cost.estimate(7200, "images", cost.rate_of(None), 2, 1, None)
    assert cost.total([known, known]) == {
        "is": known["is"], "cpu_hours": 8.0, "gpu_hours": 4.0,
        "store": {"put": 6, "get": 0, "list": 0, "bytes_written": 0, "bytes_read": 0},
    }  # fmt: skip
    found = cost.total([known, unknown])
    assert (found["cpu_hours"], found["gpu_hours"], found["store"]) == (None, None, None)


def test_a_table_is_read_whole_each_time():
    assert Table(100, 5, 1000).read(3) == Traffic(get=15, bytes_read=3000)
    assert Table(100, 5, None).read() is None


def test_constants_are_those_of_the_results():
    measured = json.loads((RESULTS / "pack_rate-4096x512.json").read_text())
    assert pytest.approx(3 * 4096**2 * 512 / measured["pass_s"], rel=1e-4) == cost.MEASURED_PACK_FLOPS
    assert cost.bytes_per_image(None, ("jpeg", 95), 64) == pytest.approx(91_884_545 / 36_000)
