"""The shard ledger: which shards of an images table are finished, one small file per shard.

A shard's Parquet file is written whole under a name made of its number and content, then its ledger entry.
Nothing is ever locked: two writers of one shard both leave a valid file, the entry written last wins, and
the manifest, written once all entries stand, lists exactly one file per shard.
"""

import json
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
LEDGER_VERSION = 1
#: small objects are latency-bound: this many are read at once
PARALLEL_READS = 16


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard: its file, and the images that could not be made (quarantined, with their key)."""

    shard: int
    path: str
    sha256: str
    bytes: int
    rows: int
    config_hash: str
    failed: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    ledger_version: int = LEDGER_VERSION

    @property
    def file(self) -> artifact.FileEntry:
        """The shard's line of the manifest."""
        return artifact.FileEntry(self.path, self.sha256, self.bytes, self.rows)


def shard_path(shard: int, sha256: str) -> str:
    """``data/train-00042-0123456789ab.parquet``: by number and content."""
    return f"{DATA}/train-{shard:05d}-{sha256[:12]}.parquet"


def entry_path(shard: int) -> str:
    """``_synface/ledger/00042.json``."""
    return f"{LEDGER}/{shard:05d}.json"


def write_work(output: str, shards: int, images: int) -> None:
    """Note the size of the work; informative only, nothing depends on it."""
    text = json.dumps({"shards": shards, "images": images}, sort_keys=True)
    uris.write_bytes(uris.join(output, WORK), (text + "\n").encode())


def write_shard(
    output: str,
    shard: int,
    data: bytes,
    rows: int,
    config_hash: str,
    failed: list[dict[str, Any]] | None = None,
    versions: dict[str, str] | None = None,
) -> ShardEntry:
    """Write one whole shard, then its ledger entry; from here on the shard is finished."""
    digest = artifact.sha256_hex(data)
    entry = ShardEntry(
        shard, shard_path(shard, digest), digest, len(data), rows, config_hash, tuple(failed or ()), versions or {}
    )
    uris.write_bytes(uris.join(output, entry.path), data)
    text = json.dumps(asdict(entry), sort_keys=True, indent=1, allow_nan=False)
    uris.write_bytes(uris.join(output, entry_path(shard)), (text + "\n").encode())
    return entry


def read_entry(output: str, path: str) -> ShardEntry | None:
    """One ledger entry; None where it is damaged (that shard is then simply made again)."""
    try:
        data = json.loads(uris.read_bytes(uris.join(output, path)))
        data["failed"] = tuple(data["failed"])
        entry = ShardEntry(**data)
    except (ValueError, TypeError, KeyError, InputError):
        return None
    sound = entry.path == shard_path(entry.shard, entry.sha256) and path == entry_path(entry.shard)
    return entry if sound else None


def load(output: str) -> dict[int, ShardEntry]:
    """Every readable ledger entry at an output, by shard."""
    names = [p for p, _ in uris.list_files(uris.join(output, LEDGER)) if p.endswith(".json")]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        entries = pool.map(lambda name: read_entry(output, f"{LEDGER}/{name}"), names)
    return {e.shard: e for e in entries if e is not None}


def finished(output: str, config_hash: str) -> dict[int, ShardEntry]:
    """The shards that need no more work: entry of this configuration, file there with the right size.

    A shard with quarantined images is not finished: asking again tries them again.
    """
    sizes = {f"{DATA}/{p}": size for p, size in uris.list_files(uris.join(output, DATA))}
    return {
        shard: entry
        for shard, entry in load(output).items()
        if entry.config_hash == config_hash and sizes.get(entry.path) == entry.bytes and not entry.failed
    }


def forget(output: str, shard: int) -> None:
    """Drop a shard's ledger entry: the next run of the verb makes the shard again."""
    uris.delete_file(uris.join(output, entry_path(shard)))
