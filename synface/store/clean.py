"""``synface clean``: files of dead attempts that neither a manifest nor a ledger entry lists."""

import time
from typing import Any

from synface.core.errors import InputError
from synface.store import artifact, card, ledger
from synface.store import uri as uris

#: younger files may belong to a run under way: a shard's file stands before its ledger entry
MIN_AGE_HOURS = 1.0


def clean(uri: str, min_age_hours: float | str = MIN_AGE_HOURS, dry_run: bool | str = False) -> dict[str, Any]:
    """Remove unlisted data files, temporary files and probes older than `min_age_hours`.

    Only below ``data/`` and ``_synface/``, and only where synface made the folder: nothing else is touched.
    """
    try:
        age = 3600 * float(min_age_hours)
    except ValueError as error:
        raise InputError(f"min_age_hours = {min_age_hours!r}: expected a number of hours") from error
    if not uris.exists(uris.join(uri, artifact.PLAN)):
        artifact.require(uri)
    dead = dead_files(uri, time.time() - age)
    if dry_run not in (True, "true"):
        for path, _ in dead:
            uris.delete_file(uris.join(uri, path))
    return {"uri": uri, "removed": [p for p, _ in dead], "bytes": sum(size for _, size in dead)}


def dead_files(uri: str, before: float) -> list[tuple[str, int]]:
    """(path, bytes) of the files that nothing lists, last changed before `before` (seconds since the epoch)."""
    manifest = artifact.load_manifest(uri)
    kept = {card.CARD} | {e.path for e in ledger.load(uri).values()}
    if manifest is not None:
        kept |= {f.path for f in manifest.files}
    found = []
    for path, size, changed in uris.list_infos(uri):
        name = path.rsplit("/", 1)[-1]
        leftover = name.startswith(".") and name.endswith(".tmp")
        probe = path.startswith("_synface/probe-")
        unlisted = path.startswith(f"{ledger.DATA}/") and path not in kept
        if (leftover or probe or unlisted) and changed <= before:
            found.append((path, size))
    return found
