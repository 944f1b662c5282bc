"""`ray job submit --working-dir . -- python jobs/closed_loop.py --config ...`: the same as `synface closed-loop`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a submitted working directory is not installed

from synface.cli import main

if __name__ == "__main__":
    sys.exit(main(["closed_loop", *sys.argv[1:]]))
