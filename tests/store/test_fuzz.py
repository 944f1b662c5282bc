"""No damaged file crashes a reader, hangs it or fills the memory."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synface.core.errors import InputError
from synface.store import tables

sys.path.append(str(Path(__file__).parent))
import fuzzing

#: their decoders are others' and fuzzed there; here for what is ours around them
LESS = ("zip", "png", "webp")
ROUNDS = {"quick": 2, "soak": 200}  # of 500 cases


@pytest.mark.parametrize("reader", fuzzing.READERS)
def test_damage_is_refused_or_harmless(reader):
    cases = 100 if reader in LESS else fuzzing.CASES
    seen = fuzzing.fuzz(reader, cases=cases)
    assert seen["refused"] + seen["read"] >= cases and seen["refused"] > cases // 10


def test_a_name_or_a_string_that_is_not_utf8_is_refused_on_reading():
    """Arrow itself notices only when somebody asks for the name, or the string: far from where the file was read."""
    plain = pa.table({"attributes": [{"marked_name": "marked_word"}]})
    data = tables.parquet_bytes(plain.replace_schema_metadata({}))
    names = data.replace(b"marked_name", b"\x80arked_name")
    assert names != data
    with pytest.raises(InputError, match="not a readable Parquet file"):
        tables.parse_parquet(names, "x")
    sink = io.BytesIO()
    pq.write_table(plain, sink, compression="none", use_dictionary=False)
    words = sink.getvalue().replace(b"marked_word", b"\x80arked_word")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        tables.parse_parquet(words, "x")


def in_a_process(reader, rounds):
    """In a process of its own, whose memory is nobody else's."""
    command = [sys.executable, str(Path(__file__).parent / "fuzzing.py"), reader, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["refused"] + found["read"] >= rounds * fuzzing.CASES
    assert found["megabytes"] < 256, found


@pytest.mark.slow
@pytest.mark.parametrize("reader", fuzzing.READERS)
def test_damage_fills_no_memory(reader):
    in_a_process(reader, ROUNDS["quick"])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("reader", fuzzing.READERS)
def test_a_hundred_thousand_damaged_files(reader):
    in_a_process(reader, ROUNDS["soak"])


#: reads damaged files and ends at once, as a verb does after its error
ENDS_AT_ONCE = """
import random, sys
sys.path.append(sys.argv[1])
import fuzzing
from synface.core.errors import InputError
from synface.store import tables
whole, pick = fuzzing.parquet(), random.Random(int(sys.argv[2]))
for _ in range(20):
    data = bytearray(whole)
    for _ in range(3):
        data[pick.randrange(4, len(data) * 2 // 3)] = pick.randrange(256)
    try:
        tables.parse_parquet(bytes(data), "x")
    except InputError:
        pass
"""


@pytest.mark.slow
def test_a_process_ends_well_right_after_a_damaged_table():
    """Reading with Arrow's threads, a quarter of these processes aborted on a busy machine; so all run at once."""
    children = [
        subprocess.Popen([sys.executable, "-c", ENDS_AT_ONCE, str(Path(__file__).parent), str(n)]) for n in range(12)
    ]
    assert [child.wait(timeout=120) for child in children] == [0] * len(children)
