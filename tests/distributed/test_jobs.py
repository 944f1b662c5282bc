"""The job server: `ray job submit` of jobs/*.py on a head of its own, token on, through Ray's command and client."""

import hashlib
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import HERE, RAY, ROOT, OwnCluster, free_ports, own_cluster, result_line

pytestmark = pytest.mark.slow

STOP_WAIT_SECONDS = 30
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
IMAGES = [
    *("python", "jobs/generate.py", "--num-identities", "16", "--images-per-identity", "2"),
    *("--images-per-shard", "4", "--image-size", "32", "--how.max-actors", "1"),
]


class JobServer:
    """A head with dashboard and job server, and what its users do."""

    def __init__(self, cluster: OwnCluster, url: str):
        self.cluster, self.url = cluster, url

    def submit(self, *entrypoint: str, wait: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir .` of this project, from some other folder."""
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_SECONDS), **variables}
        options = ["--address", self.url, "--working-dir", str(ROOT), *([] if wait else ["--no-wait"])]
        environment = json.dumps({"env_vars": variables})
        return self.cluster.run(
            *(RAY, "job", "submit", *options, "--runtime-env-json", environment, "--", *entrypoint), timeout=300
        )

    def get(self, path: str, token: str | None = None) -> Any:
        """The job server's REST interface: what Ray's client calls, without its start-up time."""
        token = token or self.cluster.environment["RAY_AUTH_TOKEN"]
        request = urllib.request.Request(f"{self.url}/api/jobs/{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def logs(self, job: dict[str, Any]) -> str:
        return self.get(f"{job['submission_id']}/logs")["logs"]

    def stop(self, job: dict[str, Any]) -> float:
        """`ray job stop`; seconds until it has ended."""
        started = time.monotonic()
        done = self.cluster.run(RAY, "job", "stop", "--address", self.url, job["submission_id"], timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return time.monotonic() - started

    def newest(self) -> dict[str, Any]:
        """Details of the job that was submitted last."""
        return max(self.get(""), key=lambda job: job["start_time"])

    def wait_until(self, condition: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def server() -> Iterator[JobServer]:
    dashboard, agent = free_ports(2)
    options = (
        *("--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
    )
    with own_cluster(*options) as cluster:
        yield JobServer(cluster, f"http://127.0.0.1:{dashboard}")


@pytest.fixture
def output(server: JobServer, request: pytest.FixtureRequest) -> Path:
    return server.cluster.folder / request.node.name


def images(output: Path, generator: str = "slow_generator:SlowGenerator") -> list[str]:
    return [*IMAGES, "--generator", generator, "--output", str(output)]


def result_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "_synface" / "result-generate.json").read_text())


def shards(output: Path) -> dict[str, tuple[str, int]]:
    """Name -> (sha256, time of writing) of the data files."""
    found = sorted(output.glob("data/*.parquet"))
    return {p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in found}


def test_a_job_succeeds_and_the_same_job_again_does_nothing(server, output):
    first = server.submit(*images(output))
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    job = server.newest()
    assert (job["status"], job["driver_exit_code"]) == ("SUCCEEDED", 0)
    logs = server.logs(job)
    line = result_line(logs)
    assert (line["images"], line["exit_code"], line["cached"]) == (32, 0, False)
    assert result_of(output) == line
    made = shards(output)
    assert len(made) == 8

    assert server.submit(*images(output)).returncode == 0
    assert result_of(output)["cached"] is True
    assert shards(output) == made


def test_refused_input_fails_with_code_and_message(server, output):
    done = server.submit(*images(output), "--image-sise", "64")
    assert done.returncode == 1  # all that the command says, whatever the code was
    job = server.newest()
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    assert "image_sise: unknown field (did you mean 'image_size'?)" in job["message"]


def test_a_job_that_ends_in_part_leaves_its_true_exit_code_in_the_result_file(server, output):
    assert server.submit(*images(output, "slow_generator:BrokenGenerator")).returncode == 1
    job = server.newest()
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 3)
    result = result_of(output)
    assert (result["exit_code"], result["failed"], result["images"]) == (3, 2, 30)


def test_a_stopped_job_keeps_what_it_has_and_the_same_job_continues(server, output):
    gate = server.cluster.folder / "gate"
    assert server.submit(*images(output), wait=False, GATE=str(gate)).returncode == 0
    server.wait_until(lambda: len(shards(output)) >= 6, 120, "the shards before the gate")
    kept = shards(output)
    job = server.newest()
    assert job["status"] == "RUNNING"

    seconds = server.stop(job)
    assert server.newest()["status"] == "STOPPED"
    assert seconds < STOP_WAIT_SECONDS + 10  # the command's own start-up counts in
    # the shards behind the gate would wait for ever: they were dropped, and there was time to say so
    result = result_of(output)
    assert result["exit_code"] == 3
    assert result["error"] == "stopped by SIGTERM; what is finished is kept, the same command continues"
    assert shards(output) == kept
    print({"stopped in": round(seconds, 1)})

    gate.touch()
    assert server.submit(*images(output), GATE=str(gate)).returncode == 0
    assert len(shards(output)) == 8
    assert kept.items() <= shards(output).items(), "finished shards were made again"
    assert result_of(output)["images"] == 32


def test_a_loop_that_checks_for_signals_ends_its_unit_of_work_before_the_kill(server):
    script = HERE / "stoppable_job.py"
    assert server.submit("python", str(script), wait=False).returncode == 0
    job = server.newest()
    server.wait_until(lambda: "unit begins" in server.logs(job), 90, "a unit of work")
    server.stop(job)
    logs = server.logs(job)
    assert "SIGTERM: stopping after the unit of work in hand" in logs
    # a unit takes 5 s: the job server's own patience of 3 s was raised
    assert logs.splitlines()[-1] == "checkpoint written: stopped by SIGTERM; what is finished is kept, " + (
        "the same command continues"
    )


def test_a_job_submitted_twice_at_once_leaves_one_whole_result(server, output):
    for _ in range(2):
        assert server.submit(*images(output), wait=False).returncode == 0
    names = {job["submission_id"] for job in sorted(server.get(""), key=lambda job: job["start_time"])[-2:]}

    def states() -> set[str]:
        return {job["status"] for job in server.get("") if job["submission_id"] in names}

    server.wait_until(lambda: states() <= set(ENDED), 240, "both jobs end")
    assert states() == {"SUCCEEDED"}
    assert len(shards(output)) == 8
    assert result_of(output)["images"] == 32


def test_nobody_without_the_token(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("", token=secrets.token_hex(32))
    assert caught.value.code in (401, 403)
    stranger = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = server.cluster.run(RAY, "job", "list", "--address", server.url, timeout=120, **stranger)
    assert done.returncode != 0
