"""How many actors a pool asks for, and what it is refused."""

import functools

import pytest
from generate_helpers import pattern_config

from synface.core.errors import InputError
from synface.generate import distributed
from synface.generate.distributed import LARGEST_GUESS, bundles, pool_size
from synface.ops import demand

HEAD = {"memory": 1 << 30}
FOUR = {"CPU": 4.0}
GPU_NODE = {"CPU": 8.0, "GPU": 2.0}


def sizes(nodes, shards=100, autoscaled=False, **how):
    return pool_size(pattern_config("o", how=how), shards, nodes, autoscaled)


def test_a_fixed_cluster_is_filled_beside_a_writer():
    assert sizes([FOUR]) == (1, 4)
    assert sizes([FOUR, FOUR]) == (1, 8)
    assert sizes([HEAD, {"CPU": 1.0}]) == (1, 1)
    assert sizes([FOUR], shards=3) == (1, 3)
    assert sizes([FOUR], min_actors=2, max_actors=3) == (2, 3)
    assert sizes([GPU_NODE], gpus_per_actor=0.25) == (1, 8)
    assert sizes([GPU_NODE], gpus_per_actor=1) == (1, 2)


def test_actors_never_take_the_last_cpu_of_a_fixed_cluster():
    assert sizes([FOUR], cpus_per_actor=1) == (1, 3)
    assert sizes([FOUR], cpus_per_actor=1, max_actors=4) == (1, 3)


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 9, 12, 16, 18, 32, 36, 48, 64, 72, 96, 128, 192])
def test_a_node_full_of_actors_has_room_for_the_writers_of_many_runs(cpus):
    """Else writers of waiting runs could keep out those whose actors hold the node, and all would wait for ever."""
    actor, writer = bundles(pattern_config("o"))
    places = demand.places(actor, [{"CPU": cpus}])
    assert demand.shortfall([actor] * places + [writer] * 10, [{"CPU": cpus}]) == []


def test_under_an_autoscaler_a_pool_asks_for_what_the_work_is_worth():
    assert sizes([HEAD], shards=24, autoscaled=True) == (1, 5)
    assert sizes([HEAD], shards=2, autoscaled=True) == (1, 1)
    assert sizes([HEAD, FOUR], shards=15, autoscaled=True) == (1, 4)  # what stands is used first
    assert sizes([HEAD], shards=10**6, autoscaled=True) == (1, LARGEST_GUESS)
    assert sizes([HEAD], shards=10**6, autoscaled=True, max_actors=3000) == (1, 3000)
    assert sizes([HEAD, FOUR], autoscaled=True, max_actors=2) == (1, 2)


@pytest.mark.ray
def test_a_pool_that_never_fits_is_refused(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(demand, "check_demand", functools.partial(demand.check_demand, patience=0.5))
    distributed.check_room(pattern_config(tmp_path / "o"))
    for how, text in (
        ({"gpus_per_actor": 1}, r"1 x \{CPU: 0.89, GPU: 1\}"),
        ({"min_actors": 9}, r"9 x \{CPU: 0.89\}"),
        ({"cpus_per_actor": 4}, r"1 x \{CPU: 4\}"),
    ):
        with pytest.raises(InputError, match=rf"^generate: how.min_actors and a writer: .* cannot satisfy {text}"):
            distributed.check_room(pattern_config(tmp_path / "o", how=how))
