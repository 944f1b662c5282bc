"""WebDataset tars: members ``<key>.jpg``, ``<key>.cls`` (the label) and ``<key>.json`` (the other columns).

Layout as the public ``webdataset`` reader expects it: members of one key stand together, keys hold no dot.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats.found import IMAGE_SUFFIXES, MAX_FILE_BYTES, FoundImage
from synface.store.formats.naming import suffix_of

SUFFIXES = (".tar", ".tar.gz", ".tgz")


def write(tables: Iterator[pa.Table], output: str, images: int, identities: int) -> dict[str, Any]:
    """One tar per shard, ``000000.tar`` and on; equal tables give equal bytes.

    `images` and `identities`, the totals, are not needed here.
    """
    count = shards = 0
    for table in tables:
        uris.write_bytes(uris.join(output, f"{shards:06d}.tar"), tar_bytes(table))
        count, shards = count + table.num_rows, shards + 1
    return {"images": count, "shards": shards}


def tar_bytes(table: pa.Table) -> bytes:
    """The shard as a plain USTAR archive without times, owners or padding beyond the format's own."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in table.to_pylist():
            image = row.pop("image")
            key = f"{row['label']:07d}_{row['sample']:05d}"
            _add(tar, f"{key}.{suffix_of(image['path'])}", image["bytes"])
            _add(tar, f"{key}.cls", str(row["label"]).encode())
            _add(tar, f"{key}.json", json.dumps(row, sort_keys=True).encode())
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def read(uri: str) -> Iterator[FoundImage]:
    """The images of a tar, or of all ``.tar`` and ``.tar.gz`` of a folder, in order; nothing is extracted to disk.

    The identity is ``identity_id`` of the key's ``.json``, else its ``.cls``, else the member's folder (plain
    tars of image folders).
    """
    for name in tars(uri):
        with uris.open_reader(name) as stream:
            yield from read_tar(stream, name)


def tars(uri: str) -> list[str]:
    """A tar itself, or all ``.tar`` and ``.tar.gz`` of a folder. InputError where there is none."""
    if uri.endswith(SUFFIXES):
        return [uri]
    names = [uris.join(uri, p) for p, _ in uris.list_files(uri) if p.endswith(SUFFIXES)]
    if not names:
        raise InputError(f"{uri}: no .tar files here")
    return names


def read_tar(stream: BinaryIO, where: str) -> Iterator[FoundImage]:
    """The images of one tar stream; members of one key must stand together. InputError where it is damaged."""
    key: str | None = None
    group: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz" if where.endswith("gz") else "r|") as tar:
            for member in tar:
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):  # "._x.jpg" of other tools
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise InputError(
                        f"{where}: member {member.name!r} of {member.size} bytes, allowed {MAX_FILE_BYTES}"
                    )
                stem, suffix = _split_name(member.name)
                if stem != key:
                    yield from _found(key, group, where)
                    key, group = stem, {}
                data = tar.extractfile(member)
                group[suffix] = data.read() if data else b""
        yield from _found(key, group, where)
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, OverflowError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not a readable tar ({error})") from error


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the base name."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}/{stem}", f".{suffix.lower()}"


def _found(key: str | None, group: dict[str, bytes], where: str) -> Iterator[FoundImage]:
    if key is None:
        return
    for suffix in IMAGE_SUFFIXES:
        if suffix in group:
            yield FoundImage(
                _identity(key, group, where), group[suffix], f"{where.rsplit('/', 1)[-1]}:{key.lstrip('/')}"
            )
            return


def _identity(key: str, group: dict[str, bytes], where: str) -> str:
    if ".json" in group:
        try:
            found = json.loads(group[".json"])
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: {key}.json is not JSON ({error})") from error
        if isinstance(found, dict) and isinstance(found.get("identity_id"), str):
            return found["identity_id"]
    if ".cls" in group:
        return group[".cls"].decode("ascii", errors="replace").strip()
    folder = key.rpartition("/")[0].strip("/")
    if not folder:
        raise InputError(f"{where}: {key} has no .json with identity_id, no .cls and no folder: whose image is it?")
    return folder
