import json

from synface.store import artifact, ledger
from synface.store import uri as uris
from synface.store.status import status

HASH = "a" * 64


def test_a_shard_is_finished_only_with_its_entry(tmp_path):
    output = str(tmp_path)
    data = b"whole shard"
    # killed between the data and the entry: the file is there, the shard is not
    uris.write_bytes(uris.join(output, ledger.shard_path(0, artifact.sha256_hex(data))), data)
    assert ledger.load(output) == {} and ledger.finished(output, dict.fromkeys(range(9), HASH)) == {}
    entry = ledger.write_shard(output, 0, data, 5, HASH, versions={"numpy": "2"})
    assert ledger.finished(output, dict.fromkeys(range(9), HASH)) == {0: entry}
    assert entry.path == f"data/train-00000-{entry.sha256[:12]}.parquet"
    assert entry.file == artifact.FileEntry(entry.path, artifact.sha256_hex(data), len(data), 5)


def test_lost_shortened_foreign_and_failed_shards_are_work_to_redo(tmp_path):
    output = str(tmp_path)
    lost, short, foreign, failed, good = (
        ledger.write_shard(
            output,
            n,
            bytes([n]) * 9,
            1,
            HASH if n != 2 else "b" * 64,
            [ledger.failure("x", 0, "bad")] if n == 3 else [],
        )
        for n in range(5)
    )
    (tmp_path / lost.path).unlink()
    (tmp_path / short.path).write_bytes(b"x")
    assert ledger.finished(output, dict.fromkeys(range(9), HASH)) == {4: good}
    assert set(ledger.load(output)) == {0, 1, 2, 3, 4} and failed.failed and foreign.config_hash != HASH


def test_two_writers_of_a_shard_leave_one_valid_state(tmp_path):
    output = str(tmp_path)
    first = ledger.write_shard(output, 0, b"one", 1, HASH)
    second = ledger.write_shard(output, 0, b"two", 1, HASH)
    assert ledger.finished(output, dict.fromkeys(range(9), HASH)) == {0: second}
    # both files are whole; what the other writer's manifest lists is still there
    assert (tmp_path / first.path).read_bytes() == b"one" and (tmp_path / second.path).read_bytes() == b"two"


def test_damaged_entries_are_no_entries(tmp_path):
    output = str(tmp_path)
    entry = ledger.write_shard(output, 0, b"data", 1, HASH)
    place = tmp_path / ledger.entry_path(0)
    whole = place.read_text()
    for text in ("", "{", "[]", json.dumps({"shard": 0}), whole.replace(entry.sha256, "0" * 64)):
        place.write_text(text)
        assert ledger.load(output) == {}
    # an entry cannot point outside the data folder
    place.write_text(whole.replace(entry.path, "../../etc/passwd"))
    assert ledger.load(output) == {}
    place.write_text(whole)
    assert ledger.load(output) == {0: entry}
    ledger.forget(output, 0)
    assert ledger.load(output) == {}


def test_an_entry_names_the_run_that_wrote_it(tmp_path):
    output = str(tmp_path)
    ledger.write_shard(output, 0, b"one", 1, HASH, run="night-7")
    ledger.write_shard(output, 1, b"two", 1, HASH, run="3fa91c2b")
    ledger.write_shard(output, 2, b"three", 1, HASH, run="3fa91c2b")
    assert [ledger.load(output)[n].run for n in range(3)] == ["night-7", "3fa91c2b", "3fa91c2b"]
    artifact.write_plan(output, {"fields": {}})
    assert status(output)["runs"] == {"3fa91c2b": 2, "night-7": 1}
    # entries from before the field are read; one that is no text is damaged
    place = tmp_path / ledger.entry_path(0)
    fields = json.loads(place.read_text())
    place.write_text(json.dumps({k: v for k, v in fields.items() if k != "run"}))
    assert ledger.load(output)[0].run == "" and status(output)["runs"] == {"3fa91c2b": 2}
    place.write_text(json.dumps(fields | {"run": 7}))
    assert 0 not in ledger.load(output)
