"""URIs to filesystems, and the few whole-object operations that every writer needs.

Plain paths, ``file://``, ``s3://`` and ``gs://``. A custom S3 endpoint comes from the standard
environment (``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``); credentials from the usual chain.
"""

import contextlib
import datetime
import errno
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs as pafs

from synface.core.errors import InputError, SynfaceError
from synface.store import s3

REMOTE_SCHEMES = ("s3", "gs")
#: seconds that Google storage is retried before an error (S3's own limits stand in `store.s3`)
GCS_RETRY_SECONDS = 180
#: read from a remote file at once
READ_BUFFER_BYTES = 8 << 20
#: what the operating system says of a place that cannot take a file -> what the user can do
WRITE_REFUSALS = {
    errno.ENOSPC: "no space left on the device; free some and run the same command again, what is finished is kept",
    errno.EDQUOT: "disk quota exceeded; free some and run the same command again, what is finished is kept",
    errno.EROFS: "the filesystem is read-only; choose another output",
    errno.EACCES: "permission denied; choose another output or mend its rights",
    errno.EPERM: "not permitted; choose another output or mend its rights",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another output",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another output",
    errno.EISDIR: "a folder stands where the file should go",
    errno.ENAMETOOLONG: "the name is too long",
}


def is_local(uri: str) -> bool:
    """Whether a URI names a place on this machine's own filesystem."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """A plain relative path made absolute; any other URI as it is, without a trailing slash."""
    if is_local(uri):
        return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))
    return uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended, by slashes."""
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts if p)])


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a URI and the path inside it.

    Raises:
        InputError: an unknown scheme, or a filesystem that cannot be reached or set up.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        return pafs.LocalFileSystem(), absolute(uri)
    rest = uri.partition("://")[2].rstrip("/")
    try:
        if scheme == "s3":
            return pafs.S3FileSystem(**_s3_options()), rest
        limit = datetime.timedelta(seconds=GCS_RETRY_SECONDS)
        return pafs.GcsFileSystem(retry_time_limit=limit), rest
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{uri}: cannot open the store ({error})") from error


def scheme_of(uri: str) -> str:
    """``file``, ``s3`` or ``gs``. InputError for any other."""
    if not uri:
        raise InputError("empty URI: give a path, file://, s3:// or gs:// URI")
    if is_local(uri):
        return "file"
    scheme = uri.partition("://")[0]
    if scheme not in REMOTE_SCHEMES:
        raise InputError(f"{uri}: unknown scheme {scheme!r}; known: plain paths, file://, s3://, gs://")
    return scheme


def _s3_options() -> dict:
    options: dict = {"connect_timeout": s3.CONNECT_TIMEOUT_SECONDS, "request_timeout": s3.READ_TIMEOUT_SECONDS}
    endpoint = s3.endpoint()
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return options | ({"region": region} if region else {})


def exists(uri: str, patient: bool = False) -> bool:
    """Whether a file or folder stands at the URI.

    `patient`: asked in the middle of work, so that a store that is away is waited for as a reader or writer waits;
    at its beginning what is wrong is told in seconds.
    """
    if scheme_of(uri) == "s3":
        return s3.exists(uri, s3.PATIENCE_SECONDS if patient else 0.0)
    return _info(uri).type != pafs.FileType.NotFound


def is_file(uri: str) -> bool:
    """Whether a file (or an object of exactly this key) stands at the URI."""
    if scheme_of(uri) == "s3":
        return s3.is_object(uri)
    return _info(uri).type == pafs.FileType.File


def _info(uri: str) -> pafs.FileInfo:
    filesystem, path = resolve(uri)
    try:
        return filesystem.get_file_info(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri}: cannot be reached ({error})") from error


def read_bytes(uri: str) -> bytes:
    """A whole file. InputError if there is none."""
    scheme = scheme_of(uri)
    if scheme == "s3":
        return s3.read_bytes(uri)
    try:
        if scheme == "file":
            return Path(absolute(uri)).read_bytes()
        filesystem, path = resolve(uri)
        with filesystem.open_input_file(path) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error.strerror or error})") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that no reader ever sees a part of it.

    Locally: a temporary file beside it, flushed, then renamed over it. In object stores a put is whole.

    Raises:
        InputError: the place cannot take the file (no space, read-only, no rights); nothing is left there.
        SynfaceError: a remote store that stayed unreachable through all retries.
    """
    scheme = scheme_of(uri)
    if scheme == "s3":
        return s3.write_bytes(uri, data)
    try:
        if scheme == "file":
            return _write_local(Path(absolute(uri)), data)
        filesystem, path = resolve(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
    except OSError as error:
        reason = WRITE_REFUSALS.get(error.errno or 0, str(error))
        raise InputError(f"{uri}: cannot be written: {reason}") from error


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_writer(uri: str) -> Iterator[Any]:
    """A stream with `write` for a file too large for memory; it appears whole when the block ends well.

    Raises:
        InputError, SynfaceError: as `write_bytes`.
    """
    scheme = scheme_of(uri)
    if scheme == "s3":
        upload = s3.Upload(uri)
        try:
            yield upload
        except BaseException:
            upload.abort()
            raise
        upload.close()
        return
    if scheme == "gs":
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            filesystem, path = resolve(uri)
            with filesystem.open_output_stream(path) as target:
                shutil.copyfileobj(stream, target, 8 << 20)
        return
    target = Path(absolute(uri))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"{uri}: cannot be written: {WRITE_REFUSALS.get(error.errno or 0, error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_reader(uri: str) -> Iterator[BinaryIO]:
    """A buffered stream of a file too large for memory. InputError if there is none."""
    filesystem, path = resolve(uri)
    try:
        # a random-access file: Arrow's S3 *stream* was measured 20 times slower (docs/storage.md)
        stream = filesystem.open_input_file(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri}: cannot be read ({error})") from error
    with stream, io.BufferedReader(_Raw(stream), READ_BUFFER_BYTES) as reader:
        yield reader


class _Raw(io.RawIOBase):
    """An Arrow file as Python's raw stream."""

    def __init__(self, stream: pa.NativeFile):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)


def list_files(uri: str, recursive: bool = True) -> list[tuple[str, int]]:
    """(path relative to `uri`, bytes) of the files below it, sorted; [] where nothing stands."""
    return [(path, size) for path, size, _ in list_infos(uri, recursive)]


def list_infos(uri: str, recursive: bool = True) -> list[tuple[str, int, float]]:
    """(path relative to `uri`, bytes, modified in seconds since the epoch), sorted; [] where nothing stands."""
    if scheme_of(uri) == "s3":
        return sorted(s3.list_infos(uri, recursive))
    filesystem, path = resolve(uri)
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=recursive)
    try:
        infos = [i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri}: cannot be listed ({error})") from error
    prefix = path.rstrip("/") + "/"
    return sorted((i.path.removeprefix(prefix), i.size, (i.mtime_ns or 0) / 1e9) for i in infos)


def delete_file(uri: str) -> None:
    """Remove one file; nothing happens where there is none."""
    if scheme_of(uri) == "s3":
        return s3.delete_file(uri)
    filesystem, path = resolve(uri)
    try:
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            filesystem.delete_file(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri}: cannot be removed ({error})") from error


def delete_files(uri: str) -> None:
    """Delete every file below a folder; nothing where there is none."""
    for path, _ in list_files(uri):
        delete_file(join(uri, path))


def store_time(uri: str) -> float:
    """Seconds since the epoch by the clock that gives files below `uri` their times; writes and deletes a probe."""
    probe = join(uri, "_synface", f"probe-{uuid.uuid4().hex[:12]}")
    write_bytes(probe, b"probe")
    try:
        name = probe.rsplit("/", 1)[-1]
        return next(t for path, _, t in list_infos(join(uri, "_synface"), recursive=False) if path == name)
    finally:
        delete_file(probe)


def check_writable(uri: str) -> None:
    """Write and delete a probe below `uri`, before any work: seconds, not the first hour of a run.

    Raises:
        InputError: the place cannot be written; the message names it and the reason.
    """
    probe = join(uri, "_synface", f"probe-{uuid.uuid4().hex[:12]}")
    try:
        if scheme_of(uri) == "s3":
            s3.write_bytes(probe, b"probe", patience=0.0)
        else:
            write_bytes(probe, b"probe")
        delete_file(probe)
    except SynfaceError as error:
        raise InputError(f"output {uri}: cannot be written; {error}") from error
