"""Leases: signs of life of runs under way, so that `synface clean` takes nothing from them.

A run writes ``_synface/leases/<id>.json`` before its first file, writes it again every minute, and removes it at its
end. Nothing is locked and no conditional write is needed: a lease excludes nobody, two runs have two. Whoever
removes files lists them first and reads the leases second; the writer of a listed file has its lease then.

A lease counts by the store's clock: its file's time against that of a probe, so that wrong clocks of machines do
no harm.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from synface.core.errors import InputError, SynfaceError
from synface.store import uri as uris
from synface.store.artifact import DAMAGE, LEASES

RENEW_SECONDS = 60.0
#: a run that has not renewed its lease for so long is dead; longer than any store is waited for (`store.s3`)
LEASE_SECONDS = 900.0


@contextlib.contextmanager
def held(output: str, verb: str, renew: float = RENEW_SECONDS) -> Iterator[None]:
    """Hold a lease on an output inside the block.

    A store that is away for a while costs nothing: the next renewal counts.

    Raises:
        InputError, SynfaceError: the first lease cannot be written.
    """
    place = uris.join(output, LEASES, f"{uuid.uuid4().hex[:12]}.json")
    text = json.dumps({"verb": verb, "host": socket.gethostname(), "pid": os.getpid()}, sort_keys=True) + "\n"
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(renew):
            with contextlib.suppress(SynfaceError, OSError):
                uris.write_bytes(place, text.encode())

    uris.write_bytes(place, text.encode())
    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5.0)
        with contextlib.suppress(SynfaceError, OSError):
            uris.delete_file(place)


def living(output: str, now: float) -> list[dict[str, Any]]:
    """The leases that were renewed lately: what their runs said, and how many seconds ago.

    Args:
        output: URI.
        now: seconds since the epoch by the store's clock (`uris.store_time`).
    """
    found = []
    for name, _, changed in uris.list_infos(uris.join(output, LEASES)):
        if name.endswith(".json") and now - changed < LEASE_SECONDS:
            found.append(_read(uris.join(output, LEASES, name)) | {"renewed_seconds_ago": round(now - changed, 1)})
    return found


def dead(output: str, now: float) -> list[str]:
    """Paths of the leases that runs left when they were killed."""
    infos = uris.list_infos(uris.join(output, LEASES))
    return [f"{LEASES}/{name}" for name, _, changed in infos if now - changed >= LEASE_SECONDS]


def refuse_while_running(output: str, what: str) -> None:
    """InputError while a run is under way: what is about to be replaced may be what it counts on."""
    found = living(output, uris.store_time(output))
    if found:
        raise InputError(
            f"{what} {output}: a run is under way there ({found[0]}); wait for its end, or for "
            f"{LEASE_SECONDS:.0f} s after it was killed"
        )


def _read(place: str) -> dict[str, Any]:
    try:
        return dict(json.loads(uris.read_bytes(place)))
    except (*DAMAGE, SynfaceError):  # half gone: it still counts
        return {}
