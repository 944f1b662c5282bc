"""Image folders: ``<identity>/<sample>.jpg``, which torchvision's ImageFolder and most tools read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from synface.store import uri as uris
from synface.store.formats.naming import safe_name, suffix_of

PARALLEL_WRITES = 8


def write(tables: Iterator[pa.Table], output: str) -> dict[str, Any]:
    """Write every image under its identity's folder; the encoded bytes are copied as they are."""
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
