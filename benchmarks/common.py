"""What every benchmark prints with its result: the machine, the versions and the command."""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil

from synface.ops.cluster import versions


def environment() -> dict[str, Any]:
    return {
        "command": " ".join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def write_result(name: str, result: dict[str, Any]) -> None:
    """Print the result as one JSON line and keep it in benchmarks/results/."""
    whole = {**result, "environment": environment()}
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    print(json.dumps(whole))


def print_line(result: dict[str, Any], output: str) -> None:
    """Print one result of several as a JSON line; append it to the file `output`, where one is named."""
    line = json.dumps({**result, "environment": environment()})
    print(line, flush=True)
    if output:
        with Path(output).open("a") as stream:
            stream.write(line + "\n")


def mean_and_interval(values: list[float]) -> dict[str, float]:
    """Mean and Student-t 95 % interval of independent values (paired differences, seeds)."""
    import numpy as np
    from scipy import stats

    x = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5
    return {"mean": float(x.mean()), "low": float(x.mean() - half), "high": float(x.mean() + half), "n": len(x)}
