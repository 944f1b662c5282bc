"""``synface compact``: a table's shards in fewer, larger files, sorted by label and sample, as its next version.

Shards are small because a preemption costs one of them; readers like large files. An appended table gets its rows
back in the order of a table made at once. The shards' own files stay for the readers of the earlier version until
``synface clean URI --earlier-versions true``.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synface.core.errors import InputError
from synface.store import artifact, card, leases, ledger, options, tables
from synface.store import uri as uris

#: about 80 MB of 112-pixel JPEG
IMAGES_PER_FILE = 16_384


def compact(uri: str, images_per_file: int | str = IMAGES_PER_FILE) -> dict[str, Any]:
    """Write the larger files, then the manifest that lists them; no image is decoded or changed.

    Args:
        uri: a finished table of `generate`.
        images_per_file: rounded to whole identities.

    Raises:
        InputError: not a finished table with a ledger, a run is under way there, or a damaged shard.
    """
    wanted = int(options.number("images_per_file", images_per_file, 1, whole=True))
    manifest = artifact.require(uri, "images")
    leases.refuse_while_running(uri, "compact")
    merged = ledger.compacted(uri)
    entries = {n: e for n, e in ledger.load(uri).items() if e.file in manifest.files or merged.holds(e)}
    if not entries:
        raise InputError(f"{uri}: no shards with a ledger here, so nothing to compact")
    cached = merged.shards == {n: e.sha256 for n, e in entries.items()}
    if not cached:
        files = [
            ledger.write_compact_file(uri, number, tables.parquet_bytes(table), table.num_rows)
            for number, table in enumerate(_groups(uri, manifest, wanted))
        ]
        merged = ledger.Compacted(tuple(files), {n: e.sha256 for n, e in entries.items()})
        ledger.write_compacted(uri, merged)
    if set(manifest.files) != set(merged.files):
        numbers = manifest.numbers | {
            "version": artifact.keep_version(uri),
            "bytes": sum(f.bytes for f in merged.files),
        }
        card.publish(uri, dataclasses.replace(manifest, files=merged.files, numbers=numbers))
    return {"uri": uri, "files": len(merged.files), "shards": len(entries), "cached": cached}


def _groups(uri: str, manifest: artifact.Manifest, wanted: int) -> Iterator[pa.Table]:
    """The rows by label and sample, in tables of whole identities and at least `wanted` rows (the last one: fewer).

    Memory is `wanted` rows and the files that share labels with them.
    """
    spans = sorted((*_labels(uri, file), file.path, file) for file in manifest.files if file.rows)
    waiting: list[pa.Table] = []
    for index, (*_, file) in enumerate(spans):
        where = f"{uri}/{file.path}"
        waiting.append(tables.parse_parquet(tables.read_listed(uri, file), where))
        last = index + 1 == len(spans)
        if not last and sum(t.num_rows for t in waiting) < wanted:
            continue
        table = pa.concat_tables(waiting).sort_by([("label", "ascending"), ("sample", "ascending")])
        label_n = table["label"].to_numpy()
        start = 0
        # labels below the next file's first one come no more
        complete = len(label_n) if last else int(np.searchsorted(label_n, spans[index + 1][0]))
        while complete - start >= wanted or (last and start < complete):
            stop = min(start + wanted, complete)
            stop = int(np.searchsorted(label_n, label_n[stop - 1], side="right"))
            yield table.slice(start, stop - start).combine_chunks()
            start = stop
        waiting = [table.slice(start)]


def _labels(uri: str, file: artifact.FileEntry) -> tuple[int, int]:
    """First and last label of a file, from the statistics at its end; only those are read."""
    where = uris.join(uri, file.path)
    try:
        filesystem, path = uris.resolve(where)
        with filesystem.open_input_file(path) as stream:
            facts = pq.ParquetFile(stream).metadata
        column = next(i for i in range(facts.num_columns) if facts.schema.column(i).path == "label")
        groups = [facts.row_group(g).column(column).statistics for g in range(facts.num_row_groups)]
        return min(g.min for g in groups), max(g.max for g in groups)
    except (OSError, pa.ArrowException, StopIteration, AttributeError) as error:
        raise InputError(f"{where}: labels cannot be read ({error}); run `synface verify` on the table") from error
