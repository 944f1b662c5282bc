"""cluster.yaml against the schema of the installed Ray and the promises in its comments; offline."""

import copy
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from synface import settings
from synface.cli import _recipe_as_pipeline, _sections
from synface.flows import wiring
from synface.flows.config import PipelineConfig
from synface.ops import demand

ROOT = Path(__file__).resolve().parents[2]
TOKEN_FILE = "/home/ray/.ray/auth_token"


@pytest.fixture
def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def check(config: dict) -> None:
    """What `ray up` checks before it calls AWS."""
    validate_config(prepare_config(copy.deepcopy(config)))


def faults(config: dict) -> list[str]:
    """What Ray's schema does not know: that node types can start, and the promises of this project."""
    found = []
    types = config["available_node_types"]
    head, workers = config["head_node_type"], {n: t for n, t in types.items() if n != config["head_node_type"]}
    if head not in types:
        return [f"head_node_type {head} is not among the node types"]
    found += [f"{n}: no InstanceType" for n, t in types.items() if not t["node_config"].get("InstanceType")]
    found += [
        f"{n}: no instance profile" for n, t in types.items() if not _profile(t).get("Arn", "").startswith("arn:")
    ]
    found += [f"{n}: min_workers is not 0" for n, t in types.items() if t["min_workers"] != 0]
    found += [f"{n}: no max_workers" for n, t in workers.items() if not t["max_workers"]]
    found += [
        f"{n}: more than the cluster's max_workers"
        for n, t in workers.items()
        if t["max_workers"] > config["max_workers"]
    ]
    found += [
        f"{n}: label market disagrees" for n, t in types.items() if (t["labels"]["market"] == "spot") != _spot(t)
    ]
    found += [f"{n}: trial drivers on spot" for n, t in types.items() if _spot(t) and "trial_driver" in t["resources"]]
    found += [
        f"{n}: metadata without token"
        for n, t in types.items()
        if t["node_config"].get("MetadataOptions", {}).get("HttpTokens") != "required"
    ]
    if types[head]["resources"].get("CPU") != 0 or "trial_driver" not in types[head]["resources"]:
        found.append("the head takes work, or no trial drivers")
    gpu = {n: t for n, t in workers.items() if t["labels"]["pool"] == "gpu"}
    spot = [t["priority"] for t in gpu.values() if _spot(t)]
    if not spot or not any(t["priority"] < min(spot) for t in gpu.values() if not _spot(t)):
        found.append("no GPU spot type with an on-demand type behind it")
    if "--env RAY_AUTH_MODE=token" not in config["docker"]["run_options"] or TOKEN_FILE not in config["file_mounts"]:
        found.append("no token authentication")
    if not 0 < config["idle_timeout_minutes"] <= 30:
        found.append("idle nodes stay")
    starts = [c for c in config["head_start_ray_commands"] if "ray start --head" in c]
    if len(starts) != 1 or "--dashboard-host=127.0.0.1" not in starts[0] or "--autoscaling-config" not in starts[0]:
        found.append("the dashboard is not bound to localhost, or nothing scales")
    for rule in config["provider"]["security_group"]["IpPermissions"]:
        if (rule["FromPort"], rule["ToPort"]) != (22, 22) or {"CidrIp": "0.0.0.0/0"} in rule["IpRanges"]:
            found.append("something other than SSH is open, or to everybody")
    return found


def _profile(node_type: dict) -> dict:
    return node_type["node_config"].get("IamInstanceProfile", {})


def _spot(node_type: dict) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def test_ray_takes_it_and_it_keeps_its_promises(config):
    check(config)
    assert faults(config) == []


def test_no_keys_and_no_placeholders_beside_the_marked_ones(config):
    text = (ROOT / "cluster.yaml").read_text()
    lowered = text.lower()
    assert not [w for w in ("access_key", "secret", "akia", "password", "ssh_private_key") if w in lowered]
    marked = [line for line in text.splitlines() if "FILL" in line and not line.startswith("#")]
    assert len(marked) == 6
    assert [line for line in text.splitlines() if "000000000000" in line or "example.com" in line] == [
        line for line in marked if "000000000000" in line or "example.com" in line
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("max_workerz",), 3),
        (("max_workers",), -1),
        (("provider", "type"), "nimbus"),
        (("available_node_types", "gpu_spot", "resources"), {"GPU": -1}),
        (("available_node_types", "gpu_spot", "instance"), "g6.xlarge"),
        (("head_node_type",), "nobody"),
        (("idle_timeout_minutes",), "soon"),
        (("docker", "imagename"), "x"),
    ],
)
def test_ray_refuses_injected_errors(config, path, value):
    _set(config, path, value)
    with pytest.raises((jsonschema.ValidationError, ValueError, NotImplementedError)):
        check(config)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("head_node_type",), "nobody", "not among"),
        (("available_node_types", "gpu_spot", "node_config", "InstanceType"), "", "no InstanceType"),
        (("available_node_types", "gpu_spot", "node_config", "InstanceMarketOptions"), {}, "market disagrees"),
        (("available_node_types", "gpu_spot", "resources"), {"trial_driver": 1}, "trial drivers on spot"),
        (("available_node_types", "gpu_spot", "min_workers"), 1, "min_workers"),
        (("available_node_types", "gpu_spot", "max_workers"), 99, "max_workers"),
        (("available_node_types", "gpu_spot", "priority"), 0, "on-demand type behind"),
        (("available_node_types", "head", "resources"), {"trial_driver": 1}, "head takes work"),
        (("available_node_types", "head", "node_config", "IamInstanceProfile"), {}, "instance profile"),
        (("available_node_types", "head", "node_config", "MetadataOptions"), {}, "metadata"),
        (("docker", "run_options"), [], "token"),
        (("file_mounts",), {}, "token"),
        (("idle_timeout_minutes",), 0, "idle"),
        (("head_start_ray_commands",), ["ray start --head --dashboard-host=0.0.0.0"], "localhost"),
        (("provider", "security_group", "IpPermissions", 0, "ToPort"), 8265, "SSH"),
        (("provider", "security_group", "IpPermissions", 0, "IpRanges"), [{"CidrIp": "0.0.0.0/0"}], "everybody"),
    ],
)
def test_broken_promises_are_found(config, path, value, fault):
    _set(config, path, value)
    assert any(fault in found for found in faults(config)), faults(config)


def _set(tree, path, value):
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value


def test_each_stage_of_the_cluster_recipe_finds_its_node_type(config):
    """Labels select node types that have what the stage asks: GPUs where it computes on them, else none."""
    data = _recipe_as_pipeline(settings.read_recipe(str(ROOT / "jobs/configs/cluster_gpu.yaml"), _sections()))
    stages = wiring.steps(settings.build(PipelineConfig, {**data, "output": "s3://bucket/run"}))
    workers = {n: t for n, t in config["available_node_types"].items() if n != config["head_node_type"]}
    found = {}
    for name, stage in stages.items():
        wanted = getattr(getattr(stage, "how", None), "labels", {})
        chosen = [n for n, t in workers.items() if demand.has_labels(t["labels"], wanted)]
        on_gpus = getattr(getattr(stage, "numerics", None), "device", "cpu") == "cuda"
        assert chosen and (not wanted or all(n.startswith("gpu" if on_gpus else "cpu") for n in chosen)), name
        found[name] = set(chosen)
    assert found["pool"] == {"cpu_on_demand"} and found["generate"] == {"gpu_spot", "gpu_on_demand"}
    assert found["train_recognizer"] == {"gpu_on_demand"}
    # as many workers as that node type may have nodes, one GPU each
    assert stages["train_recognizer"].numerics.num_workers <= workers["gpu_on_demand"]["max_workers"]
