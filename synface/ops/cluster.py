"""Joining or starting Ray: the only caller of ray.init."""

import itertools
import logging
import os
import socket
import time
from importlib.metadata import version
from typing import Any

import ray

from synface.core.errors import InputError, SynfaceError
from synface.ops import demand, runs, signals
from synface.store.uri import absolute, is_local

#: local clusters need little: images pass through in small blocks
LOCAL_OBJECT_STORE_BYTES = 512 << 20
#: glibc gives large blocks back to the system as soon as they are free, and a network's next pass pays page faults for
#: its features again: workers of a local cluster keep up to a gigabyte instead (benchmarks/kept_memory.py). The first
#: value is the largest that glibc takes; without it the second one makes things worse.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
QUIET: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.WARNING}
#: what Ray says of processes that were not up in time, and how often a local cluster is started
SLOW_START, START_TRIES = "timed out during startup", 3
#: folders that every node of the cluster mounts at the same place
SHARED_PATHS_VARIABLE = "SYNFACE_SHARED_PATHS"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: seconds that a cluster has to answer before its address is refused
REACH_SECONDS = 15.0


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster of ``RAY_ADDRESS`` (set inside a submitted job), else start a local one; idempotent.

    Raises:
        InputError: nobody answers at the address, it is no cluster's, or the cluster runs another Ray or Python.
        SynfaceError: the local Ray did not start.
    """
    if ray.is_initialized():
        runs.publish()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if address:
            check_address(address)
            ray.init(address="auto", **QUIET)
        else:
            _start(num_cpus or os.cpu_count())
    except InputError:
        raise
    except Exception as error:  # Ray raises plain ones
        raise explained(address, error) from error
    runs.publish()
    if signals.listening():
        signals.listen()  # ray.init put a handler of its own in place


def _start(num_cpus: int | None) -> None:
    """A local cluster; tried again where its processes were not up in the half minute that Ray gives them."""
    if not any(name in os.environ for name in KEPT_MEMORY):
        os.environ.update(KEPT_MEMORY)  # inherited by the workers
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                include_dashboard=False,
                **QUIET,
            )
            return
        except Exception as error:  # Ray raises plain ones
            if not left or SLOW_START not in str(error):
                raise
            runs.say(
                f"ray: not up in half a minute, on a machine that is this busy; started again ({left} more tries)"
            )
            ray.shutdown()


def check_address(address: str, patience: float = REACH_SECONDS) -> None:
    """Refuse an address that is no cluster's, or where nobody listens for so long.

    Args:
        address: ``host:port`` of a cluster's control plane, or a word that Ray resolves itself (``auto``).
        patience: seconds.
    """
    if "://" in address:
        kind = "a job server" if address.startswith("http") else "Ray Client's, which synface does not use"
        raise InputError(
            f"RAY_ADDRESS = {address}: that address is {kind}; send the command there with `ray job submit`, or unset "
            "RAY_ADDRESS to run on this machine"
        )
    host, _, port = address.rpartition(":")
    if not host:
        return
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"RAY_ADDRESS = {address}: expected host:port, for example 10.0.0.1:6379")
    # Ray takes a loopback name for this node's address
    hosts = [host.strip("[]"), *([ray.util.get_node_ip_address()] if host in LOOPBACK else [])]
    deadline = time.monotonic() + patience
    for place in itertools.cycle(hosts):
        try:
            left = max((deadline - time.monotonic()) / len(hosts), 0.1)
            with socket.create_connection((place, int(port)), timeout=left):
                return
        except OSError as error:
            if time.monotonic() + 0.5 >= deadline:
                raise InputError(
                    f"RAY_ADDRESS = {address}: nobody answers there ({error}; waited {patience:.0f} s). Is the head "
                    "up (`ray status` on it), and this machine inside its network? Jobs are sent with `ray job submit`"
                ) from error
            time.sleep(0.5)


def explained(address: str, error: Exception) -> SynfaceError:
    """What Ray said when it could not be joined or started, with what to do about it."""
    text = str(error)
    if "Version mismatch" in text:
        return InputError(
            f"RAY_ADDRESS = {address}: driver and cluster run different versions; use one image everywhere "
            f"(docs/operations.md, Upgrading Ray). {text}"
        )
    if address:
        return InputError(f"RAY_ADDRESS = {address}: the cluster cannot be joined: {type(error).__name__}: {text}")
    return SynfaceError(
        f"Ray did not start on this machine: {type(error).__name__}: {text}. It gives its processes half "
        f"a minute ({START_TRIES} tries where they were slow): on an overloaded machine try again; else read "
        "/tmp/ray/session_latest/logs"
    )


def check_output_reachable(output: str) -> None:
    """Refuse a local path as the output of a cluster of several nodes: workers would write elsewhere.

    A cluster of an autoscaler counts as one of several. A mount that every node has at the same place (NFS,
    FSx) is named in ``SYNFACE_SHARED_PATHS``, a list of folders as in ``PATH``; outputs below it are accepted.
    """
    if not is_local(output) or _below_shared_path(absolute(output)):
        return
    if len([n for n in ray.nodes() if n["Alive"]]) > 1 or demand.autoscaled():
        raise InputError(
            f"output {output}: a local path on a cluster of several nodes, where each would write to its own disk; "
            f"use s3:// or gs://, or name the mount that all nodes share in {SHARED_PATHS_VARIABLE}"
        )


def _below_shared_path(path: str) -> bool:
    folders = filter(None, os.environ.get(SHARED_PATHS_VARIABLE, "").split(os.pathsep))
    return any(path == f or path.startswith(f.rstrip("/") + "/") for f in map(absolute, folders))


def versions() -> dict[str, str]:
    """The versions that decide bytes, for manifests."""
    names = ("synface", "torch", "numpy", "pyarrow", "ray", "numba", "pillow", "diffusers")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except Exception:
            continue
    return found
