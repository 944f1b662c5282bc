import os
import stat

import pytest

from synface.core.errors import InputError
from synface.store import s3
from synface.store import uri as uris


@pytest.mark.parametrize(
    ("uri", "match"),
    [("", "empty URI"), ("ftp://h/x", "unknown scheme 'ftp'; known"), ("http://h/x", "unknown scheme")],
)
def test_unknown_places(uri, match):
    for call in (uris.resolve, uris.exists, uris.read_bytes, uris.list_files, uris.delete_file):
        with pytest.raises(InputError, match=match):
            call(uri)


def test_a_custom_endpoint_comes_from_the_environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert s3.endpoint() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert s3.endpoint() == "http://127.0.0.1:9000"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "store.example:443")
    assert s3.endpoint() == "https://store.example:443"
    filesystem, path = uris.resolve("s3://bucket/a/b/")
    assert path == "bucket/a/b" and filesystem.type_name == "s3"
    assert uris._s3_options()["endpoint_override"] == "store.example:443"


def test_paths_and_joins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert uris.absolute("a/../b") == str(tmp_path / "b") and uris.absolute("file:///x/y/") == "/x/y"
    assert uris.join("s3://b/x/", "/y", "", "z") == "s3://b/x/y/z"
    assert s3.split("s3://bucket/a/b/") == ("bucket", "a/b") and s3.split("s3://bucket") == ("bucket", "")


def test_a_stream_appears_whole_or_not_at_all(tmp_path):
    place = str(tmp_path / "deep" / "x.bin")
    with uris.open_writer(place) as stream:
        stream.write(b"one")
        assert not os.path.exists(place)
        stream.write(b"two")
    assert uris.read_bytes(place) == b"onetwo"
    with pytest.raises(TypeError), uris.open_writer(place) as stream:
        stream.write("not bytes")
    assert uris.read_bytes(place) == b"onetwo" and uris.list_files(str(tmp_path)) == [("deep/x.bin", 6)]
    with uris.open_reader(place) as stream:
        assert stream.read(4) == b"onet" and stream.read() == b"wo"
    with pytest.raises(InputError, match="cannot be read"), uris.open_reader(str(tmp_path / "none")):
        pass


def test_readable_errors(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        uris.read_bytes(str(tmp_path / "none"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="a folder stands where the file should go"):
        uris.write_bytes(str(tmp_path / "folder"), b"x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a part of the path is a file"):
        uris.write_bytes(str(tmp_path / "file" / "x"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(InputError, match="permission denied"):
        uris.check_writable(str(tmp_path / "x"))


def test_no_credentials_are_told(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3.client.cache_clear()
    with pytest.raises(InputError, match="no credentials found"):
        uris.check_writable("s3://bucket/x")
    s3.client.cache_clear()
