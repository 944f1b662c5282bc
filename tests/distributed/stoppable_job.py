"""An entry point with a long unit of work, as the job server sees it: it checks for stop signals in between."""

import time

from synface.ops import cluster, signals

UNIT_SECONDS = 5.0

signals.listen()
cluster.connect()
signals.listen()  # Ray took the signal for itself
try:
    while True:
        print("unit begins", flush=True)
        end = time.monotonic() + UNIT_SECONDS
        while time.monotonic() < end:
            time.sleep(0.1)
        signals.check_stop()
except signals.StoppedError as error:
    print(f"checkpoint written: {error}", flush=True)
