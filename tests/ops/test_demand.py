"""Demands that can and cannot be satisfied: exhaustive small cases, and a real cluster."""

import functools
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.util import placement_group_table

from synface.core.errors import InputError
from synface.ops import demand
from synface.ops.demand import shortfall


def fits_by_trying(bundles: list[dict], nodes: list[dict]) -> bool:
    """Whether some assignment of bundles to nodes holds: every one is tried."""
    for places in itertools.product(range(len(nodes)), repeat=len(bundles)):
        left = [dict(node) for node in nodes]
        for bundle, place in zip(bundles, places, strict=True):
            for name, amount in bundle.items():
                left[place][name] = left[place].get(name, 0) - amount
        if all(amount >= 0 for node in left for amount in node.values()):
            return True
    return False


small = st.fixed_dictionaries({"CPU": st.integers(0, 3), "GPU": st.integers(0, 2)})


@settings(max_examples=200)
@given(bundles=st.lists(small, max_size=4), nodes=st.lists(small, max_size=3))
def test_what_fits_is_never_refused(bundles, nodes):
    if fits_by_trying(bundles, nodes):
        assert shortfall(bundles, nodes) == []


@settings(max_examples=200)
@given(bundle=small, count=st.integers(1, 4), nodes=st.lists(small, min_size=1, max_size=3))
def test_equal_bundles_are_decided_exactly(bundle, count, nodes):
    fits = fits_by_trying([bundle] * count, nodes)
    assert (shortfall([bundle] * count, nodes) == []) == fits


def test_fractions_share_a_gpu_without_rounding_errors():
    node = [{"CPU": 4, "GPU": 1}]
    assert shortfall([{"GPU": 0.1}] * 10, node) == []
    assert shortfall([{"GPU": 0.1}] * 11, node) == ["room for 10 of 11 x {GPU: 0.1}"]


def test_kinds_that_fit_alone_but_not_together():
    node = [{"CPU": 4, "GPU": 1}]
    assert shortfall([{"CPU": 3}, {"CPU": 2}], node) == ["CPU: 5 asked, 4 there"]


def test_memory_is_shown_as_such():
    assert shortfall([{"CPU": 1, "memory": 8 << 30}], [{"CPU": 2, "memory": 4 << 30}]) == [
        "room for 0 of 1 x {CPU: 1, memory: 8.0 GiB}"
    ]


def test_nothing_asked_is_always_there():
    assert shortfall([], []) == shortfall([{"CPU": 0}], []) == []


@pytest.mark.ray
def test_a_real_cluster_takes_what_it_has(ray_cluster):
    demand.check_demand("pool", [{"CPU": 1}] * 4, patience=0)
    assert not demand.autoscaled()


@pytest.mark.ray
def test_a_gpu_demand_fails_in_the_stated_time_with_demand_and_cluster(ray_cluster):
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        demand.check_demand("train: workers", [{"CPU": 1, "GPU": 1}] * 2, patience=1.0)
    assert 1.0 <= time.monotonic() - started < 10
    text = str(caught.value)
    assert text.startswith("train: workers: the cluster cannot satisfy 2 x {CPU: 1, GPU: 1} (room for 0 of 2 x")
    assert "(waited 1 s). Its nodes: 1 x {CPU: 4, memory" in text and "node:" not in text


@pytest.mark.ray
def test_the_question_leaves_no_demand_behind(ray_cluster):
    with pytest.raises(InputError):
        demand.check_demand("train: workers", [{"GPU": 1}], patience=0)
    states = {group["state"] for group in placement_group_table().values()}
    assert states <= {"REMOVED"}


@pytest.mark.ray
def test_a_pool_is_as_large_as_asked_as_far_as_there_is_room(ray_cluster):
    """Four CPUs and no GPU."""
    assert demand.pool("t", {"CPU": 1.0}, None) == 4
    assert demand.pool("t", {"CPU": 1.0}, 9) == 4
    assert demand.pool("t", {"CPU": 1.0}, 2) == 2
    assert demand.pool("t", {"CPU": 1.0}, None, work=3) == 3
    assert demand.pool("t", {"CPU": 3.0}, None) == 1


@pytest.mark.ray
def test_a_pool_without_a_single_place_is_refused(ray_cluster, monkeypatch):
    monkeypatch.setattr(demand, "check_demand", functools.partial(demand.check_demand, patience=0.5))
    with pytest.raises(InputError, match=r"embed: one actor.*GPU"):
        demand.pool("embed: one actor", {"GPU": 1.0}, None)


@pytest.mark.parametrize(
    ("wanted", "selected"),
    [
        ({}, ["a", "b", "c"]),
        ({"pool": "gpu"}, ["a", "b"]),
        ({"pool": "!gpu"}, ["c"]),
        ({"pool": "gpu", "market": "!spot"}, ["b"]),
        ({"market": "in(spot, on-demand)"}, ["a", "b"]),
        ({"market": "!in(spot,on-demand)"}, ["c"]),
    ],
)
def test_labels_select_nodes_as_ray_does(wanted, selected):
    """As Ray's documentation has it: a missing label is not equal to any value."""
    own = {"a": {"pool": "gpu", "market": "spot"}, "b": {"pool": "gpu", "market": "on-demand"}, "c": {"pool": "cpu"}}
    assert [name for name in own if demand.has_labels(own[name], wanted)] == selected


@pytest.mark.ray
def test_labels_that_no_node_has_are_refused_with_what_there_is(ray_cluster):
    with pytest.raises(
        InputError, match=r"on nodes with how.labels \{'pool': 'gpu'\} .*, 0 of them with these labels"
    ):
        demand.check_demand("train: workers", [{"CPU": 1}], patience=0.5, labels={"pool": "gpu"})
    demand.check_demand("train: workers", [{"CPU": 1}], patience=0, labels={"pool": "!gpu"})
    assert demand.amount("CPU", {"pool": "gpu"}) == 0 and demand.amount("CPU", {"pool": "!gpu"}) == 4


@pytest.mark.ray
def test_a_workers_threads_are_its_cpus_until_there_are_too_few(ray_cluster):
    """Four CPUs."""
    assert demand.cpu_share(2) == 2 and demand.cpu_share(8) == 4
    assert demand.cpu_share(2, workers=2) == 2 and demand.cpu_share(3, workers=2) == 2
    assert demand.cpu_share(3, {"pool": "gpu"}) == 3  # no such node: the demand is checked as it was asked
