"""Progress on stderr: one line every few seconds with rate and ETA, for logs and terminals alike; and as metrics."""

import time

from synface.ops import metrics
from synface.ops.runs import say
from synface.ops.signals import check_stop

#: what counts as images in the metrics
IMAGES = ("images", "pictures", "faces")


def duration(seconds: float) -> str:
    """``42s``, ``3m05s``, ``2h07m``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Counts units of work and prints ``label: done/total unit, rate, ETA`` at most every `interval` s.

    The label's first word is the stage, under which the metrics count.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, interval: float = 5.0):
        self.label, self.total, self.unit, self.interval = label, total, unit, interval
        self.done = self._start = done
        self.stage = label.split(":")[0].split(" ")[0]
        self._t0 = self._last = time.monotonic()
        metrics.show(metrics.WORK_ASKED, self.stage, total)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units; prints when it is time, and at the end."""
        self.done += count
        if self.unit in IMAGES:
            metrics.add(metrics.IMAGES, self.stage, count)
        metrics.show(metrics.WORK_DONE, self.stage, self.done)
        now = time.monotonic()
        if now - self._last >= self.interval or self.done >= self.total:
            self._last = now
            self._print(now, note)

    def advance_or_stop(self, count: int = 1, note: str = "") -> None:
        """`advance`, then leave if a stop signal came: for loops that keep nothing between two units of work.

        Raises:
            StoppedError: see `signals.check_stop`.
        """
        self.advance(count, note)
        check_stop()

    def _print(self, now: float, note: str) -> None:
        elapsed = max(now - self._t0, 1e-9)
        rate = (self.done - self._start) / elapsed
        left = max(self.total - self.done, 0)
        eta = f", ETA {duration(left / rate)}" if rate > 0 and left else ""
        tail = f" {note}" if note else ""
        say(f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s{eta}{tail}")
