import io
import json
import os
import tarfile

import pytest
import yaml

from synface.core.errors import InputError
from synface.store import artifact, ledger, tables
from synface.store.card import card
from synface.store.clean import clean
from synface.store.export import FORMATS, export
from synface.store.formats.naming import safe_name
from synface.store.status import quarantined, status
from synface.store.verify import verify


def test_status_of_a_finished_and_an_unfinished_table(images_at, tmp_path):
    done = status(images_at(tmp_path / "a"))
    assert done["state"] == "finished" and done["rows"] == 12 and done["shards_done"] == done["shards"] == 2
    half = images_at(tmp_path / "b", finish=False)
    ledger.forget(half, 1)
    found = status(half)
    assert found["state"] == "unfinished" and (found["shards_done"], found["shards"], found["rows"]) == (1, 2, 6)
    with pytest.raises(InputError, match="nothing stands there"):
        status(str(tmp_path / "none"))


def test_status_names_the_failed_images(images_at, tmp_path):
    lost = {"identity_id": "id-0", "sample": 2, "error": "no face"}
    output = images_at(tmp_path / "a", failed=[lost])
    found = status(output)
    assert found["state"] == "finished in part" and found["failed"] == 1 and quarantined(output) == [lost]


def test_verify_finds_each_kind_of_damage_and_repair_makes_it_work_again(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    assert verify(output)["damaged"] == [] and verify(output)["exit_code"] == 0
    first, second = sorted((tmp_path / "a" / "data").iterdir())
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-10])
    found = verify(output)
    assert found["exit_code"] == 1
    assert [d["fault"] for d in found["damaged"]] == [
        "sha256 differs",
        f"{second.stat().st_size} bytes, listed {second.stat().st_size + 10}",
    ]
    assert len(ledger.load(output)) == 2
    verify(output, repair="true")
    assert ledger.load(output) == {} and not first.exists()
    assert verify(output)["damaged"][0]["fault"] == "missing"


def test_damaged_shards_are_not_read(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    path = sorted((tmp_path / "a" / "data").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="bytes differ from the manifest"):
        list(tables.iter_images(output))


def test_clean_removes_only_what_nothing_lists(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    root = tmp_path / "a"
    (root / "data" / "train-00000-000000000000.parquet").write_bytes(b"dead attempt")
    (root / "data" / ".train-00001.parquet.0123.tmp").write_bytes(b"half")
    (root / "_synface" / "probe-0123").write_bytes(b"probe")
    (root / "notes.txt").write_text("mine")
    assert clean(output)["removed"] == []  # all too young: a run under way may need them
    found = clean(output, min_age_hours=0, dry_run=True)
    assert len(found["removed"]) == 3 and found["bytes"] == 12 + 4 + 5
    assert clean(output, min_age_hours="0")["removed"] == found["removed"]
    assert (root / "notes.txt").exists() and verify(output)["exit_code"] == 0
    old = root / "data" / "train-00009-000000000000.parquet"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert clean(output)["removed"] == ["data/train-00009-000000000000.parquet"]
    with pytest.raises(InputError):
        clean(str(tmp_path))  # not made by synface
    with pytest.raises(InputError, match="min_age_hours = 'soon': expected a number"):
        clean(output, min_age_hours="soon")


def test_the_card_lists_what_the_manifest_lists(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "cc0-1.0" and header["size_categories"] == ["n<1K"]
    paths = header["configs"][0]["data_files"][0]["path"]
    assert paths == [f.path for f in artifact.require(output).files]
    (tmp_path / "a" / "README.md").unlink()
    assert card(output)["images"] == 12 and (tmp_path / "a" / "README.md").read_text() == text
    assert "| leakage against real galleries | not measured yet" in text


def test_the_card_states_the_leakage_of_an_audit_of_just_this_content(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    leak = {"leaking_samples": 3, "samples": 12, "leaking_identities": 2, "threshold_cosine": 0.4, "max_cosine": 0.75}
    leak |= {"threshold_rule": "given", "reference_images": 7, "reference_identities": 5}
    numbers = {"leakage": leak, "scorer_sha256": "5c" * 32}

    def audit(name, numbers, digest):
        inputs = {"images": digest, "reference": "9f" * 32}
        manifest = artifact.Manifest("audit", "audit", "0" * 64, {}, inputs, (), numbers, {})
        artifact.write_manifest(str(tmp_path / name), manifest)
        return str(tmp_path / name)

    digest = artifact.require(output).content_digest
    found = card(output, audit=audit("b", numbers, digest))
    line = "3 of 12 samples (2 identities) at or above cosine 0.4000 (given) to one of 7 images of 5 people (content "
    assert found["leakage"] == line + "`9f9f9f9f9f9f`); largest 0.7500; recognizer `5c5c5c5c5c5c`"
    assert f"| leakage against real galleries | {found['leakage']} |" in (tmp_path / "a" / "README.md").read_text()
    with pytest.raises(InputError, match="audit it as it is now"):
        card(output, audit=audit("c", numbers, "0" * 64))
    with pytest.raises(InputError, match="made without a reference"):
        card(output, audit=audit("d", {}, digest))
    with pytest.raises(InputError, match="holds 'images', expected 'audit'"):
        card(output, audit=output)


def test_no_card_without_licences(images_at, tmp_path):
    with pytest.raises(InputError, match="no card without licences"):
        images_at(tmp_path / "a", licence="")
    assert artifact.load_manifest(str(tmp_path / "a")) is None


NAMES = {0: "../../evil", 1: "a/b", 2: ".hidden", 3: "n 0\u00e9"}


def test_folder_export(images_at, tmp_path):
    output = images_at(tmp_path / "a", names=NAMES)
    target = tmp_path / "out" / "folder"
    result = export(output, "folder", str(target))
    assert result["images"] == 12 and not result["cached"]
    assert sorted(p.name for p in target.parent.iterdir()) == ["folder"]
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*.jpg")}
    assert found == {f"{safe_name(r['identity_id'])}/{r['sample']:05d}.jpg": r["image"]["bytes"] for r in rows}
    assert len(found) == 12
    assert export(output, "folder", str(target))["cached"]
    with pytest.raises(InputError, match="holds an export"):
        export(output, "webdataset", str(target))


def test_webdataset_export(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    export(output, "webdataset", str(tmp_path / "w"))
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    index = 0
    for path in sorted((tmp_path / "w").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]
        for image, label, meta in zip(members[::3], members[1::3], members[2::3], strict=True):
            row = rows[index]
            index += 1
            key = f"{row['label']:07d}_{row['sample']:05d}"
            assert (image, label) == (
                (f"{key}.jpg", row["image"]["bytes"]),
                (f"{key}.cls", str(row["label"]).encode()),
            )
            assert meta[0] == f"{key}.json" and json.loads(meta[1])["identity_id"] == row["identity_id"]
    assert index == 12
    data = sorted((tmp_path / "w").glob("*.tar"))[0].read_bytes()
    export(output, "webdataset", str(tmp_path / "w2"))
    assert data == sorted((tmp_path / "w2").glob("*.tar"))[0].read_bytes()
    assert io.BytesIO(data).read(10)


def test_exports_refuse_other_places_and_names(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(output, "folder", str(tmp_path / "full"))
    with pytest.raises(InputError, match="unknown export format 'zip'; known: "):
        export(output, "zip", str(tmp_path / "z"))
    with pytest.raises(InputError, match="no finished synface result"):
        export(images_at(tmp_path / "half", finish=False), "folder", str(tmp_path / "h"))
    assert set(FORMATS) >= {"folder", "webdataset"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "x" * 500, "con\x00", "\u4e2d", "%2E", "a b"])
def test_safe_names(name):
    safe = safe_name(name)
    assert safe and "/" not in safe and not safe.startswith(".") and len(safe.encode()) <= 200 and "\x00" not in safe


def test_safe_names_differ():
    names = ["", ".", "..", "%", "%2E", "a/b", "a%2Fb", "x" * 500, "x" * 499, "id-1"]
    assert len({safe_name(n) for n in names}) == len(names) and safe_name("id-1") == "id-1"
