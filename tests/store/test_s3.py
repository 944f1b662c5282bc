"""Against a real S3 server."""

import datetime
import os
import threading
import time

import boto3
import botocore.auth
import pytest
from faulty_proxy import faulty
from s3_server import READER

from synface.core.errors import InputError, SynfaceError
from synface.store import artifact, leases, ledger, tables
from synface.store import s3 as store_s3
from synface.store import uri as uris
from synface.store.clean import clean
from synface.store.compact import compact
from synface.store.erasure import erase
from synface.store.export import export
from synface.store.status import status
from synface.store.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_clients():
    store_s3.client.cache_clear()
    yield
    store_s3.client.cache_clear()


def test_whole_objects(s3):
    place = uris.join(s3, "a/b c/\u00e9.bin")
    assert not uris.exists(place) and not uris.exists(uris.join(s3, "a"))
    for data in (b"", b"one", os.urandom(3 << 20)):
        uris.write_bytes(place, data)
        assert uris.read_bytes(place) == data
    assert uris.exists(place) and uris.is_file(place) and uris.exists(uris.join(s3, "a"))
    assert not uris.is_file(uris.join(s3, "a")) and not uris.exists(uris.join(s3, "a/b"))
    filesystem, path = uris.resolve(place)
    with filesystem.open_input_file(path) as stream:
        assert stream.read() == data
    uris.delete_file(place)
    uris.delete_file(place)
    with pytest.raises(InputError, match="no such object"):
        uris.read_bytes(place)


def test_large_objects_go_in_parts(s3, monkeypatch):
    monkeypatch.setattr(store_s3, "MULTIPART_BYTES", 24 << 20)
    data = os.urandom(25 << 20)
    uris.write_bytes(uris.join(s3, "large"), data)
    assert uris.read_bytes(uris.join(s3, "large")) == data


def test_listing(s3):
    for name in ("x/1", "x/2", "x/y/3", "xx/4"):
        uris.write_bytes(uris.join(s3, name), name.encode())
    assert uris.list_files(uris.join(s3, "x")) == [("1", 3), ("2", 3), ("y/3", 5)]
    assert uris.list_files(uris.join(s3, "x"), recursive=False) == [("1", 3), ("2", 3)]
    assert uris.list_files(uris.join(s3, "none")) == []
    assert abs(uris.list_infos(uris.join(s3, "x"))[0][2] - time.time()) < 120


def test_an_artifact_and_the_tools_on_it(s3, images_at, tmp_path):
    output, local = images_at(uris.join(s3, "data/set")), images_at(tmp_path / "local")
    for path, size in uris.list_files(local):
        assert uris.read_bytes(uris.join(output, path)) == (tmp_path / "local" / path).read_bytes() and size
    assert uris.list_files(output) == uris.list_files(local)
    remote_tables = [t.to_pylist() for t in tables.iter_images(output)]
    assert remote_tables == [t.to_pylist() for t in tables.iter_images(local)]
    assert verify(output)["exit_code"] == 0 and status(output)["state"] == "finished"
    uris.write_bytes(uris.join(output, "data/train-00000-dead.parquet"), b"x")
    time.sleep(2)  # the store tells times in whole seconds, rounded up
    assert clean(output, min_age_hours=0)["removed"] == ["data/train-00000-dead.parquet"]
    assert export(output, "webdataset", uris.join(s3, "tars"))["images"] == 12
    assert [p for p, _ in uris.list_files(uris.join(s3, "tars"))] == [
        "000000.tar",
        "000001.tar",
        "synface-export.json",
    ]


@pytest.mark.parametrize(
    ("change", "uri", "match"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, "wrong secret key; check AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, None, "check"),
        ({}, "s3://no-such-bucket/x", "bucket does not exist"),
        ({}, "s3:///x", "no bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, "cannot be reached"),
    ],
)
def test_what_is_wrong_is_told_in_seconds(s3, monkeypatch, change, uri, match):
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(InputError, match=match):
        uris.check_writable(uri or s3)
    assert time.monotonic() - started < 30


def test_a_prefix_that_may_only_be_read(s3, swift_server, monkeypatch):
    uris.write_bytes(uris.join(s3, "x"), b"one")
    boto3.client("s3", endpoint_url=swift_server.endpoint).put_bucket_acl(Bucket=s3[5:], ACL="public-read")
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    store_s3.client.cache_clear()
    assert uris.read_bytes(uris.join(s3, "x")) == b"one"
    started = time.monotonic()
    with pytest.raises(InputError, match=r"^output s3:.* cannot be written; .*access denied; check the credentials"):
        uris.check_writable(uris.join(s3, "o"))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock(s3, monkeypatch, hours):
    """Requests signed with another time, as a machine with a wrong clock signs them."""
    right = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: right() + datetime.timedelta(hours=hours))
    started = time.monotonic()
    with pytest.raises(InputError, match="this machine's clock differs from the store's; set the clock"):
        uris.check_writable(uris.join(s3, "o"))
    assert time.monotonic() - started < 30


def test_a_store_that_comes_back_is_waited_for(s3, swift_server):
    place = uris.join(s3, "late")
    swift_server.stop()
    with pytest.raises(SynfaceError, match="cannot be reached"):
        store_s3.write_bytes(place, b"x", patience=1.0)
    starter = threading.Timer(3.0, swift_server.start)
    starter.start()
    uris.write_bytes(place, b"worth the wait")
    starter.join()
    assert uris.read_bytes(place) == b"worth the wait"


@pytest.mark.parametrize(
    "fault",
    [
        lambda n: 503 if n % 3 else None,  # two of three
        lambda n: 500 if 4 <= n < 12 else None,  # more in a row than boto3 tries by itself
        lambda n: 1.5 if n % 4 == 0 else None,
    ],
)
def test_a_store_that_answers_with_errors_or_late_costs_only_time(s3, swift_server, monkeypatch, fault):
    data = {f"shards/{n}": os.urandom(2000) for n in range(8)}
    with faulty(swift_server.ports["proxy"], fault) as (endpoint, seen):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name, content in data.items():
            uris.write_bytes(uris.join(s3, name), content)
        listed = uris.list_files(uris.join(s3, "shards"))
        assert {f"shards/{p}": uris.read_bytes(uris.join(s3, "shards", p)) for p, _ in listed} == data
        for name in data:
            uris.delete_file(uris.join(s3, name))
    assert seen["requests"] > 24 and seen["errors"] + seen["late"] > 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", swift_server.endpoint)
    assert uris.list_files(s3) == []


def test_leases_compaction_and_erasure_on_a_store(s3, images_at):
    output = images_at(uris.join(s3, "grown"))
    uris.write_bytes(uris.join(output, "data/train-00009-dead.parquet"), b"x")
    time.sleep(2)
    with leases.held(output, "generate"):
        assert clean(output, min_age_hours=0)["removed"] == []
        with pytest.raises(InputError, match="a run is under way"):
            compact(output)
    assert uris.list_files(uris.join(output, artifact.LEASES)) == []
    assert compact(output)["files"] == 1 and len(ledger.load(output)) == 2
    time.sleep(2)
    removed = clean(output, min_age_hours=0, earlier_versions="true")["removed"]
    assert len(removed) == 4 and verify(output)["exit_code"] == 0
    assert erase(output, "id-1")["images"] == 3 and verify(output)["exit_code"] == 0
    assert sum(t.num_rows for t in tables.iter_images(output)) == 9
