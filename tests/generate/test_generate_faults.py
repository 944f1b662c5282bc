"""Runs of the command line as separate processes, and what happens to them: each with a Ray cluster of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from faulty_proxy import faulty
from generate_helpers import files, files_after_a_kill
from memory_pressure import short_of_memory
from pattern_generator import FILLS_MEMORY

from synface.store import artifact, ledger, tables
from synface.store import s3 as store_s3
from synface.store import uri as uris
from synface.store.verify import verify

pytestmark = pytest.mark.slow

#: 60 identities x 8 images in 15 shards, each about half a second of sleep
FIELDS = {
    "generator": "pattern_generator:Pattern",
    "num_identities": 60,
    "images_per_identity": 8,
    "images_per_shard": 32,
    "image_size": 16,
    "options": {"seconds_per_image": 0.015},
    "how": {"max_actors": 1, "progress_seconds": 0.5},
}


#: what a test started; a failed test leaves nothing running
STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def ended():
    yield
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    STARTED.clear()


def start(folder: Path, output: str, environment: dict[str, str] | None = None, **fields) -> subprocess.Popen:
    recipe = folder / f"recipe-{time.time_ns()}.yaml"
    recipe.write_text(yaml.safe_dump({"generate": FIELDS | fields | {"output": output}}))
    python_path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": python_path, "RAY_AUTH_MODE": "disabled"} | (environment or {})
    process = subprocess.Popen(
        [sys.executable, "-m", "synface.cli", "generate", "--config", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def finish(process: subprocess.Popen, code: int = 0) -> dict:
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, err[-3000:]
    result = json.loads(out.splitlines()[-1])
    assert result["exit_code"] == code
    return result | {"stderr": err}


def wait_for_shards(process: subprocess.Popen, output: str, count: int) -> None:
    """Finished ones: an entry that is being written has a temporary name, and a kill now would aim at it."""
    deadline = time.monotonic() + 240
    while sum(not p.endswith(".tmp") for p, _ in uris.list_files(uris.join(output, ledger.LEDGER))) < count:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.05)


def remote_files(output: str) -> dict[str, bytes]:
    return {
        p: uris.read_bytes(uris.join(output, p))
        for p, _ in uris.list_files(output)
        if "result-" not in p and "leases/" not in p
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = finish(start(folder, str(folder / "o")))
    assert result["images"] == 480 and result["shards"] == 15 and not result["cached"]
    return files(folder / "o")


def test_a_killed_driver_is_resumed_to_the_same_bytes(undisturbed, tmp_path):
    output = str(tmp_path / "o")
    for shards in (2, 7):
        process = start(tmp_path, output)
        wait_for_shards(process, output, shards)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert artifact.load_manifest(output) is None
    done = ledger.load(output)
    result = finish(start(tmp_path, output, how={"max_actors": 2, "cpus_per_actor": 0.4}))
    assert not result["cached"] and files_after_a_kill(output) == undisturbed
    assert "generate: " in result["stderr"] and len(done) >= 7
    assert finish(start(tmp_path, output))["cached"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_keeps_whole_shards_and_the_same_command_continues(undisturbed, tmp_path, number):
    output = str(tmp_path / "o")
    process = start(tmp_path, output)
    wait_for_shards(process, output, 3)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C in a terminal goes to Ray's processes too
    else:
        process.send_signal(number)
    asked = time.monotonic()
    result = finish(process, code=3)
    assert time.monotonic() - asked < 30
    assert f"stopped by {number.name}; what is finished is kept, the same command continues" in result["error"]
    assert result["stderr"].count("Traceback") == 0
    assert json.loads((tmp_path / "o/_synface/result-generate.json").read_text())["exit_code"] == 3
    done = {n: e.sha256 for n, e in ledger.load(output).items()}
    assert 3 <= len(done) < 15 and artifact.load_manifest(output) is None
    finish(start(tmp_path, output))
    assert files_after_a_kill(output) == undisturbed
    assert done.items() <= {n: e.sha256 for n, e in ledger.load(output).items()}.items()


def test_a_shard_that_takes_too_long_is_dropped_before_the_kill(tmp_path):
    """Job servers and Kubernetes kill 30 s after the signal.

    The last shard is the slow one. Ray Data's actors take the two that are in hand in either order, so one beside
    it may not be made.
    """
    output = str(tmp_path / "o")
    process = start(tmp_path, output, options={"slow_identities": {"56": 600}})
    wait_for_shards(process, output, 13)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    finish(process, code=3)
    assert 15 < time.monotonic() - asked < 30
    done = set(ledger.load(output))
    assert len(done) >= 13 and 14 not in done


def test_a_killed_actor_is_replaced(undisturbed, tmp_path):
    output, pids = str(tmp_path / "o"), tmp_path / "pids"
    process = start(tmp_path, output, options=FIELDS["options"] | {"pid_file": str(pids)})
    wait_for_shards(process, output, 3)
    os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)
    finish(process)
    assert len(set(pids.read_text().split())) >= 2
    assert pictures(files(output)) == pictures(undisturbed)


def test_a_worker_out_of_memory_costs_a_bounded_number_of_tries(undisturbed, tmp_path):
    """Ray's memory monitor kills the actor in the middle of a shard: always, then once."""
    output, tries = str(tmp_path / "o"), tmp_path / "tries"
    always = short_of_memory() | {FILLS_MEMORY: f"{tries}:1000"}
    result = finish(start(tmp_path, output, always, how=FIELDS["how"] | {"restarts": 1, "rounds": 1}), code=1)
    assert "could not be made in 1 rounds" in result["error"] and "memory" in result["error"]
    assert tries.stat().st_size == 2 and artifact.load_manifest(output) is None
    once = short_of_memory() | {FILLS_MEMORY: f"{tries}:3"}
    finish(start(tmp_path, output, once))
    assert tries.stat().st_size == 3 and files_after_a_kill(output) == undisturbed


def pictures(found: dict[str, bytes]) -> list[bytes]:
    """The images of all shards, in order, whatever the configuration that made them."""
    shards = [tables.parse_parquet(found[name], name) for name in sorted(found) if name.endswith(".parquet")]
    return [row["bytes"] for shard in shards for row in shard["image"].to_pylist()]


def test_two_drivers_at_once_leave_one_valid_table(undisturbed, tmp_path):
    output = str(tmp_path / "o")
    both = [start(tmp_path, output), start(tmp_path, output)]
    results = [finish(p) for p in both]
    assert {r["images"] for r in results} == {480}
    assert files(output) == undisturbed and verify(output)["exit_code"] == 0


def test_object_storage_gets_the_bytes_of_a_local_disk(undisturbed, tmp_path, s3):
    store_s3.client.cache_clear()
    output = uris.join(s3, "sets/one")
    result = finish(start(tmp_path, output))
    assert result["uri"] == output
    assert remote_files(output) == undisturbed
    assert sum(t.num_rows for t in tables.iter_images(output)) == 480
    assert finish(start(tmp_path, output))["cached"]


def test_a_store_that_is_away_for_20_seconds_costs_only_time(undisturbed, tmp_path, s3, swift_server):
    store_s3.client.cache_clear()
    output = uris.join(s3, "sets/two")
    process = start(tmp_path, output)
    wait_for_shards(process, output, 3)
    swift_server.stop()
    time.sleep(20)
    assert process.poll() is None
    swift_server.start()
    finish(process)
    assert remote_files(output) == undisturbed


def test_a_store_that_answers_with_errors_and_late_costs_only_time(undisturbed, tmp_path, s3, swift_server):
    """In the middle of a run: 500s and 503s, each more in a row than boto3 tries by itself, then slow answers."""
    store_s3.client.cache_clear()
    output = uris.join(s3, "sets/three")
    first: list[int] = []  # number of the first request of the bad time

    def fault(number: int) -> int | float | None:
        place = number - first[0] if first else -1
        if 0 <= place < 6 or 12 <= place < 18:
            return 503 if place < 6 else 500
        return 1.0 if 20 <= place < 30 else None

    with faulty(swift_server.ports["proxy"], fault) as (endpoint, seen):
        process = start(tmp_path, output, {"AWS_ENDPOINT_URL": endpoint})
        wait_for_shards(process, output, 3)
        first.append(seen["requests"])
        finish(process)
    assert seen["errors"] == 12 and seen["late"] == 10
    assert remote_files(output) == undisturbed


def test_a_missing_bucket_is_refused_in_seconds(tmp_path, s3):
    started = time.monotonic()
    result = finish(start(tmp_path, "s3://no-such-bucket-here/x"), code=2)
    assert "the bucket does not exist" in result["error"] and time.monotonic() - started < 60


def test_a_full_disk_is_told_and_the_rest_follows_when_there_is_room(undisturbed, small_disk, tmp_path):
    disk = small_disk("160k")
    output = str(disk / "o")
    result = finish(start(tmp_path, output), code=2)
    assert "no space left on the device; free some" in result["error"]
    assert result["stderr"].count("Traceback") == 0
    assert 0 < len(ledger.load(output)) < 15 and artifact.load_manifest(output) is None
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    finish(start(tmp_path, output))
    assert files_after_a_kill(output) == undisturbed


def test_a_table_with_failures_ends_with_exit_code_3(tmp_path):
    options = {"bad_samples": [[1, 0]]}
    result = finish(start(tmp_path, str(tmp_path / "o"), options=options, num_identities=4), code=3)
    assert result["failed"] == 1 and result["images"] == 31 and "pattern-000001, sample 0" in result["error"]
