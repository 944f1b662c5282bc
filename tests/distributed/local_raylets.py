"""A node provider for Ray's autoscaler whose nodes are `ray start --block` processes on this machine.

Named in an autoscaling config as ``provider: {type: external, module: local_raylets.LocalRaylets}``. Nodes are
started and ended by process id; nothing here runs `ray stop`, which would end every cluster of the machine.
"""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from cluster_tools import end_tree
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

START_SECONDS = 60


class LocalRaylets(NodeProvider):
    """Keeps the head (not ours to end) and one process per worker node."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str):
        super().__init__(provider_config, cluster_name)
        self.folder = Path(provider_config["folder"])
        self.lock = threading.RLock()
        head = provider_config["head_node_id"]
        self.processes: dict[str, subprocess.Popen[bytes] | None] = {head: None}
        self.tags = {head: _tags(head, provider_config["head_node_type"], NODE_KIND_HEAD)}

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        return cluster_config

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self.lock:
            for node in [n for n in self.processes if not self.is_running(n)]:
                del self.processes[node], self.tags[node]
            return [n for n, tags in self.tags.items() if tag_filters.items() <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        with self.lock:
            if node_id not in self.processes:
                return False
            process = self.processes[node_id]
            return process is None or process.poll() is None

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self.lock:
            return dict(self.tags[node_id])

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self.lock:
            self.tags[node_id].update(tags)

    def internal_ip(self, node_id: str) -> str:
        return self.provider_config["gcs_address"].rsplit(":", 1)[0]

    def external_ip(self, node_id: str) -> str:
        return self.internal_ip(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        raise NotImplementedError("the autoscaler calls create_node_with_resources_and_labels")

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        # one at a time: two raylets that start at once may choose the same socket
        for _ in range(count):
            self._start(f"node-{uuid.uuid4().hex[:8]}", tags[TAG_RAY_USER_NODE_TYPE], dict(resources), labels)

    def _start(self, node_id: str, node_type: str, resources: dict[str, float], labels: dict[str, str]) -> None:
        environment = dict(os.environ, RAY_CLOUD_INSTANCE_ID=node_id, RAY_NODE_TYPE_NAME=node_type)
        gcs = self.provider_config["gcs_address"]
        process = start_raylet(self.folder, gcs, node_id, resources, labels, environment)
        with self.lock:  # from here on the autoscaler sees it
            self.processes[node_id] = process
            self.tags[node_id] = _tags(node_id, node_type, NODE_KIND_WORKER)
        wait_for_raylet(self.folder, node_id, process)

    def terminate_node(self, node_id: str) -> None:
        with self.lock:
            process = self.processes.pop(node_id, None)
            self.tags.pop(node_id, None)
        if process is not None:
            end_tree(process.pid)
            process.poll()


def start_raylet(
    folder: Path, gcs_address: str, node_id: str, resources: dict[str, float], labels: dict[str, str],
    environment: dict[str, str],
) -> subprocess.Popen[bytes]:  # fmt: skip
    """A node of the cluster at `gcs_address`; its log and process id stand in the folder as ``<node_id>.log|.pid``."""
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"),
        f"--address={gcs_address}",
        "--node-ip-address=127.0.0.1",
        f"--num-cpus={int(resources.pop('CPU', 0))}",
        f"--num-gpus={int(resources.pop('GPU', 0))}",
        f"--object-store-memory={int(resources.pop('object_store_memory', 100e6))}",
        "--dashboard-agent-listen-port=0",
    ]
    resources.pop("memory", None)
    if resources:
        command.append(f"--resources={json.dumps(resources)}")
    if labels:
        command.append("--labels=" + ",".join(f"{k}={v}" for k, v in labels.items()))
    with open(folder / f"{node_id}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    (folder / f"{node_id}.pid").write_text(str(process.pid))
    return process


def wait_for_raylet(folder: Path, node_id: str, process: subprocess.Popen[bytes]) -> None:
    """Until the node has joined, or ended, or `START_SECONDS` have passed."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if "runtime started" in (folder / f"{node_id}.log").read_text():
            return
        time.sleep(0.1)


def _tags(node_id: str, node_type: str, kind: str) -> dict[str, str]:
    return {
        TAG_RAY_NODE_KIND: kind,
        TAG_RAY_NODE_NAME: node_id,
        TAG_RAY_USER_NODE_TYPE: node_type,
        TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
    }
