"""A real S3 server for tests: OpenStack Swift with its s3api, on 127.0.0.1, started and stopped by us.

Swift lives in a venv of its own, ``.venv-swift`` beside the tests (``SYNFACE_SWIFT_VENV`` names another one):

    python3 -m venv .venv-swift && .venv-swift/bin/pip install -r tools/swift-requirements.txt

Where it is missing the tests that need it are skipped, in CI they fail. Its four processes are ended by their
process ids; nothing is written outside the session's temporary folder.
"""

import getpass
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NODE = Path(__file__).parent / "swift_node.py"
KEY, SECRET = "test:tester", "testing"
#: may do only what a bucket allows to everybody
READER = {"AWS_ACCESS_KEY_ID": "test:reader", "AWS_SECRET_ACCESS_KEY": "reading"}

BACKEND = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/disks
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {role}-server
[app:{role}-server]
use = egg:swift#{role}
# an object is listed before its put is answered, however busy the machine is: no daemon here catches up later
container_update_timeout = 60
"""

PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_reader = reading
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
dns_compliant_bucket_names = false
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""  # noqa: E501
FILTERS = {
    "catch_errors": "catch_errors", "healthcheck": "healthcheck", "proxy-logging": "proxy_logging",
    "cache": "memcache", "listing_formats": "listing_formats", "bulk": "bulk", "copy": "copy", "slo": "slo",
    "dlo": "dlo", "symlink": "symlink",
}  # fmt: skip


class SwiftServer:
    """The four processes, their ports and the environment of a client."""

    def __init__(self, python: Path, folder: Path):
        self.python, self.folder = python, folder
        self.ports = dict(zip(("account", "container", "object", "proxy"), free_ports(4), strict=True))
        self.processes: dict[str, subprocess.Popen] = {}
        self._configure()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['proxy']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _configure(self) -> None:
        (self.folder / "disks" / "disk").mkdir(parents=True)
        (self.folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = synface\nswift_hash_path_prefix = tests\n"
            "[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
        )
        for role, port in self.ports.items():
            text = PROXY if role == "proxy" else BACKEND
            text = text.format(port=port, user=getpass.getuser(), folder=self.folder, role=role)
            if role == "proxy":
                text += "".join(f"[filter:{name}]\nuse = egg:swift#{egg}\n" for name, egg in FILTERS.items())
            (self.folder / f"{role}.conf").write_text(text)
        ports = [str(self.ports[k]) for k in ("account", "container", "object")]
        subprocess.run([self.python, NODE, "rings", self.folder, *ports], check=True, capture_output=True)

    def start(self) -> None:
        """Start what is not running, the proxy last, and wait until it answers.

        An object that is put while the container server is away is kept but never listed.
        """
        deadline = time.monotonic() + 60
        for role in self.ports:
            if role == "proxy":
                while time.monotonic() < deadline and not all(
                    reachable(p) for r, p in self.ports.items() if r != "proxy"
                ):
                    time.sleep(0.1)
            if role not in self.processes:
                log = open(self.folder / f"{role}.log", "ab")  # noqa: SIM115 (lives as long as the process)
                self.processes[role] = subprocess.Popen(
                    [self.python, NODE, role, self.folder], stdout=log, stderr=log, start_new_session=True
                )
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthcheck", timeout=2) as answer:
                    if answer.status == 200 and all(reachable(p) for p in self.ports.values()):
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        logs = "\n".join((self.folder / f"{r}.log").read_text()[-1500:] for r in self.ports)
        raise RuntimeError(f"Swift did not start:\n{logs}")

    def stop(self) -> None:
        """End our own processes, by process id; the proxy first and alone, so that no put outlives its listing."""
        for role in reversed(self.ports):
            process = self.processes.pop(role, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def reachable(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def swift_python() -> Path:
    """The Python of Swift's venv; skips the test, or fails it in CI, where there is none."""
    venv = Path(os.environ.get("SYNFACE_SWIFT_VENV", ROOT / ".venv-swift"))
    python = venv / "bin" / "python"
    works = (
        python.exists() and not subprocess.run([python, "-c", "import swift.proxy"], capture_output=True).returncode
    )
    if not works:
        text = f"no OpenStack Swift in {venv}; make it with `make test-slow` (see tests/s3_server.py)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)
    return python


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory):
    """The server, running; a test may stop and start it."""
    server = SwiftServer(swift_python(), tmp_path_factory.mktemp("swift"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(swift_server, monkeypatch):
    """The client's environment set, and a bucket of this test's own: yields ``s3://bucket``."""
    import boto3

    swift_server.start()
    for name, value in swift_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{time.time_ns()}"
    boto3.client("s3", endpoint_url=swift_server.endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"
