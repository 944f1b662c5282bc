"""Ending runs, and comparing them byte by byte."""

import hashlib
import os
import signal
from pathlib import Path

import psutil

#: what may differ between two runs of one recipe: times, logs, HTML, and the bookkeeping of who did what when
TIMES_AND_LOGS = ("_synface/result-", "_synface/tensorboard/", "_synface/train/", "/_synface/leases/", "/report/")


def digests(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below `root` that must be the same in every run."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = "/" + str(path.relative_to(root))
        if path.is_file() and not any(part in relative for part in TIMES_AND_LOGS):
            found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def end_group(process):
    """SIGKILL the driver and everything that it started: the machine is gone."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for victim in [process, *children]:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(30)
