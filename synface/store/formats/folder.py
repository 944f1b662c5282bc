"""Image folders: ``<identity>/<sample>.jpg``, which torchvision's ImageFolder and most tools read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import uri as uris
from synface.store.formats.found import IMAGE_SUFFIXES, MAX_FILE_BYTES, FoundImage
from synface.store.formats.naming import safe_name, suffix_of

PARALLEL_WRITES = 8


def write(tables: Iterator[pa.Table], output: str, images: int, identities: int) -> dict[str, Any]:
    """Write every image under its identity's folder; the encoded bytes are copied as they are.

    `images` and `identities`, the totals, are not needed here.
    """
    count = 0
    with ThreadPoolExecutor(PARALLEL_WRITES) as pool:
        for table in tables:
            columns = (table["image"].to_pylist(), table["identity_id"].to_pylist(), table["sample"].to_pylist())
            jobs = [
                pool.submit(
                    uris.write_bytes,
                    uris.join(output, safe_name(identity), f"{sample:05d}.{suffix_of(image['path'])}"),
                    image["bytes"],
                )
                for image, identity, sample in zip(*columns, strict=True)
            ]
            for job in jobs:
                job.result()
            count += table.num_rows
    return {"images": count}


def entries(uri: str) -> Iterator[tuple[str, str, int]]:
    """(identity, path, bytes) of the images below a folder, in the order of their paths.

    ``<identity>/<image>`` and any deeper nesting (``split/identity/image``: the identity is then
    ``split/identity``). Other files are passed over.

    Raises:
        InputError: an image file that is too large.
    """
    for path, size in uris.list_files(uri):
        folder, _, name = path.rpartition("/")
        if not folder or name.startswith(".") or not name.lower().endswith(IMAGE_SUFFIXES):
            continue
        if size > MAX_FILE_BYTES:
            raise InputError(f"{uris.join(uri, path)}: {size} bytes, allowed {MAX_FILE_BYTES}")
        yield folder, path, size


def read(uri: str) -> Iterator[FoundImage]:
    """The images below a folder, in the order of their paths; an image's folder is its identity: `entries`."""
    for identity, path, _ in entries(uri):
        yield FoundImage(identity, uris.read_bytes(uris.join(uri, path)), path)
