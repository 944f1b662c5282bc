"""A stop signal becomes a flag that long loops check, so that a job keeps what it has and leaves in time.

`ray job stop`, Kubernetes and batch systems send SIGTERM, then SIGKILL after a while: 3 s for Ray's job server
unless the job's ``RAY_JOB_STOP_WAIT_TIME_S`` is raised, 30 s for Kubernetes; a person presses Ctrl-C (SIGINT). A
loop asks `check_stop` between two units of work (a shard, a checkpoint interval). One that has not asked for
`GRACE_SECONDS` is interrupted: KeyboardInterrupt is raised wherever the main thread stands, safe because a run may be
killed at any point anyway, and the only exception that leaves a blocking call of Ray.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from synface.core.errors import PartialError
from synface.ops.runs import say

#: seconds that loops have to reach their next check; leaves room for the end before a SIGKILL at 30 s
GRACE_SECONDS = 20.0
#: a signal that comes again within this time is the same one (sent to the process and to its group)
ECHO_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(PartialError):
    """A stop signal ended the run; what is finished is kept, and the same command continues (exit code 3)."""


@dataclass
class _Stop:
    """What is known of the signal in this process."""

    requested: threading.Event = field(default_factory=threading.Event)
    name: str = ""
    first_seen: float = 0.0
    grace: float = GRACE_SECONDS
    alarm: threading.Timer | None = None
    #: what stood in each signal's place before; empty while nobody listens
    before: dict[signal.Signals, Any] = field(default_factory=dict)


_stop = _Stop()


@contextlib.contextmanager
def stoppable(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Take stop signals inside the block, which an interrupted one leaves with `StoppedError`.

    What follows the block is short and must not be cut in two: after a stop signal further ones are ignored.
    """
    listen(grace)
    try:
        yield
    except KeyboardInterrupt:
        check_stop()
        raise
    finally:
        _end_listening()


def listen(grace: float | None = None) -> None:
    """Take SIGTERM and SIGINT from now on. Call again after `ray.init`, which installs a handler of its own.

    The first signal sets the flag; a second one, or `grace` seconds later, raises KeyboardInterrupt in the main
    thread. Outside the main thread nothing happens: only there can Python take signals.

    Args:
        grace: None keeps what an earlier call said.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _stop.grace = _stop.grace if grace is None else grace
    for number in SIGNALS:
        old = signal.signal(number, _handle)
        _stop.before.setdefault(number, signal.SIG_DFL if old is None else old)  # None: not Python's


def _handle(number: int, frame: FrameType | None) -> None:
    if not stop_requested():
        _first_signal(number)
    elif time.monotonic() - _stop.first_seen >= min(ECHO_SECONDS, _stop.grace):
        raise KeyboardInterrupt


def _first_signal(number: int) -> None:
    _stop.name = signal.Signals(number).name
    _stop.first_seen = time.monotonic()
    _stop.requested.set()
    say(f"{_stop.name}: stopping after the unit of work in hand, {_stop.grace:.0f} s at most")
    main = threading.main_thread().ident
    assert main is not None  # it runs: this is its signal handler
    _stop.alarm = threading.Timer(_stop.grace, signal.pthread_kill, (main, number))
    _stop.alarm.daemon = True
    _stop.alarm.start()


def _end_listening() -> None:
    """Handlers are what they were, or, after a stop signal, none any more."""
    if _stop.alarm is not None:
        _stop.alarm.cancel()
    if listening() and threading.current_thread() is threading.main_thread():
        for number, old in _stop.before.items():
            signal.signal(number, signal.SIG_IGN if stop_requested() else old)
        _stop.before.clear()


def listening() -> bool:
    """Whether this process takes stop signals, so that whoever replaced the handler can put it back."""
    return bool(_stop.before)


def stop_requested() -> bool:
    """Whether a stop signal has come; loops that end cleanly by themselves ask this."""
    return _stop.requested.is_set()


def check_stop() -> None:
    """Raise `StoppedError` if a stop signal has come; called between two units of work."""
    if stop_requested():
        raise StoppedError(f"stopped by {_stop.name}; what is finished is kept, the same command continues")
