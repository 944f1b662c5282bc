"""The process that writes shards."""

import subprocess
import sys


def test_it_loads_no_generator():
    """What it would cost: two seconds of a CPU and the memory of torch, for each of them."""
    found = (
        "import sys, synface.generate.writer; print([m for m in ('torch', 'numba', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
