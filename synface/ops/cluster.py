"""Joining or starting Ray: the only caller of ray.init."""

import logging
import os
from importlib.metadata import version

import ray

from synface.core.errors import InputError
from synface.store.uri import is_local

#: local clusters need little: images pass through in small blocks
LOCAL_OBJECT_STORE_BYTES = 512 << 20


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster of ``RAY_ADDRESS`` (set inside a submitted job), else start a local one; idempotent."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"log_to_driver": True, "logging_level": logging.WARNING}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
        return
    ray.init(
        address="local",
        num_cpus=num_cpus or os.cpu_count(),
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        **quiet,
    )


def check_output_reachable(output: str) -> None:
    """Refuse a local path as the output of a cluster of several nodes: workers would write elsewhere."""
    if is_local(output) and len([n for n in ray.nodes() if n["Alive"]]) > 1:
        raise InputError(
            f"output {output}: a local path on a cluster of several nodes; use s3://, gs:// or a shared mount "
            "given as file:// on every node is not supported"
        )


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
