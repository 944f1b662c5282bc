"""``synface verify``: every byte that a manifest or ledger lists, against its digest."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from synface.core.errors import InputError
from synface.store import artifact, ledger, tables
from synface.store import uri as uris

#: files hashed at once: one being read while another is hashed
PARALLEL_FILES = 2


def verify(uri: str, repair: bool | str = False) -> dict[str, Any]:
    """Read everything that is listed and compare sha256, size and rows.

    With `repair` the damaged shards are dropped from the ledger (and their files removed), so that running
    the verb again makes exactly those again. Exit code 1 when something is damaged.
    """
    merged = ledger.compacted(uri)
    entries = {e.path: (e.file, e.shard) for e in ledger.load(uri).values() if not merged.holds(e)}
    listed: dict[str, artifact.FileEntry] = {path: file for path, (file, _) in entries.items()}
    manifest = artifact.load_manifest(uri)
    if manifest is not None:
        listed |= {f.path: f for f in manifest.files}
    elif not entries:
        artifact.require(uri)
    files = [listed[p] for p in sorted(listed)]
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        faults = list(pool.map(lambda file: file_fault(uri, file), files))
    damaged = [{"path": f.path, "fault": fault} for f, fault in zip(files, faults, strict=True) if fault]
    if damaged and repair in (True, "true"):
        for one in damaged:
            if one["path"] in entries:
                ledger.forget(uri, entries[one["path"]][1])
            if one["path"] in {f.path for f in merged.files}:
                uris.delete_file(uris.join(uri, ledger.COMPACTED))
            uris.delete_file(uris.join(uri, one["path"]))
    result: dict[str, Any] = {
        "uri": uri,
        "files": len(files),
        "bytes": sum(f.bytes for f in files),
        "damaged": damaged,
        "exit_code": 1 if damaged else 0,
    }
    if damaged:
        result["fix"] = "run the verb that made it again" + ("" if repair else ", after `verify URI --repair true`")
    return result


def file_fault(uri: str, file: artifact.FileEntry) -> str | None:
    """What is wrong with one listed file, or None."""
    try:
        data = uris.read_bytes(uris.join(uri, file.path))
    except InputError:
        return "missing"
    if len(data) != file.bytes:
        return f"{len(data)} bytes, listed {file.bytes}"
    if artifact.sha256_hex(data) != file.sha256:
        return "sha256 differs"
    if file.rows is not None and file.path.endswith(".parquet"):
        rows = tables.parse_parquet(data, file.path).num_rows
        return None if rows == file.rows else f"{rows} rows, listed {file.rows}"
    return None
