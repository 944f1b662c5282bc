"""Demands that can and cannot be satisfied: exhaustive small cases, and a real cluster."""

import itertools
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.ops import demand
from synface.ops.demand import Supply, shortfall


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


@settings(max_examples=200, deadline=None)
@given(bundles=st.lists(small, max_size=4), nodes=st.lists(small, max_size=3))
def test_what_fits_is_never_refused(bundles, nodes):
    supply = [Supply(f"node {i}", node, 1) for i, node in enumerate(nodes)]
    if fits_by_trying(bundles, nodes):
        assert shortfall(bundles, supply) == []


@settings(max_examples=200, deadline=None)
@given(bundle=small, count=st.integers(1, 4), nodes=st.lists(small, min_size=1, max_size=3))
def test_equal_bundles_are_decided_exactly(bundle, count, nodes):
    supply = [Supply(f"node {i}", node, 1) for i, node in enumerate(nodes)]
    fits = fits_by_trying([bundle] * count, nodes)
    assert (shortfall([bundle] * count, supply) == []) == fits


def test_node_types_count_as_often_as_they_may_be_started():
    gpu = {"CPU": 8, "GPU": 1}
    assert shortfall([{"GPU": 1}] * 4, [Supply("gpu", gpu, 4)]) == []
    assert shortfall([{"GPU": 1}] * 5, [Supply("gpu", gpu, 4)]) == ["room for 4 of 5 x {GPU: 1}"]
    assert shortfall([{"GPU": 1}] * 5, [Supply("gpu", gpu, math.inf)]) == []
    assert shortfall([{"GPU": 2}], [Supply("gpu", gpu, math.inf)]) == ["room for 0 of 1 x {GPU: 2}"]


def test_fractions_share_a_gpu_without_rounding_errors():
    node = [Supply("node", {"CPU": 4, "GPU": 1}, 1)]
    assert shortfall([{"GPU": 0.1}] * 10, node) == []
    assert shortfall([{"GPU": 0.1}] * 11, node) == ["room for 10 of 11 x {GPU: 0.1}"]


def test_kinds_that_fit_alone_but_not_together():
    node = [Supply("node", {"CPU": 4, "GPU": 1}, 1)]
    assert shortfall([{"CPU": 3}, {"CPU": 2}], node) == ["CPU: 5 asked, at most 4"]


def test_memory_that_a_node_type_leaves_unsaid_is_not_held_against_it():
    assert shortfall([{"CPU": 1, "memory": 8 << 30}], [Supply("type", {"CPU": 2}, 1)]) == []
    stated = [Supply("node", {"CPU": 2, "memory": 4 << 30}, 1)]
    assert shortfall([{"CPU": 1, "memory": 8 << 30}], stated) == ["room for 0 of 1 x {CPU: 1, memory: 8.0 GiB}"]


@pytest.mark.ray
def test_a_real_cluster_takes_what_it_has(ray_cluster):
    demand.check_demand("pool", [{"CPU": 1}] * 4, patience=0)
    assert demand.node_types() == []


@pytest.mark.ray
def test_a_gpu_demand_fails_in_the_stated_time_with_demand_and_cluster(ray_cluster):
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        demand.check_demand("train: workers", [{"CPU": 1, "GPU": 1}] * 2, patience=1.0)
    assert 1.0 <= time.monotonic() - started < 10
    text = str(caught.value)
    assert text.startswith("train: workers: the cluster can never satisfy 2 x {CPU: 1, GPU: 1} (room for 0 of 2 x")
    assert "waited 1 s). It has: node " in text and "CPU: 4" in text and "node:" not in text
