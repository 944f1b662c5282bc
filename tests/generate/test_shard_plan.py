import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.generate.plan import SHARDS_WANTED, SMALLEST_SHARD, Identity, plan_shards, shard_items


@given(st.integers(1, 3000), st.integers(1, 100), st.none() | st.integers(1, 5000), st.integers(64, 4096))
def test_every_image_is_in_exactly_one_shard(identities, samples, per_shard, largest):
    plan = plan_shards(identities, samples, per_shard, largest)
    rows = [label for shard in range(plan.shards) for label in plan.shard(shard).labels]
    assert rows == list(range(identities))
    assert sum(plan.shard(s).images for s in range(plan.shards)) == plan.images == identities * samples
    limit = max(per_shard or largest, SMALLEST_SHARD if per_shard is None else 1, samples)
    assert max(plan.shard(s).images for s in range(plan.shards)) <= limit


def test_automatic_shards_balance_small_sets_and_bound_large_ones():
    assert plan_shards(1200, 2, None, 2048).shards == SHARDS_WANTED
    assert plan_shards(4, 2, None, 2048).shards == 1
    assert plan_shards(10**6, 64, None, 2048).shard(0).images == 2048


def test_keys_are_seed_identity_and_sample_alone():
    people = [Identity(n, f"id-{n}", "s", n) for n in range(3)]
    items = shard_items(7, people, 4)
    assert [(i.identity.label, i.sample) for i in items] == [(n, k) for n in range(3) for k in range(4)]
    assert items[5].key == (7, "id-1", 1) and len({i.seed for i in items}) == 12
    # more samples, another order, another label: the same keys for the same image
    more = {i.key: i.seed for i in shard_items(7, [Identity(9, "id-1", "s", 1)], 9)}
    assert all(more[i.key] == i.seed for i in items if i.identity.identity_id == "id-1")
    assert shard_items(8, people, 1)[0].seed != items[0].seed


@pytest.mark.parametrize("samples", [1, 5, 100])
def test_a_shard_holds_whole_identities(samples):
    plan = plan_shards(10, samples, 12, 2048)
    assert plan.parts[0].identities_per_shard == max(1, 12 // samples)
