import json
import os
import time

import numpy as np
import pytest

from synface.core.errors import InputError
from synface.store import artifact, card, erasure, leases, ledger, schemas, tables
from synface.store import uri as uris
from synface.store.clean import clean
from synface.store.compact import compact
from synface.store.erasure import erase
from synface.store.status import status
from synface.store.verify import verify


def ids_of(uri):
    return {one for t in tables.iter_images(uri) for one in t["identity_id"].to_pylist()}


def everything(root):
    return b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("compacted", [False, True])
def test_an_erased_identity_is_gone_from_every_file(images_at, tmp_path, compacted):
    names = {0: "anna", 1: "bob", 2: "carl", 3: "anna-2"}
    lost = {"identity_id": "anna", "sample": 9, "error": "no face"}
    output = images_at(tmp_path / "a", names=names, failed=[lost])
    if compacted:
        compact(output)
    untouched = [f for f in artifact.require(output).files if "train-00001" in f.path]
    assert erase(output, "anna", dry_run="true")["identities"] == ["anna"] and "anna" in ids_of(output)
    result = erase(output, "anna")
    assert (result["identities"], result["images"]) == (["anna"], 3)
    assert ids_of(output) == {"bob", "carl", "anna-2"}
    manifest = artifact.require(output)
    assert manifest.numbers["images"] == 9 and manifest.numbers["erased_identities"] == 1
    assert manifest.numbers["erased_sha256"] == [erasure.digest_of("anna")]
    assert "9 images of 3 synthetic identities" in (tmp_path / "a" / "README.md").read_text()
    assert set(untouched) <= set(manifest.files)
    # nowhere any more: no dead file, no earlier manifest, no ledger entry names or holds it
    whole = everything(tmp_path / "a")
    assert whole.count(b"anna") == whole.count(b"anna-2")
    assert artifact.earlier_versions(output) == {} and verify(output)["exit_code"] == 0
    assert clean(output, min_age_hours=0)["removed"] == []
    # again: nothing left to do
    assert erase(output, "anna")["images"] == 0
    with pytest.raises(InputError, match="no identity is derived from 'zoe' among its 3"):
        erase(output, "zoe")


def test_a_killed_erasure_is_finished_by_the_same_command(images_at, tmp_path, monkeypatch):
    calm, rough = images_at(tmp_path / "a"), images_at(tmp_path / "b")
    erase(calm, "id-2")
    for room, name in ((ledger, "write_shard"), (card, "publish")):
        monkeypatch.setattr(room, name, lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            erase(rough, "id-2")
        monkeypatch.undo()
    assert erasure.erased(rough) == {erasure.digest_of("id-2")}
    erase(rough, "id-2")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def identities(path, ids, x_nd, sha="ab" * 32):
    table = schemas.identities_table(
        ids, x_nd.astype(np.float32), ["s"] * len(ids), [0] * len(ids), {"embedder_sha256": sha}
    )
    uris.write_bytes(str(path), tables.parquet_bytes(table))
    return str(path)


def test_identities_near_a_subject_count_as_derived(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    angle = np.array([0.0, 0.3, 1.2, 2.0])
    x_nd = np.stack([np.cos(angle), np.sin(angle)], 1)
    people = identities(tmp_path / "people.parquet", [f"id-{n}" for n in range(4)], x_nd)
    faces = identities(tmp_path / "faces.parquet", ["anna", "bob"], np.eye(2))
    given = {"identities": people, "gallery": faces, "cosine": "0.9"}
    assert erase(output, "anna", **given, dry_run=True)["identities"] == ["id-0", "id-1"]
    assert erase(output, "bob", **given)["identities"] == ["id-2", "id-3"] and ids_of(output) == {"id-0", "id-1"}
    with pytest.raises(InputError, match="belong together"):
        erase(output, "anna", gallery=faces)
    with pytest.raises(InputError, match="no subject 'carl'"):
        erase(output, "carl", **given)
    with pytest.raises(InputError, match="cosine = 'near'"):
        erase(output, "anna", **given | {"cosine": "near"})
    other = identities(tmp_path / "other.parquet", ["anna"], np.eye(2)[:1], sha="cd" * 32)
    with pytest.raises(InputError, match="different recognizers"):
        erase(output, "anna", **given | {"gallery": other})


def test_a_run_under_way_is_never_robbed(images_at, tmp_path):
    output, root = images_at(tmp_path / "a"), tmp_path / "a"
    young = root / "data" / "train-00007-000000000000.parquet"
    with leases.held(output, "generate", renew=0.02):
        young.write_bytes(b"about to be listed")
        found = clean(output, min_age_hours=0)
        assert found["removed"] == [] and found["running"][0]["verb"] == "generate" and young.exists()
        assert status(output)["running"][0]["pid"] == os.getpid()
        for change in (lambda: erase(output, "id-0"), lambda: compact(output)):
            with pytest.raises(InputError, match="a run is under way there"):
                change()
        (lease,) = (root / artifact.LEASES).glob("*.json")
        os.utime(lease, (0, 0))  # it is renewed, or made again
        waiting = time.monotonic() + 60
        while lease.stat().st_mtime < 1 and time.monotonic() < waiting:
            time.sleep(0.02)
        assert lease.stat().st_mtime > 1
    assert list((root / artifact.LEASES).iterdir()) == []
    assert clean(output, min_age_hours=0)["removed"] == ["data/train-00007-000000000000.parquet"]


def test_a_dead_run_holds_nothing_back(images_at, tmp_path):
    output, root = images_at(tmp_path / "a"), tmp_path / "a"
    (root / artifact.LEASES).mkdir()
    lease = root / artifact.LEASES / "0123.json"
    lease.write_text("{half")  # unreadable, and it counts all the same
    dead = root / "data" / "train-00007-000000000000.parquet"
    dead.write_bytes(b"x")
    assert len(clean(output, min_age_hours=0)["running"]) == 1
    past = lease.stat().st_mtime - leases.LEASE_SECONDS - 5
    os.utime(lease, (past, past))
    found = clean(output, min_age_hours=0)
    assert found["running"] == [] and len(found["removed"]) == 2 and not dead.exists() and not lease.exists()


def test_damaged_records_are_told(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    for path, read in ((erasure.ERASED, erasure.erased), (ledger.COMPACTED, ledger.compacted)):
        for text in ("", "{", "[]", json.dumps({"sha256": 3, "files": [{}]})):
            (tmp_path / "a" / path).write_text(text)
            with pytest.raises(InputError, match="damaged"):
                read(output)
        (tmp_path / "a" / path).unlink()
