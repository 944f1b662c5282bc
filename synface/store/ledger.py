"""The shard ledger: which shards of an images table are finished, one small file per shard.

A shard's Parquet file is written whole under a name made of its number and content, then its ledger entry.
Nothing is ever locked: two writers of one shard both leave a valid file, the entry written last wins, and
the manifest, written once all entries stand, lists exactly one file per shard.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from synface.core.errors import InputError
from synface.store import artifact
from synface.store import uri as uris

LEDGER = "_synface/ledger"
DATA = "data"
#: how many shards the run makes, for `synface status`
WORK = "_synface/work.json"
#: which larger files hold which shards
COMPACTED = "_synface/compacted.json"
LEDGER_VERSION = 1
#: small objects are latency-bound: this many are read at once
PARALLEL_READS = 16


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard: its file, the images that could not be made (quarantined, with their key), who made it."""

    shard: int
    path: str
    sha256: str
    bytes: int
    rows: int
    config_hash: str
    failed: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    #: id of the run that wrote it, as in its log lines; the rows do not depend on it
    run: str = ""
    ledger_version: int = LEDGER_VERSION

    @property
    def file(self) -> artifact.FileEntry:
        """The shard's line of the manifest."""
        return artifact.FileEntry(self.path, self.sha256, self.bytes, self.rows)


def shard_path(shard: int, sha256: str) -> str:
    """``data/train-00042-0123456789ab.parquet``: by number and content."""
    return f"{DATA}/train-{shard:05d}-{sha256[:12]}.parquet"


def number_of(path: str) -> tuple[str, int]:
    """``train`` (a shard) or ``compact``, and the number, of a data file's path."""
    kind, number, _ = path.removeprefix(f"{DATA}/").split("-")
    return kind, int(number)


def entry_path(shard: int) -> str:
    """``_synface/ledger/00042.json``."""
    return f"{LEDGER}/{shard:05d}.json"


def write_work(output: str, shards: int, images: int) -> None:
    """Note the size of the work; informative only, nothing depends on it."""
    text = json.dumps({"shards": shards, "images": images}, sort_keys=True)
    uris.write_bytes(uris.join(output, WORK), (text + "\n").encode())


def failure(identity_id: str, sample: int, error: str, refused: bool = False) -> dict[str, Any]:
    """One image that is left out: its key and why.

    `refused`: by a filter, under all its keys; asking again would give the same, so its shard is finished.
    """
    return {"identity_id": identity_id, "sample": sample, "error": error} | ({"refused": True} if refused else {})


def to_try_again(failed: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a shard's left out images that another run may make."""
    return [f for f in failed if not f.get("refused")]


def write_shard(
    output: str,
    shard: int,
    data: bytes,
    rows: int,
    config_hash: str,
    failed: list[dict[str, Any]] | None = None,
    versions: dict[str, str] | None = None,
    run: str = "",
) -> ShardEntry:
    """Write one whole shard, then its ledger entry; from here on the shard is finished."""
    digest = artifact.sha256_hex(data)
    path, left_out = shard_path(shard, digest), tuple(failed or ())
    entry = ShardEntry(shard, path, digest, len(data), rows, config_hash, left_out, versions or {}, run)
    uris.write_bytes(uris.join(output, entry.path), data)
    write_entry(output, entry)
    return entry


def write_entry(output: str, entry: ShardEntry) -> None:
    """Write a ledger entry; its file stands already."""
    text = json.dumps(asdict(entry), sort_keys=True, indent=1, allow_nan=False)
    uris.write_bytes(uris.join(output, entry_path(entry.shard)), (text + "\n").encode())


def write_compact_file(output: str, number: int, data: bytes, rows: int) -> artifact.FileEntry:
    """Write one file of several shards' rows, ``data/compact-00003-0123456789ab.parquet``; not yet listed anywhere."""
    path = f"{DATA}/compact-{number:05d}-{artifact.sha256_hex(data)[:12]}.parquet"
    return artifact.write_file(output, path, data, rows)


def read_entry(output: str, path: str) -> ShardEntry | None:
    """One ledger entry; None where it is damaged (that shard is then simply made again)."""
    try:
        entry = parse_entry(uris.read_bytes(uris.join(output, path)))
        return entry if path == entry_path(entry.shard) else None
    except artifact.DAMAGE:
        return None


def parse_entry(data: bytes) -> ShardEntry:
    """An entry's text. Any of `artifact.DAMAGE` for something else."""
    fields = json.loads(data)
    fields["failed"] = tuple(fields["failed"])
    entry = ShardEntry(**fields)
    texts = [entry.config_hash, entry.run]
    texts += [f[name] for f in entry.failed for name in ("identity_id", "error")]
    numbers = [entry.rows, entry.shard, *(f["sample"] for f in entry.failed)]
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int) for n in numbers):
        raise TypeError("a field of another type")
    if not isinstance(entry.versions, dict) or entry.file.path != shard_path(entry.shard, entry.sha256):
        raise ValueError(f"no shard's entry: {entry.path}")
    return entry


def load(output: str) -> dict[int, ShardEntry]:
    """Every readable ledger entry at an output, by shard."""
    names = [p for p, _ in uris.list_files(uris.join(output, LEDGER)) if p.endswith(".json")]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        entries = pool.map(lambda name: read_entry(output, f"{LEDGER}/{name}"), names)
    return {e.shard: e for e in entries if e is not None}


def finished(output: str, config_hashes: Mapping[int, str]) -> dict[int, ShardEntry]:
    """The shards that need no more work: entry of the hash that it should have, file there with the right size.

    A shard whose rows stand in a compacted file needs no file of its own. A shard with quarantined images is not
    finished: asking again tries them again, unless a filter refused them.
    """
    sizes = {f"{DATA}/{p}": size for p, size in uris.list_files(uris.join(output, DATA))}
    good = {
        shard: entry
        for shard, entry in load(output).items()
        if entry.config_hash == config_hashes.get(shard) and not to_try_again(entry.failed)
    }
    merged = compacted(output, sizes).unless_changed(good)
    return {n: e for n, e in good.items() if sizes.get(e.path) == e.bytes or merged.holds(e)}


@dataclass(frozen=True)
class Compacted:
    """Larger files that hold the rows of several shards, and those shards by the sha256 of their own files."""

    files: tuple[artifact.FileEntry, ...] = ()
    shards: dict[int, str] = field(default_factory=dict)

    def holds(self, entry: ShardEntry) -> bool:
        """Whether the very rows of this entry stand in the files."""
        return self.shards.get(entry.shard) == entry.sha256

    def unless_changed(self, entries: Mapping[int, ShardEntry]) -> "Compacted":
        """This, or nothing where a shard of it is another now or not among `entries`: rows cannot be told apart."""
        return self if all(n in entries and self.holds(entries[n]) for n in self.shards) else Compacted()


def compacted(output: str, sizes: Mapping[str, int] | None = None) -> Compacted:
    """What `write_compacted` wrote; nothing where there is none, or where a file of it is missing.

    Args:
        output: URI.
        sizes: of the files below it, where they are known.
    """
    place = uris.join(output, COMPACTED)
    if not uris.exists(place, patient=True):
        return Compacted()
    try:
        data = json.loads(uris.read_bytes(place))
        found = Compacted(
            tuple(artifact.FileEntry(**f) for f in data["files"]),
            {int(n): str(sha) for n, sha in data["shards"].items()},
        )
    except artifact.DAMAGE as error:
        raise InputError(f"{place}: damaged ({error}); delete it and run the verb again") from error
    if sizes is None:
        sizes = {f"{DATA}/{p}": size for p, size in uris.list_files(uris.join(output, DATA))}
    return found if all(sizes.get(f.path) == f.bytes for f in found.files) else Compacted()


def write_compacted(output: str, found: Compacted) -> None:
    """From here on the shards need no files of their own."""
    shards = {str(shard): sha for shard, sha in found.shards.items()}
    text = json.dumps({"files": [asdict(f) for f in found.files], "shards": shards}, sort_keys=True, indent=1)
    uris.write_bytes(uris.join(output, COMPACTED), (text + "\n").encode())


def files(output: str, entries: Mapping[int, ShardEntry]) -> list[artifact.FileEntry]:
    """The files that hold the rows of some shards: compacted ones, and the others' own.

    A compacted file counts only where all its shards are unchanged and among `entries`.
    """
    merged = compacted(output).unless_changed(entries)
    return [*merged.files, *(entry.file for _, entry in sorted(entries.items()) if not merged.holds(entry))]


def forget(output: str, shard: int) -> None:
    """Drop a shard's ledger entry: the next run of the verb makes the shard again."""
    uris.delete_file(uris.join(output, entry_path(shard)))
