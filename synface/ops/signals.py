"""A stop signal becomes a flag that long loops check, so that a job keeps what it has and leaves in time.

`ray job stop`, Kubernetes and batch systems send SIGTERM, then SIGKILL after a while: 3 s for Ray's job server
unless the job's ``RAY_JOB_STOP_WAIT_TIME_S`` is raised, 30 s for Kubernetes. A loop asks `check_stop` between two
units of work (a shard, a checkpoint interval). One that has not asked for `GRACE_SECONDS` is interrupted:
`StoppedError` is raised wherever the main thread stands, safe because a run may be killed at any point anyway.
"""

import signal
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from synface.core.errors import PartialError
from synface.ops.progress import say

#: seconds that loops have to reach their next check; leaves room for the end before a SIGKILL at 30 s
GRACE_SECONDS = 20.0
#: a signal that comes again within this time is the same one (sent to the process and to its group)
ECHO_SECONDS = 1.0


class StoppedError(PartialError):
    """A stop signal ended the run; what is finished is kept, and the same command continues (exit code 3)."""


@dataclass
class _Stop:
    """What is known of the signal in this process."""

    requested: threading.Event = field(default_factory=threading.Event)
    name: str = ""
    first_seen: float = 0.0
    listening: bool = False


_stop = _Stop()


def listen(grace: float = GRACE_SECONDS) -> None:
    """Take SIGTERM from now on. Call again after `ray.init`, which installs a handler of its own.

    The first signal sets the flag; a second one, or `grace` seconds later, raises `StoppedError` in the main thread.
    Outside the main thread nothing happens: only there can Python take signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if not stop_requested():
            _first_signal(number, grace)
        elif time.monotonic() - _stop.first_seen >= min(ECHO_SECONDS, grace):
            check_stop()

    signal.signal(signal.SIGTERM, handler)
    _stop.listening = True


def _first_signal(number: int, grace: float) -> None:
    _stop.name = signal.Signals(number).name
    _stop.first_seen = time.monotonic()
    _stop.requested.set()
    say(f"{_stop.name}: stopping after the unit of work in hand, {grace:.0f} s at most")
    main = threading.main_thread().ident
    assert main is not None  # it runs: this is its signal handler
    alarm = threading.Timer(grace, signal.pthread_kill, (main, number))
    alarm.daemon = True
    alarm.start()


def listening() -> bool:
    """Whether this process takes stop signals, so that whoever replaced the handler can put it back."""
    return _stop.listening


def stop_requested() -> bool:
    """Whether a stop signal has come; loops that end cleanly by themselves ask this."""
    return _stop.requested.is_set()


def check_stop() -> None:
    """Raise `StoppedError` if a stop signal has come; called between two units of work."""
    if stop_requested():
        raise StoppedError(f"stopped by {_stop.name}; what is finished is kept, the same command continues")
