"""Memory of `synface generate`: does it stay flat however many images are made?

    python benchmarks/generate_memory.py                          # 200,000 images of 16 pixels
    python benchmarks/generate_memory.py --images 20000 --output s3://bucket/prefix

The verb runs as a process of its own, with a near-free generator, so that blocks would pile up in front of the writers
if nothing held them back. Once a second the PSS of every process of the run is added up from `/proc/*/smaps_rollup`
(a page that k processes share counts 1/k in each): the driver, its Ray daemons, actors and writers, the object
store included. Processes are found by their parents and by the driver's session, which those that lost their
parent keep. No model is loaded, so there is none to subtract.

Result: the peak, and the slope of the curve behind its first third (start-up) in MiB per 1,000 images with the 95 %
interval of a line through it: a pipeline that keeps what it makes has the size of an image there.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from scipy import stats

from common import write_result
from synface.store import ledger
from synface.store import uri as uris

IMAGES_PER_IDENTITY = 16
LIMIT_BYTES = 3 << 30


def processes_of(driver: int) -> set[int]:
    """The driver, everything below it, and what is left of its session where a parent has died."""
    found = {driver}
    try:
        found |= {child.pid for child in psutil.Process(driver).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == driver:
                found.add(pid)
        except OSError:  # gone meanwhile
            continue
    return found


def pss(pid: int) -> int:
    """Proportional set size in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def images_done(output: str, per_shard: int) -> int:
    """Images in finished shards, all of one size but the last."""
    return per_shard * len(uris.list_files(uris.join(output, ledger.LEDGER)))


def run(asked: argparse.Namespace, output: str) -> tuple[list[tuple[float, int, int]], dict]:
    """(seconds, images in finished shards, bytes) once a second, and the verb's result line."""
    fields = {
        "--generator": "generate_overhead:Bytes",
        "--num-identities": asked.images // IMAGES_PER_IDENTITY,
        "--images-per-identity": IMAGES_PER_IDENTITY,
        "--images-per-shard": asked.images_per_shard,
        "--image-size": asked.size,
        "--how.max-actors": asked.workers,
        "--output": output,
    }
    command = [sys.executable, "-m", "synface.cli", "generate", *(str(x) for pair in fields.items() for x in pair)]
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    curve = []
    try:
        while process.poll() is None:
            total = sum(map(pss, processes_of(process.pid)))
            curve.append((time.monotonic() - started, images_done(output, asked.images_per_shard), total))
            time.sleep(asked.interval)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    answer = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"generate ended with code {process.returncode}: {answer}")
    return curve, json.loads(answer.splitlines()[-1])


def slope(curve: list[tuple[float, int, int]]) -> dict[str, float]:
    """MiB per 1,000 images behind the first third of the images, with the 95 % interval of a straight line's slope."""
    last = curve[-1][1]
    steady = np.array([(n / 1000, size / 2**20) for _, n, size in curve if last / 3 <= n < last])
    if len(steady) == 0 or len(np.unique(steady[:, 0])) < 3:
        raise SystemExit("too short a run for a slope: more --images, or smaller --images-per-shard")
    x, y = steady.T - steady.mean(0)[:, None]
    line = float(x @ y / (x @ x))
    error = float(np.sqrt(((y - line * x) ** 2).sum() / (len(x) - 2) / (x @ x)))
    half = float(stats.t.ppf(0.975, len(x) - 2)) * error
    return {"mib_per_1000_images": line, "low": line - half, "high": line + half, "n": len(x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--images-per-shard", type=int, default=2048)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two samples")
    parser.add_argument("--output", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="generate-memory-") as folder:
        output = uris.join(asked.output or folder, f"{time.time_ns()}")
        curve, made = run(asked, output)
    peak = max(size for *_, size in curve)
    thinned = curve[:: max(1, len(curve) // 60)]
    result = {
        "images": made["images"],
        "image_size": asked.size,
        "images_per_shard": asked.images_per_shard,
        "workers": asked.workers,
        "seconds": made["seconds"],
        "bytes_written": made["bytes"],
        "peak_gib": round(peak / 2**30, 3),
        "limit_gib": LIMIT_BYTES / 2**30,
        "below_the_limit": peak < LIMIT_BYTES,
        "slope": {name: round(value, 4) for name, value in slope(curve).items()},
        "curve": [{"seconds": round(t, 1), "images": n, "mib": round(size / 2**20, 1)} for t, n, size in thinned],
    }
    write_result(f"generate_memory_{asked.images}", result)


if __name__ == "__main__":
    main()
