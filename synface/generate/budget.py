"""How long a run may go on, and what it may cost."""

import time
from collections.abc import Callable

from synface.generate.config import GenerateHow


class Budget:
    """Counts hours and money from its making on; asked between two shards.

    Cost is the integral of the number of nodes over time, at `how.cost_per_hour` for each: an autoscaler's nodes count
    from when they are first seen.

    Args:
        how: ``max_hours``, ``max_cost`` and ``cost_per_hour``.
        nodes: how many nodes stand now.
        clock: seconds.
    """

    def __init__(self, how: GenerateHow, nodes: Callable[[], int], clock: Callable[[], float] = time.monotonic):
        self._how, self._nodes, self._clock = how, nodes, clock
        self._start = self._seen = clock()
        self.cost = 0.0

    def over(self) -> str | None:
        """What is used up, for a message; None while there is something left."""
        now = self._clock()
        if self._how.cost_per_hour is not None:
            self.cost += self._how.cost_per_hour * self._nodes() * (now - self._seen) / 3600
        self._seen = now
        if self._how.max_hours is not None and now - self._start > 3600 * self._how.max_hours:
            return f"how.max_hours = {self._how.max_hours}"
        if self._how.max_cost is not None and self.cost > self._how.max_cost:
            return f"how.max_cost = {self._how.max_cost} (spent: {self.cost:.2f})"
        return None
