"""A pipeline whose processes are killed again and again, against the same pipeline left in peace.

    python benchmarks/chaos.py --output runs/chaos                      # jobs/configs/smoke.yaml, 20 kills
    python benchmarks/chaos.py --output runs/chaos --recipe quickstart --kills 20

Each time that something new stands in the store (a shard's ledger entry, a part, a checkpoint, a manifest), one
process of the run is chosen at random, the driver or a Ray worker of its own cluster, and gets SIGKILL. A supervisor
starts a driver that has ended before its work with the same command. A recipe that is over too soon is run again
elsewhere until there were enough kills. Then every file is compared with the calm run's, and every row is counted.

One JSON line: kills and what they hit, seconds lost, rows lost, rows twice, files that differ. Exit code 1 if a row
is lost or twice, a file differs, or a driver hung; a training that is not bitwise may differ by `--spread`.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from common import write_result
from synface.store import artifact, tables

ROOT = Path(__file__).resolve().parents[1]
#: what may differ between two runs: times, logs, pages, signs of life, checkpoints on their way
TIMES_AND_LOGS = ("_synface/result-", "_synface/tensorboard/", "_synface/train/", "/_synface/leases/", "/report/")
#: what a run leaves as it gets on
MARKERS = ("/_synface/ledger/", "/_synface/parts/", "/_synface/checkpoint/", "/_synface/train/", "/manifest.json")
#: sections whose bytes depend on a training
TRAINED = ("/recognizer/", "/evaluation/")
#: starts in a row without anything new in the store
HOPELESS_STARTS = 8
POLL_SECONDS = 0.25


@dataclass
class Rough:
    """What happened to one disturbed run."""

    seconds: float = 0.0
    starts: int = 0
    hung: int = 0
    kills: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)


def command(recipe: str, output: Path) -> list[str]:
    config = ROOT / "jobs" / "configs" / f"{recipe}.yaml"
    return [sys.executable, str(ROOT / "jobs" / "pipeline.py"), "--config", str(config), "--output", str(output)]


def start(recipe: str, output: Path) -> psutil.Popen:
    """A driver with a cluster of its own, in a session of its own; one run's id for all its starts."""
    caches = {"SYNFACE_CACHE": f"{output}-cache", "SYNFACE_RUN_ID": "chaos"}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | caches
    with open(f"{output}.log", "a") as log:
        return psutil.Popen(
            command(recipe, output), env=environment, stdout=log, stderr=log, start_new_session=True, cwd=output.parent
        )


def tree(driver: psutil.Popen) -> list[psutil.Process]:
    """The driver and all that it started; psutil knows a process by id and time of birth, so no stranger is hit."""
    try:
        return [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: list[psutil.Process]) -> None:
    """SIGKILL to what is left of a run."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=30)


def victims(processes: list[psutil.Process]) -> list[tuple[str, psutil.Process]]:
    """The driver, and Ray's workers by what they do."""
    found = [("driver", processes[0])] if processes else []
    for process in processes[1:]:
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line and line[0].startswith("ray::"):
            found.append((line[0].split("(")[0].split(".")[0], process))
    return found


def marker(output: Path) -> frozenset[str]:
    """Names of what stands in the store and will not be done again."""
    found = (f"/{Path(folder, name).relative_to(output)}" for folder, _, names in os.walk(output) for name in names)
    return frozenset(p for p in found if any(m in p for m in MARKERS) and not p.endswith(".tmp"))


def run_rough(recipe: str, output: Path, kills: int, rng: random.Random, patience: float) -> Rough:
    """The recipe to its end, killed up to so many times on its way.

    Raises:
        SystemExit: starts came to nothing `HOPELESS_STARTS` times in a row.
    """
    found, seen, fruitless = Rough(), frozenset(), 0
    began = time.monotonic()
    while True:
        before = seen
        driver = start(recipe, output)
        found.starts += 1
        seen = disturb(driver, output, seen, kills, rng, patience, found)
        found.exit_codes.append(int(driver.returncode))
        if driver.returncode == 0:
            found.seconds = time.monotonic() - began
            return found
        fruitless = 0 if seen - before else fruitless + 1
        if fruitless >= HOPELESS_STARTS:
            sys.exit(f"chaos: {HOPELESS_STARTS} starts in a row came to nothing; see {output}.log")


def disturb(
    driver: psutil.Popen,
    output: Path,
    seen: frozenset[str],
    kills: int,
    rng: random.Random,
    patience: float,
    found: Rough,
) -> frozenset[str]:
    """One start to its end, with a kill for each step forward; what stands afterwards. No process is left."""
    known: dict[int, psutil.Process] = {}
    heard = time.monotonic()
    try:
        while driver.poll() is None:
            time.sleep(POLL_SECONDS)
            processes = tree(driver)
            known |= {p.pid: p for p in processes}
            now = marker(output)
            choice = victims(processes)
            if now <= seen:
                if time.monotonic() - heard > patience:
                    found.hung += 1
                    driver.kill()
                    break
                continue
            heard, seen = time.monotonic(), seen | now
            if choice and len(found.kills) < kills:
                name, process = rng.choice(choice)
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                    process.kill()
                    found.kills.append(name)
    finally:
        end([driver, *known.values()])
    driver.wait()
    return seen | marker(output)


def digests(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of what must be the same in every run."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = f"/{path.relative_to(root)}"
        if path.is_file() and not any(part in relative for part in TIMES_AND_LOGS):
            found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows(root: Path) -> Counter:
    """(folder, identity, sample) of every row of every images table, as readers see it; how often."""
    found: Counter = Counter()
    for manifest in sorted(root.glob("*/_synface/manifest.json")):
        folder = manifest.parents[1]
        if json.loads(manifest.read_text())["kind"] == "images":
            for table in tables.iter_images(str(folder), ["identity_id", "sample"]):
                keys = zip(table["identity_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
                found.update((folder.name, *key) for key in keys)
    return found


def accuracy(root: Path) -> float | None:
    """Average accuracy of the run's evaluation, if it has one."""
    found = artifact.load_manifest(str(root / "evaluation"))
    return None if found is None else float(next(iter(found.numbers["average"].values())))


def compare(calm: Path, rough: Path, spread: float) -> dict[str, Any]:
    """What a disturbed run lost, made twice, made differently, and left lying."""
    theirs, mine = digests(calm), digests(rough)
    differing = [path for path, digest in theirs.items() if mine.get(path) != digest]
    wanted, there = rows(calm), rows(rough)
    numbers = {"calm": accuracy(calm), "rough": accuracy(rough)}
    apart = abs(numbers["calm"] - numbers["rough"]) if None not in numbers.values() else 0.0
    trained = [path for path in differing if any(path.startswith(part) for part in TRAINED)]
    lost, twice = len(set(wanted) - set(there)), sum(n - 1 for n in there.values())
    return {
        "files": len(theirs),
        "files_that_differ": differing[:20],
        "files_left_over": len(set(mine) - set(theirs)),
        "rows": sum(wanted.values()),
        "rows_lost": lost,
        "rows_twice": twice,
        "accuracy": numbers,
        "whole": not lost and not twice and len(trained) == len(differing) and (not trained or apart <= spread),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder; the calm run in it is used again")
    parser.add_argument("--recipe", default="smoke", help="of jobs/configs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--spread", type=float, default=0.0, help="of the accuracy, between training seeds; 0: equal")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of victims")
    parser.add_argument("--patience", type=float, default=1800, help="seconds without anything new: the driver hangs")
    args = parser.parse_args()
    if args.kills < 1 or not (ROOT / "jobs" / "configs" / f"{args.recipe}.yaml").is_file():
        parser.error("at least one kill, of a recipe in jobs/configs")
    output, rng = args.output.resolve(), random.Random(args.seed)
    output.mkdir(parents=True, exist_ok=True)
    calm, times = output / "calm", output / "calm.json"
    if not times.exists():
        found = run_rough(args.recipe, calm, 0, rng, args.patience)
        times.write_text(json.dumps(asdict(found)))
    calm_seconds = json.loads(times.read_text())["seconds"]
    runs: list[dict[str, Any]] = []
    kills: Counter = Counter()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    while kills.total() < args.kills:
        place = output / f"rough-{stamp}-{len(runs)}"
        found = run_rough(args.recipe, place, args.kills - kills.total(), rng, args.patience)
        if not found.kills:
            sys.exit("chaos: the run ended without a kill: nothing was seen in the store")
        kills.update(found.kills)
        lost = round(found.seconds - calm_seconds, 1)
        runs.append(asdict(found) | {"seconds_lost": lost} | compare(calm, place, args.spread))
    result = {
        "recipe": args.recipe,
        "seed": args.seed,
        "kills_survived": kills.total(),
        "killed": dict(sorted(kills.items())),
        "calm_seconds": round(calm_seconds, 1),
        "seconds_lost": round(sum(r["seconds_lost"] for r in runs), 1),
        "hung": sum(r["hung"] for r in runs),
        "rows_lost": sum(r["rows_lost"] for r in runs),
        "rows_twice": sum(r["rows_twice"] for r in runs),
        "whole": all(r["whole"] and not r["hung"] for r in runs),
        "runs": runs,
    }
    write_result(f"chaos_{args.recipe}", result)
    return 0 if result["whole"] else 1


if __name__ == "__main__":
    sys.exit(main())
