"""Run a command beside a real S3 server on 127.0.0.1 (the tests' OpenStack Swift), its address in the environment.

    python tools/with_s3.py python benchmarks/generate_overhead.py --generator bytes --output s3://bench/ceiling

The bucket ``bench`` exists; the server, its disks and everything in them are gone when the command ends.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import SwiftServer, swift_python

BUCKET = "bench"


def main() -> int:
    """The command's exit status."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        server = SwiftServer(swift_python(), Path(folder))
        server.start()
        try:
            os.environ.update(server.environment)
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            return subprocess.run(sys.argv[1:], check=False).returncode
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
