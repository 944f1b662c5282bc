"""URIs to filesystems, and the few whole-object operations that every writer needs.

Plain paths, ``file://``, ``s3://`` and ``gs://``. A custom S3 endpoint comes from the standard
environment (``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``); credentials from the usual chain.
"""

import os
import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs as pafs

from synface.core.errors import InputError

REMOTE_SCHEMES = ("s3", "gs")


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
    if not uri:
        raise InputError("empty URI: give a path, file://, s3:// or gs:// URI")
    if is_local(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, _, rest = uri.partition("://")
    if scheme not in REMOTE_SCHEMES:
        raise InputError(f"{uri}: unknown scheme {scheme!r}; known: plain paths, file://, s3://, gs://")
    try:
        if scheme == "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            options: dict = {"endpoint_override": endpoint} if endpoint else {}
            if region:
                options["region"] = region
            return pafs.S3FileSystem(**options), rest.rstrip("/")
        return pafs.GcsFileSystem(), rest.rstrip("/")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{uri}: cannot open the store ({error})") from error


def exists(uri: str) -> bool:
    """Whether a file or folder stands at the URI."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type != pafs.FileType.NotFound


def read_bytes(uri: str) -> bytes:
    """A whole file. InputError if there is none."""
    filesystem, path = resolve(uri)
    if is_local(uri):
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{uri}: cannot be read ({error.strerror})") from error
    try:
        with filesystem.open_input_file(path) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error})") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that no reader ever sees a part of it.

    Locally: a temporary file beside it, flushed, then renamed over it. In object stores a put is whole.
    """
    filesystem, path = resolve(uri)
    if is_local(uri):
        target = Path(path)
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
        return
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def list_files(uri: str, recursive: bool = True) -> list[tuple[str, int]]:
    """(path relative to `uri`, bytes) of the files below it, sorted; [] where nothing stands."""
    filesystem, path = resolve(uri)
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=recursive)
    infos = [i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File]
    prefix = path.rstrip("/") + "/"
    return sorted((i.path.removeprefix(prefix), i.size) for i in infos)


def delete_file(uri: str) -> None:
    """Remove one file; nothing happens where there is none."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.File:
        filesystem.delete_file(path)


def check_writable(uri: str) -> None:
    """Write and delete a probe below `uri`, before any work.

    Raises:
        InputError: the place cannot be written; the message names it and the reason.
    """
    probe = join(uri, "_synface", f"probe-{uuid.uuid4().hex[:12]}")
    try:
        write_bytes(probe, b"probe")
        delete_file(probe)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri}: cannot be written ({error}); choose another output or mend its rights") from error
