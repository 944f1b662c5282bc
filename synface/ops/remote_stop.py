"""A stop signal of the driver, passed on to its workers, which the signal does not reach, through Ray's own store.

The store's key is the job: all processes of one driver have it, and no others.
"""

import contextlib
import threading
from collections.abc import Iterator

import ray
from ray.experimental import internal_kv

from synface.ops import signals

NAMESPACE = "synface-stop"
POLL_SECONDS = 0.2


@contextlib.contextmanager
def passed_on() -> Iterator[None]:
    """In the driver: while the block runs, workers that ask learn of a stop signal."""
    job = ray.get_runtime_context().get_job_id()
    over, passed = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if signals.stop_requested():
                internal_kv._internal_kv_put(job, b"1", namespace=NAMESPACE)
                passed.set()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if passed.is_set():  # what another process of the job passed on (a sweep, to its trials) is its own
            internal_kv._internal_kv_del(job, namespace=NAMESPACE)


def asked() -> bool:
    """In a worker: whether the driver was asked to stop; about a millisecond."""
    return internal_kv._internal_kv_exists(ray.get_runtime_context().get_job_id(), namespace=NAMESPACE)
