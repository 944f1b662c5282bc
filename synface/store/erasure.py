"""``synface erase``: the identities that were derived from one person, listed and removed from an images table.

An identity counts as derived from a subject when it carries the subject's id (embedded galleries, pools and subsets
keep the ids; CemiFace's inquiries are such), or when its embedding lies at least `cosine` near the subject's: points
that a packing pulled to a gallery name no subject, so that for them nearness is the only trace.

What is gone: the rows, the shards' files that held them, the earlier manifests. What stays: digests of the erased
ids (`ERASED`), so that no later run makes them again, and the manifest's count. Exports, trained models and the
identities table itself lie elsewhere and must be treated by whoever made them.
"""

import dataclasses
import json
import math
from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.store import artifact, card, leases, ledger, options, tables
from synface.store import uri as uris
from synface.store.clean import dead_files
from synface.store.schemas import embeddings, metadata_of

ERASED = "_synface/erased.json"


def digest_of(identity_id: str) -> str:
    """What stands for an erased id."""
    return artifact.sha256_hex(identity_id.encode())


def erased(output: str) -> frozenset[str]:
    """Digests of the identities that were erased from a table."""
    place = uris.join(output, ERASED)
    if not uris.exists(place, patient=True):
        return frozenset()
    try:
        return frozenset(str(one) for one in json.loads(uris.read_bytes(place))["sha256"])
    except artifact.DAMAGE as error:
        raise InputError(f"{place}: damaged ({error}); restore it, or erased identities are made again") from error


def numbers(output: str) -> dict[str, Any]:
    """What the manifest says of it: how many, and the digests of their ids."""
    found = sorted(erased(output))
    return {"erased_identities": len(found), "erased_sha256": found} if found else {}


def erase(
    uri: str,
    subject: str,
    identities: str | None = None,
    gallery: str | None = None,
    cosine: float | str | None = None,
    dry_run: bool | str = False,
) -> dict[str, Any]:
    """Remove the identities derived from `subject`; again after a kill: continue. With `dry_run` list them only.

    Args:
        uri: finished images table.
        subject: identity_id in the gallery.
        identities: the identities table that the images were made from; with `gallery` and `cosine`.
        gallery: identities table that holds the subject's embedding, of the same recognizer.
        cosine: identities at least so near to it count as derived.
        dry_run: change nothing.

    Raises:
        InputError: no such table, nobody is derived from the subject, or a run is under way there.
    """
    manifest = artifact.require(uri, "images")
    wanted = {subject} | _near(subject, identities, gallery, cosine)
    present = _present(uri, manifest)
    found = sorted(wanted & present)
    again = {digest_of(one) for one in wanted} & erased(uri)
    if not found and not again:
        raise InputError(f"{uri}: no identity is derived from {subject!r} among its {len(present)}")
    listed = {"uri": uri, "subject": subject, "identities": found}
    if options.flag("dry_run", dry_run):
        return listed | {"dry_run": True}
    leases.refuse_while_running(uri, "erase")
    gone = erased(uri) | {digest_of(one) for one in found}
    # first of all, so that whatever is made again from here on is made without them
    uris.write_bytes(uris.join(uri, ERASED), (json.dumps({"sha256": sorted(gone)}, indent=1) + "\n").encode())
    rows = _remove(uri, manifest, gone)
    return listed | {"images": rows}


def _near(subject: str, identities: str | None, gallery: str | None, cosine: float | str | None) -> set[str]:
    given = (identities, gallery, cosine)
    if given == (None, None, None):
        return set()
    if identities is None or gallery is None or cosine is None:
        raise InputError(
            "erase: identities, gallery and cosine belong together: whose embeddings, whose subject, how near"
        )
    least = options.number("cosine", cosine, -1)
    people, faces = tables.read_identities(identities), tables.read_identities(gallery)
    spaces = [metadata_of(t.schema).get("embedder_sha256", "") for t in (people, faces)]
    if spaces[0] != spaces[1]:
        raise InputError(f"erase: {identities} and {gallery} hold embeddings of different recognizers")
    ids = faces["identity_id"].to_pylist()
    if subject not in ids:
        raise InputError(f"erase: no subject {subject!r} in {gallery}")
    cosine_n = embeddings(people) @ embeddings(faces)[ids.index(subject)]
    return {name for name, c in zip(people["identity_id"].to_pylist(), cosine_n, strict=True) if c >= least}


def _present(uri: str, manifest: artifact.Manifest) -> set[str]:
    found: set[str] = set()
    for file in manifest.files:
        found |= set(_read(uri, file)["identity_id"].unique().to_pylist())
    return found


def _read(uri: str, file: artifact.FileEntry) -> pa.Table:
    return tables.parse_parquet(tables.read_listed(uri, file), f"{uri}/{file.path}")


def _remove(uri: str, manifest: artifact.Manifest, gone: frozenset[str]) -> int:
    """Rewrite every file that holds one of them, then the manifest, then delete what nothing may read any more.

    Files are taken from the manifest, which is written last: again after a kill it all happens again, to the same
    bytes.
    """
    entries = ledger.load(uri)
    merged = ledger.compacted(uri)
    files: list[artifact.FileEntry] = []
    lost = 0
    for file in manifest.files:
        table = _read(uri, file)
        kept = table.filter(
            pa.array([digest_of(one) not in gone for one in table["identity_id"].to_pylist()], pa.bool_())
        )
        lost += table.num_rows - kept.num_rows
        files.append(file if kept.num_rows == table.num_rows else _rewrite(uri, file, kept.combine_chunks(), entries))
    for entry in ledger.load(uri).values():
        failed = tuple(f for f in entry.failed if digest_of(f["identity_id"]) not in gone)
        if failed != entry.failed:
            ledger.write_entry(uri, dataclasses.replace(entry, failed=failed))
    if merged.files:
        larger = tuple(f for f in files if ledger.number_of(f.path)[0] == "compact")
        ledger.write_compacted(uri, ledger.Compacted(larger, merged.shards))
    changed = {"images": sum(f.rows or 0 for f in files), "bytes": sum(f.bytes for f in files), **numbers(uri)}
    card.publish(uri, dataclasses.replace(manifest, files=tuple(files), numbers=manifest.numbers | changed))
    for path, _ in dead_files(uri, math.inf, earlier_versions=True):
        uris.delete_file(uris.join(uri, path))
    return lost


def _rewrite(
    uri: str, file: artifact.FileEntry, table: pa.Table, entries: dict[int, ledger.ShardEntry]
) -> artifact.FileEntry:
    data = tables.parquet_bytes(table)
    kind, number = ledger.number_of(file.path)
    if kind == "compact":
        return ledger.write_compact_file(uri, number, data, table.num_rows)
    entry = entries[number]
    return ledger.write_shard(
        uri, number, data, table.num_rows, entry.config_hash, list(entry.failed), entry.versions, entry.run
    ).file
