"""Bad input is refused before any work: no Ray here, and nothing written that a reader would believe."""

import errno
import os
import subprocess

import numpy as np
import pytest
from generate_helpers import write_identities

from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.run import plan, run
from synface.settings import build
from synface.store import artifact, ledger, tables
from synface.store import uri as uris


def refused(config, match):
    with pytest.raises(InputError, match=match) as caught:
        run(config)
    assert str(caught.value).count("\n") < 20
    assert artifact.load_manifest(config.output) is None


def test_missing_identities(pattern, tmp_path):
    refused(pattern(tmp_path / "o", identities=str(tmp_path / "none")), "nothing stands there")
    assert not (tmp_path / "o").exists()


def test_corrupt_identities(pattern, tmp_path):
    source = write_identities(tmp_path / "ids")
    path = tmp_path / "ids" / tables.IDENTITIES_FILE
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    refused(pattern(tmp_path / "o", identities=source), "bytes differ from the manifest")
    loose = tmp_path / "loose.parquet"
    loose.write_bytes(data[: len(data) // 2])
    refused(pattern(tmp_path / "o", identities=str(loose)), "not a readable Parquet file")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x.__setitem__((2, 0), np.nan), "has norm nan"),
        (lambda x: x.__setitem__(slice(1, 2), 0.0), "has norm 0"),
        (lambda x: x.__imul__(2.0), "6 of 6 rows are not unit vectors"),
    ],
)
def test_embeddings_that_are_no_unit_vectors(pattern, tmp_path, change, match):
    x = np.eye(8, dtype=np.float32)[:6].copy()
    change(x)
    refused(pattern(tmp_path / "o", identities=write_identities(tmp_path / "ids", embedding_nd=x)), match)


def test_duplicate_ids(pattern, tmp_path):
    source = write_identities(tmp_path / "ids", ids=["a", "b", "c", "b", "d", "e"])
    refused(pattern(tmp_path / "o", identities=source), "'b' stands more than once")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("haeds", "unknown generator 'haeds'; known: .*cemiface, .*heads"),
        ("no_such_module:Thing", "cannot be imported"),
        ("pattern_generator:Nothing", "cannot be imported"),
        ("json:dumps", r"has no describe\(\)"),
    ],
)
def test_unknown_generators(pattern, tmp_path, name, match):
    refused(pattern(tmp_path / "o", generator=name), match)


def test_heads_needs_a_domain_it_knows(tmp_path):
    base = {"output": str(tmp_path / "o"), "num_identities": 3}
    refused(build(GenerateConfig, base), "needs a domain; known: heads-real, heads-digi")
    refused(build(GenerateConfig, base | {"domain": "heads-surreal"}), "unknown domain of heads")
    beyond = base | {"domain": "heads-digi", "num_identities": 10**9, "first_seed": 5}
    refused(build(GenerateConfig, beyond), "beyond the split")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "give either identities"),
        ({"num_identities": 3, "identities": "x"}, "give either identities"),
        ({"identities": "x", "first_seed": 4}, "first_seed belongs to num_identities"),
        ({"num_identities": 3, "image_size": 8}, "image_size"),
        ({"num_identities": 3, "format": "gif"}, "format = 'gif'"),
        ({"num_identities": 3, "quality": 101}, "quality = 101"),
        ({"num_identities": 3, "options": {"a": 1}}, "options are for package.module:attribute"),
        ({"num_identities": 3, "how": {"min_actors": 4, "max_actors": 2}}, "max_actors 2 is below"),
        ({"num_identities": 3, "imagesize": 8}, r"imagesize: unknown field \(did you mean 'image_size'"),
    ],
)
def test_refused_configurations(fields, match):
    with pytest.raises(InputError, match=match):
        build(GenerateConfig, {"output": "o"} | fields)


def test_another_configuration_owns_the_output(pattern, tmp_path):
    artifact.open_output(pattern(tmp_path / "o"), components={"pattern": "1", "weights": "0" * 64})
    ledger.write_work(str(tmp_path / "o"), shards=2, images=8)
    before = sorted(os.listdir(tmp_path / "o" / "_synface"))
    refused(pattern(tmp_path / "o", seed=1), r"fields\.seed: '\(default\)' -> 1")
    assert sorted(os.listdir(tmp_path / "o" / "_synface")) == before


def test_a_new_version_of_the_generator_is_another_configuration(pattern, tmp_path):
    artifact.open_output(pattern(tmp_path / "o"), components={"pattern": "0", "weights": "0" * 64})
    ledger.write_work(str(tmp_path / "o"), shards=2, images=8)
    refused(pattern(tmp_path / "o"), r"components\.pattern: '0' -> '1'")


def test_unwritable_destinations(pattern, tmp_path):
    (tmp_path / "file").write_text("")
    refused(pattern(tmp_path / "file" / "o"), "cannot be written.*not a folder")
    refused(pattern("/proc/synface-output"), "cannot be written")
    with pytest.raises(InputError, match="unknown scheme 'ftp'"):
        run(pattern("ftp://host/o"))


def test_no_space_left(small_disk):
    disk = small_disk("64k")
    with pytest.raises(InputError, match="no space left on the device; free some"):
        uris.write_bytes(str(disk / "a" / "big.bin"), b"x" * 200_000)
    assert [p for p in disk.rglob("*") if p.is_file()] == []
    uris.write_bytes(str(disk / "small.bin"), b"x")


def test_a_read_only_disk(pattern, small_disk):
    disk = small_disk("64k")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused(pattern(disk / "o"), "cannot be written.*the filesystem is read-only; choose another output")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_the_reason_of_a_full_device_is_told():
    assert "no space left" in uris.WRITE_REFUSALS[errno.ENOSPC]
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")
    assert caught.value.errno == errno.ENOSPC


def test_the_plan_costs_nothing_and_says_what_would_be_made(pattern, tmp_path):
    found = plan(pattern(tmp_path / "o"))
    assert (found["identities"], found["images"], found["shards"], found["images_per_shard"]) == (12, 48, 3, 16)
    assert not (tmp_path / "o").exists()
