"""Zip archives of image folders, as DigiFace-1M ships: ``<identity>/<sample>.png`` in one or several zips."""

import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats.found import IMAGE_SUFFIXES, MAX_FILE_BYTES, FoundImage
from synface.store.formats.naming import numeric_order


def read(uri: str) -> Iterator[FoundImage]:
    """The images of a zip, or of all ``.zip`` files of a folder, in order; nothing is extracted to disk.

    An image's folder in the archive is its identity: equal folders of several zips are one identity.
    """
    names = [uri]
    if not uri.endswith(".zip"):
        found = [p for p, _ in uris.list_files(uri) if p.endswith(".zip")]
        names = [uris.join(uri, p) for p in sorted(found, key=numeric_order)]
        if not names:
            raise InputError(f"{uri}: no .zip files here")
    for name in names:
        filesystem, path = uris.resolve(name)
        try:
            stream = filesystem.open_input_file(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{name}: cannot be read ({error})") from error
        with stream:
            yield from read_zip(cast(IO[bytes], stream), name)


def read_zip(stream: Any, where: str) -> Iterator[FoundImage]:
    """The images of one archive, in the order of its directory. InputError where it is damaged or encrypted."""
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name = member.filename.removeprefix("./")
                folder, _, base = name.rpartition("/")
                if base.startswith(".") or not base.lower().endswith(IMAGE_SUFFIXES):
                    continue
                if not folder:
                    raise InputError(f"{where}: {name} lies in no folder: whose image is it?")
                if member.file_size > MAX_FILE_BYTES:
                    raise InputError(f"{where}: {name} of {member.file_size} bytes, allowed {MAX_FILE_BYTES}")
                with archive.open(member) as file:
                    data = file.read(member.file_size)
                yield FoundImage(folder, data, f"{where.rsplit('/', 1)[-1]}:{name}")
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError,
            OverflowError, MemoryError, pa.ArrowException) as error:  # fmt: skip
        raise InputError(f"{where}: not a readable zip ({error})") from error
