"""Joining or starting Ray: the only caller of ray.init."""

import logging
import os
from importlib.metadata import version

import ray

from synface.core.errors import InputError
from synface.ops import demand, runs, signals
from synface.store.uri import absolute, is_local

#: local clusters need little: images pass through in small blocks
LOCAL_OBJECT_STORE_BYTES = 512 << 20
#: folders that every node of the cluster mounts at the same place
SHARED_PATHS_VARIABLE = "SYNFACE_SHARED_PATHS"


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster of ``RAY_ADDRESS`` (set inside a submitted job), else start a local one; idempotent."""
    if ray.is_initialized():
        runs.publish()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"log_to_driver": True, "logging_level": logging.WARNING}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus or os.cpu_count(),
            object_store_memory=LOCAL_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    runs.publish()
    if signals.listening():
        signals.listen()  # ray.init put a handler of its own in place


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
