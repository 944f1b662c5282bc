"""Stop signals against real processes: the flag, the interruption, and Ray's own handler and blocking calls."""

import os
import select
import signal
import subprocess
import sys
import time

import pytest

PROLOGUE = """
import sys, time
from synface.ops import signals
def ready(): print("ready", flush=True)
"""


def start(body: str) -> subprocess.Popen[bytes]:
    """A Python process that has printed ``ready``."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that `readline` takes no more than its line from `communicate`
        env=dict(os.environ, RAY_USAGE_STATS_ENABLED="0"),
    )
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], 120)[0]
    line = child.stdout.readline()
    assert line == b"ready\n", child.communicate(timeout=30)[1]
    return child


def end(child: subprocess.Popen[bytes], timeout: float = 30) -> tuple[str, str]:
    try:
        out, err = child.communicate(timeout=timeout)
        return out.decode(), err.decode()
    finally:
        child.kill()


def test_a_loop_finishes_its_unit_of_work_and_leaves():
    child = start("""
signals.listen()
done = 0
ready()
try:
    while True:
        time.sleep(0.05); time.sleep(0.05); done += 1
        signals.check_stop()
except signals.StoppedError as error:
    print(done > 0, error)
    sys.exit(error.exit_code)
""")
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    out, err = end(child)
    assert child.returncode == 3
    assert out == "True stopped by SIGTERM; what is finished is kept, the same command continues\n"
    assert "SIGTERM: stopping after the unit of work in hand, 20 s at most" in err


def test_progress_leaves_where_a_loop_keeps_nothing_between_two_units():
    """As embedding, evaluation and the pool's subset do: long before they would be interrupted."""
    child = start("""
from synface.ops.progress import Progress
progress = Progress("embed", 1000, "images")
try:
    with signals.stoppable(grace=60):
        ready()
        for _ in range(1000):
            time.sleep(0.05); progress.advance_or_stop(1)
except signals.StoppedError:
    print(0 < progress.done < 1000)
""")
    child.send_signal(signal.SIGTERM)
    assert end(child)[0] == "True\n" and child.returncode == 0


def test_nothing_is_requested_without_a_signal():
    child = start("signals.listen(); ready(); signals.check_stop(); print(signals.stop_requested())")
    assert end(child)[0] == "False\n"
    assert child.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_that_never_asks_is_interrupted_after_the_grace(number):
    child = start("""
started = time.monotonic()
try:
    with signals.stoppable(grace=1.0):
        ready()
        time.sleep(60)
except signals.StoppedError as error:
    print(round(time.monotonic() - started, 1)); print(error); sys.exit(3)
""")
    child.send_signal(number)
    out, _ = end(child)
    assert child.returncode == 3
    seconds, message = out.splitlines()
    assert 0.9 <= float(seconds) < 10
    assert message == f"stopped by {number.name}; what is finished is kept, the same command continues"


def test_what_follows_a_stop_is_not_interrupted_again():
    child = start("""
try:
    with signals.stoppable(grace=1.5):
        ready()
        while True:
            time.sleep(0.05); signals.check_stop()
except signals.StoppedError:
    print("stopped", flush=True)
time.sleep(3)
print("end")
""")
    child.send_signal(signal.SIGTERM)
    assert child.stdout is not None
    assert child.stdout.readline() == b"stopped\n"
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)
    assert end(child)[0] == "end\n"
    assert child.returncode == 0


def test_handlers_are_put_back_after_a_calm_block():
    child = start("""
import signal
before = [signal.getsignal(s) for s in signals.SIGNALS]
with signals.stoppable():
    inside = [signal.getsignal(s) for s in signals.SIGNALS]
    signals.listen()
ready()
print(before == [signal.getsignal(s) for s in signals.SIGNALS], inside[0] is inside[1], signals.listening())
try:
    with signals.stoppable():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("not ours")
""")
    assert end(child)[0] == "True True False\nnot ours\n"


def test_a_second_signal_interrupts_at_once_but_an_echo_of_the_first_does_not():
    child = start("""
signals.listen()
ready()
try:
    while not signals.stop_requested(): time.sleep(0.01)
    print("first", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted"); sys.exit(3)
""")
    child.send_signal(signal.SIGTERM)
    assert child.stdout is not None
    assert child.stdout.readline() == b"first\n"
    child.send_signal(signal.SIGTERM)  # the group's copy of the same signal
    time.sleep(1.2)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    out, _ = end(child, timeout=10)
    assert (out, child.returncode) == ("interrupted\n", 3)


def test_outside_the_main_thread_nothing_is_installed():
    child = start("""
import signal, threading
ready()
before = signal.getsignal(signal.SIGTERM)
thread = threading.Thread(target=signals.listen); thread.start(); thread.join()
print(signal.getsignal(signal.SIGTERM) == before)
""")
    assert end(child)[0] == "True\n"


@pytest.mark.slow
def test_ray_takes_the_signal_away_and_a_second_listen_takes_it_back():
    child = start("""
import signal, ray
signals.listen()
mine = signal.getsignal(signal.SIGTERM)
ray.init(address="local", num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
print_taken = signal.getsignal(signal.SIGTERM) is not mine
signals.listen()
ready()
while not signals.stop_requested(): time.sleep(0.05)
print(print_taken, ray.is_initialized())
ray.shutdown()
""")
    child.send_signal(signal.SIGTERM)
    out, _ = end(child, timeout=60)
    assert out == "True True\n"
    assert child.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["ray.get(endless)", "ray.wait([endless])"])
def test_a_blocking_call_of_ray_is_interrupted(call):
    child = start(f"""
import ray
from synface.ops import cluster
try:
    with signals.stoppable(grace=1.0):
        cluster.connect(num_cpus=1)
        endless = ray.remote(lambda: time.sleep(120)).remote()
        ready()
        started = time.monotonic()
        {call}
except signals.StoppedError:
    print(time.monotonic() - started < 10)
ray.shutdown()
""")
    child.send_signal(signal.SIGTERM)
    out, _ = end(child, timeout=60)
    assert out == "True\n"
    assert child.returncode == 0
