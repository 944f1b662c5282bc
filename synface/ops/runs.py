"""One id for a run in every log line, metric and ledger entry, and what a log line looks like.

A run is one driver, whatever it starts: its workers find the id in Ray's own store, under their job. A supervisor
that restarts a driver hands the same id on in ``SYNFACE_RUN_ID``.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from synface.core.errors import InputError

RUN_VARIABLE = "SYNFACE_RUN_ID"
#: ``text``: ``[run] message``, or ``[run/shard] message``; ``json``: one object a line
LOG_VARIABLE = "SYNFACE_LOG"
LOG_FORMATS = ("text", "json")
NAMESPACE = "synface-run"
#: goes into labels and file names
ALLOWED = re.compile(r"[A-Za-z0-9._-]{1,64}")

_shard: ContextVar[str] = ContextVar("shard", default="")
#: what this process knows: the run's id and how its lines look
_known: dict[str, str] = {}


def check_environment() -> None:
    """InputError for variables that cannot be used; asked once, before any work."""
    run, form = os.environ.get(RUN_VARIABLE), os.environ.get(LOG_VARIABLE)
    if run and not ALLOWED.fullmatch(run):
        raise InputError(f"{RUN_VARIABLE} = {run!r}: up to 64 letters, digits, '.', '_' and '-'")
    if form and form not in LOG_FORMATS:
        raise InputError(f"{LOG_VARIABLE} = {form!r}: one of {', '.join(LOG_FORMATS)}")


def run_id() -> str:
    """The run that this process works for: the driver's in its workers; eight hexadecimal digits unless given."""
    return _facts()["run"]


def _facts() -> dict[str, str]:
    if "run" not in _known:
        told = _of_the_driver() or {}
        _known["form"] = told.get("form") or os.environ.get(LOG_VARIABLE) or LOG_FORMATS[0]
        # no lock: a signal handler logs too; of two threads one wins
        _known.setdefault("run", told.get("run") or os.environ.get(RUN_VARIABLE) or secrets.token_hex(4))
    return _known


def _of_the_driver() -> dict[str, str] | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    told = ray.experimental.internal_kv._internal_kv_get(_job(ray), namespace=NAMESPACE)
    return json.loads(told) if told else None


def publish() -> None:
    """Let the workers of this process's Ray job know the run; called by whoever joined the cluster."""
    ray: Any = sys.modules["ray"]
    data = json.dumps(_facts()).encode()
    ray.experimental.internal_kv._internal_kv_put(_job(ray), data, namespace=NAMESPACE)


def _job(ray: Any) -> str:
    return ray.get_runtime_context().get_job_id()


@contextlib.contextmanager
def about(shard: int | str) -> Iterator[None]:
    """Lines that are logged inside are about one shard: of an images table, or of a packing or training (its rank)."""
    token = _shard.set(str(shard))
    try:
        yield
    finally:
        _shard.reset(token)


def line(message: str, level: str = "INFO", logger: str = "synface") -> str:
    """One line of a log."""
    run, shard = run_id(), _shard.get()
    if _facts()["form"] != "json":
        mark = "" if level == "INFO" else f"{level} "
        return f"[{run}/{shard}] {mark}{message}" if shard else f"[{run}] {mark}{message}"
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    fields = {"time": now, "level": level, "logger": logger, "run": run} | ({"shard": shard} if shard else {})
    return json.dumps(fields | {"message": message})


def say(message: str, level: str = "INFO") -> None:
    """One line for the person watching, on stderr."""
    print(line(message, level), file=sys.stderr, flush=True)


class Formatter(logging.Formatter):
    """Lines of libraries that log, in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        """See `line`."""
        text = super().format(record)  # with the traceback, if there is one
        return line(text, record.levelname, record.name)


def log_to_stderr() -> None:
    """In a driver: what libraries log goes to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
