"""``synface status``: what is done at a URI and what is missing, from the ledger; reads no data."""

import json
import time
from collections import Counter
from typing import Any

from synface.core.errors import InputError
from synface.settings import config_hash
from synface.store import artifact, leases, ledger
from synface.store import uri as uris


def status(uri: str) -> dict[str, Any]:
    """State, shards and rows done, by which runs, failed images, who runs now; if unfinished, rate and time to go.

    The rate comes from the ledger files' times of the last run: from the first to the last of them.
    """
    if not uris.exists(uris.join(uri, artifact.PLAN)):
        artifact.require(uri)
    manifest = artifact.load_manifest(uri)
    asked = artifact.read_plan(uri)
    growing = manifest is not None and asked is not None and config_hash(asked["config"]) != manifest.config_hash
    state = "growing" if growing else "finished" if manifest else "unfinished"
    found: dict[str, Any] = {"uri": uri, "state": state, "running": leases.living(uri, time.time())}
    if manifest is not None:
        found |= {"verb": manifest.verb, "kind": manifest.kind, "config_hash": manifest.config_hash}
        found |= {"files": len(manifest.files), "bytes": sum(f.bytes for f in manifest.files)}
        found["rows"] = sum(f.rows or 0 for f in manifest.files)
        found["version"] = manifest.numbers.get("version", 1)
        if manifest.numbers.get("failed"):
            found["state"] = "growing" if growing else "finished in part"
    entries = ledger.load(uri)
    if not entries:
        return found
    found |= {"shards_done": len(entries), "rows": sum(e.rows for e in entries.values())}
    found["runs"] = dict(sorted(Counter(e.run for e in entries.values() if e.run).items()))
    left_out = [f for e in entries.values() for f in e.failed]
    found["failed"] = len(ledger.to_try_again(left_out))
    found["refused"] = len(left_out) - found["failed"]
    total = _shards_asked(uri)
    if total:
        found["shards"] = total
    if (manifest is None or growing) and total:
        found |= _pace(uri, total)
    return found


def quarantined(uri: str) -> list[dict[str, Any]]:
    """The images that could not be made, each with identity_id, sample and error."""
    return [dict(f) for _, e in sorted(ledger.load(uri).items()) for f in e.failed]


def _shards_asked(uri: str) -> int | None:
    try:
        return int(json.loads(uris.read_bytes(uris.join(uri, ledger.WORK)))["shards"])
    except (InputError, ValueError, KeyError, TypeError):
        return None


def _pace(uri: str, total: int) -> dict[str, Any]:
    times = sorted(t for _, _, t in uris.list_infos(uris.join(uri, ledger.LEDGER)))
    idle = time.time() - times[-1]
    pace: dict[str, Any] = {"seconds_since_last_shard": round(idle, 1)}
    if len(times) > 1 and times[-1] > times[0]:
        rate = (len(times) - 1) / (times[-1] - times[0])
        pace |= {"shards_per_minute": round(60 * rate, 2), "eta_seconds": round((total - len(times)) / rate, 1)}
    return pace
