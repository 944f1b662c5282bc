"""`synface doctor`: what this machine can run, and which weights and data sets it has.

Third-party files are looked for below ``$SYNFACE_DATA`` (default ``~/.cache/synface/data``). Where the
digest of a third-party file is not known to us it says so: never trust a file because its name fits.
"""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from synface.core.errors import SynfaceError
from synface.evaluate.catalog import data_folder
from synface.models.arc2face import files as arc2face
from synface.ops.runs import say

PACKAGES = ("torch", "ray", "diffusers", "numpy", "pyarrow", "boto3", "numba", "scipy", "pydantic", "safetensors")
EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "cluster": ("aiohttp", "grpcio"),
    "arc2face": ("transformers",),
    "onnx": ("onnxruntime",),
}


@dataclass(frozen=True)
class External:
    """A file or folder that users bring: what it is for, its licence and its source."""

    name: str
    path: str
    needed_for: str
    licence: str
    source: str
    sha256: str = "not published by its authors; compare with the source you took it from"


#: licences and sources as their authors state them; synface ships none of these
EXTERNALS = (
    *[
        External(
            part.title,
            f"arc2face/{part.option}",
            f"generator arc2face (HyperFace at full scale): arc2face.{part.option}",
            part.licence,
            f"Hugging Face hub: {part.hub}",
        )
        for part in arc2face.PARTS
    ],
    External(
        "ArcFace recognizer of Arc2Face",
        "arc2face/weights/arcface.onnx",
        "embeddings that Arc2Face understands",
        "non-commercial research",
        "Hugging Face hub: FoivosPar/Arc2Face",
    ),
    External(
        "AdaFace IR-50 / IR-101",
        "adaface",
        "scoring and inquiry filtering as in CemiFace",
        "MIT code; weights trained on WebFace: research only",
        "GitHub: mk-minchul/AdaFace, model table of its README",
    ),
    *[
        External(
            f"verification set {name}",
            f"bin/{name}.bin",
            f"evaluate --benchmarks {name}",
            "research use; see the data set's own terms",
            "insightface recognition packages (GitHub: deepinsight/insightface, dataset zoo)",
        )
        for name in ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
    ],
    External(
        "CASIA-WebFace (RecordIO)",
        "casia/train.rec",
        "the real-data baseline that GtR needs",
        "non-commercial research, crawled without consent",
        "insightface dataset zoo (GitHub: deepinsight/insightface)",
    ),
)


def run() -> dict[str, Any]:
    """Look, print a page on stderr, and return the findings. Nothing is written or downloaded."""
    found = {
        "machine": _machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: all(_version(p) for p in needs) for name, needs in EXTRAS.items()},
        "embedded": _embedded(),
        "external": _externals(),
    }
    found["quickstart"] = _quickstart(found)
    _print(found)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "gpus": gpus,
        "bf16_matmul_fast": bool(gpus) or "amx" in _cpu_flags(),
    }


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _embedded() -> list[dict[str, Any]]:
    """The weights and assets that ship inside the package, loaded and checked."""
    from synface.models import heads
    from synface.models.weights import PRETRAINED, read_config, read_stated

    rows = []
    for name in PRETRAINED:
        row: dict[str, Any] = {"name": name, "kind": "weights"}
        try:
            config = read_config(name, read_stated(name).kind)
            row["kind"] = f"{config.kind} weights"
            row |= {"ok": True, "sha256": config.sha256, "licence": config.licence}
        except SynfaceError as error:
            row |= {"ok": False, "error": str(error)}
        rows.append(row)
    try:
        digest = heads.asset_digest()
        rows.append({"name": "heads", "kind": "face assets", "ok": True, "sha256": digest, "licence": "CC0-1.0"})
    except (SynfaceError, OSError) as error:
        rows.append({"name": "heads", "kind": "face assets", "ok": False, "error": str(error)})
    return rows


def _externals() -> list[dict[str, Any]]:
    folder = data_folder()
    return [
        {
            "name": item.name,
            "path": str(folder / item.path),
            "found": (folder / item.path).exists(),
            "needed_for": item.needed_for,
            "licence": item.licence,
            "source": item.source,
            "sha256": item.sha256,
        }
        for item in EXTERNALS
    ]


def _quickstart(found: dict[str, Any]) -> str:
    """``ready``, or what is missing for the main job."""
    faults = [f"package {n} is missing" for n, v in found["packages"].items() if v is None]
    faults += [f"{row['name']}: {row['error']}" for row in found["embedded"] if not row["ok"]]
    if not found["extras"]["report"]:
        faults.append('the report extra is missing: pip install "synface[report]"')
    if found["machine"]["memory_gib"] < 4:
        faults.append("less than 4 GiB of memory")
    if found["machine"]["free_disk_gib"] < 1:
        faults.append("less than 1 GiB of free disk")
    return "; ".join(faults) or "ready"


def _print(found: dict[str, Any]) -> None:
    machine = found["machine"]
    gpus = ", ".join(machine["gpus"]) or "none"
    say(
        f"machine    {machine['cores']} cores, {machine['memory_gib']} GiB memory, "
        f"{machine['free_disk_gib']} GiB free disk, GPUs: {gpus}, Python {machine['python']}"
    )
    say("packages   " + ", ".join(f"{n} {v or 'MISSING'}" for n, v in found["packages"].items()))
    say("extras     " + ", ".join(f"{n}: {'yes' if ok else 'no'}" for n, ok in found["extras"].items()))
    for row in found["embedded"]:
        state = f"ok, sha256 {row['sha256'][:12]}, {row['licence']}" if row["ok"] else f"FAULT: {row['error']}"
        say(f"embedded   {row['name']} ({row['kind']}): {state}")
    for row in found["external"]:
        state = "found" if row["found"] else "missing"
        say(f"external   {row['name']}: {state} at {row['path']}")
        if not row["found"]:
            say(f"           for {row['needed_for']}; licence: {row['licence']}; from: {row['source']}")
            say(f"           sha256: {row['sha256']}")
    say(f"quickstart {found['quickstart']}")
