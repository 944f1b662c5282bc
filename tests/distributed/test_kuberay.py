"""The KubeRay manifests: their structure always, the operator's own JSON schemas where they are at hand."""

import copy
import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("raycluster", "rayjob")


def load(kind: str) -> dict:
    return yaml.safe_load((ROOT / "jobs" / "kuberay" / f"{kind}.yaml").read_text())


def schema_folder() -> Path | None:
    """``SYNFACE_KUBERAY_SCHEMAS``, else a ``shared/data/kuberay`` beside one of the folders above."""
    named = os.environ.get("SYNFACE_KUBERAY_SCHEMAS")
    candidates = [Path(named)] if named else [p / "shared" / "data" / "kuberay" for p in ROOT.parents]
    return next((c for c in candidates if (c / "rayjob.schema.json").is_file()), None)


@pytest.fixture(scope="module")
def validators() -> dict[str, jsonschema.Draft7Validator]:
    folder = schema_folder()
    if folder is None:
        pytest.skip("no schemas of the KubeRay operator: set SYNFACE_KUBERAY_SCHEMAS to a folder that has them")
    schemas = {kind: json.loads((folder / f"{kind}.schema.json").read_text()) for kind in KINDS}
    return {kind: jsonschema.Draft7Validator(schema) for kind, schema in schemas.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_operators_schema_takes_them(validators, kind):
    assert [error.message for error in validators[kind].iter_errors(load(kind))] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "enableInTreeAutoscalin"), True),
        (("spec", "autoscalerOptions", "version"), "v3"),
        (("spec", "authOptions", "mode"), "password"),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "many"),
        (("spec", "workerGroupSpecs", 0, "idleTimeout"), 5),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "imagePolicy"), "Always"),
    ],
)
def test_injected_errors_are_refused(validators, path, value):
    broken = tree = copy.deepcopy(load("raycluster"))
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value
    assert not validators["raycluster"].is_valid(broken)


def test_both_describe_the_same_cluster():
    assert load("rayjob")["spec"]["rayClusterSpec"] == load("raycluster")["spec"]


def test_gpu_workers_scale_from_nothing_spot_first():
    spec = load("raycluster")["spec"]
    assert spec["enableInTreeAutoscaling"] is True and spec["autoscalerOptions"]["version"] == "v2"
    groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
    assert all(g["minReplicas"] == g["replicas"] == 0 < g["maxReplicas"] for g in groups.values())
    gpu = {n: g for n, g in groups.items() if g["labels"]["pool"] == "gpu"}
    assert {g["labels"]["market"] for g in gpu.values()} == {"spot", "on-demand"}
    assert gpu["gpu-spot"]["priority"] > gpu["gpu-on-demand"]["priority"]


def test_logical_resources_are_the_containers_own():
    for group in load("raycluster")["spec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["resources"]["CPU"] == limits["cpu"]
        assert group["resources"].get("GPU") == limits.get("nvidia.com/gpu")


def test_trial_drivers_and_no_work_on_the_head_and_no_driver_on_spot():
    spec = load("raycluster")["spec"]
    assert spec["headGroupSpec"]["resources"]["CPU"] == "0"
    assert "trial_driver" in spec["headGroupSpec"]["resources"]
    with_drivers = [g["labels"]["market"] for g in spec["workerGroupSpecs"] if "trial_driver" in g["resources"]]
    assert with_drivers == ["on-demand"]


def test_token_on_nothing_public_no_root_no_secret():
    spec = load("raycluster")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True and "hostNetwork" not in pod
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert not [e["name"] for e in container["env"] if re.search("KEY|SECRET|TOKEN|PASSWORD", e["name"])]


def test_a_job_waits_for_checkpoints_and_cleans_up():
    spec = load("rayjob")["spec"]
    wait = int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
    grace = load("raycluster")["spec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 20 < wait < grace
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] > 0
    script = spec["entrypoint"].split()[1]
    config = spec["entrypoint"].split()[3]
    assert (ROOT / script).is_file() and (ROOT / config).is_file()


def test_one_ray_version_everywhere():
    pinned = re.search(r"ARG RAY_VERSION=(\S+)", (ROOT / "Dockerfile").read_text())
    assert pinned and load("raycluster")["spec"]["rayVersion"] == pinned.group(1)
    assert pinned.group(1).split(".")[:2] == ray.__version__.split(".")[:2]
