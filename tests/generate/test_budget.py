import time

import pytest
from generate_helpers import files, pattern_config
from scored import without_ray

from synface.core.errors import InputError, PartialError
from synface.generate.budget import Budget
from synface.generate.config import GenerateHow
from synface.generate.run import run
from synface.store import artifact, erasure, leases, ledger
from synface.store.erasure import erase
from synface.store.verify import verify


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


def test_cost_is_the_integral_of_nodes_over_time():
    clock, nodes = Clock(), [2]
    budget = Budget(GenerateHow(max_cost=5, cost_per_hour=2), lambda: nodes[0], clock)
    clock.seconds += 1800
    assert budget.over() is None and budget.cost == pytest.approx(2.0)  # half an hour of two
    nodes[0] = 4
    clock.seconds += 900
    assert budget.over() is None and budget.cost == pytest.approx(4.0)
    clock.seconds += 450
    assert budget.over() is None and budget.cost == pytest.approx(5.0)
    clock.seconds += 1
    assert budget.over() == "how.max_cost = 5.0 (spent: 5.00)"


def test_hours_count_from_the_start():
    clock = Clock()
    budget = Budget(GenerateHow(max_hours=0.5), lambda: 1, clock)
    clock.seconds += 1800
    assert budget.over() is None
    clock.seconds += 0.1
    assert budget.over() == "how.max_hours = 0.5"


def test_a_cost_needs_a_price():
    with pytest.raises(InputError, match="max_cost needs cost_per_hour"):
        pattern_config("o", how={"max_cost": 3})


def test_money_that_is_spent_ends_the_run_cleanly_and_it_continues(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    run(pattern_config(tmp_path / "calm"))
    with pytest.raises(
        PartialError, match=r"stopped after how.max_cost = 1e-12 .*the same command continues"
    ) as caught:
        run(pattern_config(tmp_path / "o", how={"max_cost": 1e-12, "cost_per_hour": 1.0}))
    assert caught.value.exit_code == 3
    assert len(ledger.load(str(tmp_path / "o"))) == 1 and artifact.load_manifest(str(tmp_path / "o")) is None
    run(pattern_config(tmp_path / "o"))
    assert files(tmp_path / "o") == files(tmp_path / "calm")


def test_a_run_holds_a_lease_while_it_makes_shards(tmp_path, monkeypatch):
    seen = []

    def order(todo):
        seen.extend(leases.living(str(tmp_path / "o"), time.time()))
        return todo

    without_ray(monkeypatch, order)
    run(pattern_config(tmp_path / "o"))
    assert [one["verb"] for one in seen] == ["generate"]
    assert leases.living(str(tmp_path / "o"), time.time()) == []


def test_an_erased_identity_is_not_made_again(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    config = pattern_config(tmp_path / "o")
    run(config)
    erase(config.output, "pattern-000005")
    before = files(tmp_path / "o")
    assert run(config)["cached"]
    (tmp_path / "o" / ledger.load(config.output)[1].path).unlink()
    verify(config.output, repair=True)
    assert run(config)["images"] == 44 and files(tmp_path / "o") == before
    grown = run(pattern_config(tmp_path / "o", num_identities=14, images_per_identity=5, how={"append": True}))
    assert grown["images"] == 13 * 5 and grown["erased_sha256"] == [erasure.digest_of("pattern-000005")]
    assert b"pattern-000005" not in b"".join(files(tmp_path / "o").values())
