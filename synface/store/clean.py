"""``synface clean``: files of dead attempts that neither a manifest nor a ledger entry lists."""

from typing import Any

from synface.store import artifact, card, leases, ledger, options
from synface.store import uri as uris

#: younger files may belong to a run under way: a shard's file stands before its ledger entry
MIN_AGE_HOURS = 1.0


def clean(
    uri: str,
    min_age_hours: float | str = MIN_AGE_HOURS,
    dry_run: bool | str = False,
    earlier_versions: bool | str = False,
) -> dict[str, Any]:
    """Remove unlisted data files, temporary files, probes and dead leases older than `min_age_hours`.

    Only below ``data/`` and ``_synface/``, and only where synface made the folder: nothing else is touched. Nothing is
    removed while a run holds a lease there (`store.leases`).

    Args:
        uri: of a result.
        min_age_hours: by the store's clock.
        dry_run: list them only.
        earlier_versions: remove the manifests of earlier versions too, and the files that only they list.
    """
    age = 3600 * options.number("min_age_hours", min_age_hours, 0)
    if not uris.exists(uris.join(uri, artifact.PLAN)):
        artifact.require(uri)
    now = uris.store_time(uri)
    dead = dead_files(uri, now - age, options.flag("earlier_versions", earlier_versions))
    running = leases.living(uri, now)  # read after the files were listed: their writers hold theirs by then
    dead = [] if running else dead + [(path, 0) for path in leases.dead(uri, now)]
    if not options.flag("dry_run", dry_run):
        for path, _ in dead:
            uris.delete_file(uris.join(uri, path))
    return {
        "uri": uri,
        "removed": [p for p, _ in dead],
        "bytes": sum(size for _, size in dead),
        "running": running,
    }


def dead_files(uri: str, before: float, earlier_versions: bool = False) -> list[tuple[str, int]]:
    """(path, bytes) of the files that nothing lists, last changed before `before` (seconds since the epoch).

    With `earlier_versions` only the current manifest and shards without a compacted file keep theirs.
    """
    infos = uris.list_infos(uri)
    manifest = artifact.load_manifest(uri)
    merged = ledger.compacted(uri)
    spared = earlier_versions and manifest is not None
    entries = [e for e in ledger.load(uri).values() if not (spared and merged.holds(e))]
    kept = {card.CARD} | {e.path for e in entries} | {f.path for f in merged.files}
    versions = [] if spared else list(artifact.earlier_versions(uri).values())
    for known in (manifest, *versions):
        kept |= set() if known is None else {f.path for f in known.files}
    found = []
    for path, size, changed in infos:
        name = path.rsplit("/", 1)[-1]
        leftover = name.startswith(".") and name.endswith(".tmp")
        probe = path.startswith("_synface/probe-")
        unlisted = path.startswith(f"{ledger.DATA}/") and path not in kept
        earlier = spared and path.startswith(f"{artifact.MANIFESTS}/")
        if (leftover or probe or unlisted or earlier) and changed <= before:
            found.append((path, size))
    return found
