"""The requests of a run as they are estimated, against those that its code makes."""

from collections import Counter

from synface.generate import distributed, writer
from synface.generate import run as generate_run
from synface.generate.config import GenerateConfig
from synface.ops import demand
from synface.store import cost
from synface.store import uri as uris

#: what a run asks of the store however large it is: plan, manifest, card, lease, probes (`cost` leaves it out)
FIXED = 30


def counted(tmp_path, monkeypatch, name, identities):
    """A run with its stages called one after the other in this process, and what it asks of the store."""
    calls = Counter()
    kinds = {"write_bytes": "put", "read_bytes": "get", "list_infos": "list", "exists": "get"}
    with monkeypatch.context() as patch:
        for function, kind in kinds.items():
            original = getattr(uris, function)

            def counting(place, *rest, original=original, kind=kind, **more):
                calls[kind] += 1
                if kind == "put":
                    calls["bytes_written"] += len(rest[0])
                return original(place, *rest, **more)

            patch.setattr(uris, function, counting)

        def in_process(config, people, versions, erased, todo):
            actor = distributed.ShardActor(config, [], None, erased)
            for shard in todo:
                yield writer.write_row(actor(distributed._request(shard, people)), config.output, versions)

        patch.setattr(distributed, "_stream", in_process)
        patch.setattr(distributed, "check_room", lambda config: None)
        patch.setattr(distributed.cluster, "connect", lambda: None)
        patch.setattr(distributed.cluster, "check_output_reachable", lambda output: None)
        patch.setattr(demand, "nodes", list)
        config = GenerateConfig(
            output=str(tmp_path / name), num_identities=identities, domain="heads-digi", images_per_identity=1,
            images_per_shard=1, image_size=32,
        )  # fmt: skip
        result = generate_run.run(config)
    return calls, result


def test_requests_grow_as_estimated(tmp_path, monkeypatch):
    small, first = counted(tmp_path, monkeypatch, "small", 2)
    large, second = counted(tmp_path, monkeypatch, "large", 6)
    low, high = (cost.table_written(r["shards"], r["bytes"]) for r in (first, second))
    assert large["put"] - small["put"] == high.put - low.put == 8
    assert large["get"] - small["get"] == high.get - low.get == 4
    assert large["list"] - small["list"] == high.list - low.list == 0
    assert 0 <= small["put"] + small["get"] + small["list"] - low.put - low.get - low.list <= FIXED
    entry = (large["bytes_written"] - small["bytes_written"] - second["bytes"] + first["bytes"]) / 4
    assert 0.5 * cost.LEDGER_BYTES < entry < 1.5 * cost.LEDGER_BYTES
