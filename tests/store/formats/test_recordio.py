import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core.errors import InputError
from synface.store import artifact, tables
from synface.store.export import export
from synface.store.formats import recordio

MAGIC = struct.pack("<I", 0xCED7230A)


def as_mxnet_reads(folder, key):
    """What MXIndexedRecordIO.read_idx and unpack give, written from the format's description alone."""
    places = dict(tuple(map(int, line.split("\t"))) for line in (folder / "train.idx").read_text().splitlines())
    data = (folder / "train.rec").read_bytes()
    place, payload, flag = places[key], b"", 1
    while flag in (1, 2):
        assert data[place : place + 4] == MAGIC
        (word,) = struct.unpack("<I", data[place + 4 : place + 8])
        flag, length = word >> 29, word % 2**29
        payload += (MAGIC if flag in (2, 3) else b"") + data[place + 8 : place + 8 + length]
        place += 8 + (length + 3) // 4 * 4
    count, label, number, _ = struct.unpack("<IfQQ", payload[:24])
    labels = struct.unpack(f"<{count}f", payload[24 : 24 + 4 * count]) if count else (label,)
    return labels, number, payload[24 + 4 * count :]


@pytest.fixture
def exported(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    result = export(output, "recordio", str(tmp_path / "rec"))
    rows = [r for t in tables.iter_images(output) for r in t.to_pylist()]
    return tmp_path / "rec", rows, result


def test_every_image_is_read_as_insightface_reads_it(exported):
    folder, rows, result = exported
    labels, _, empty = as_mxnet_reads(folder, 0)
    # MXFaceDataset takes range(1, int(labels[0])): N + 1, or the last image is lost
    assert labels == (13.0, 17.0) and empty == b"" and result["images"] == 12
    for key, row in zip(range(1, int(labels[0])), rows, strict=True):
        assert as_mxnet_reads(folder, key) == ((float(row["label"]),), key, row["image"]["bytes"])
    # identity records name each identity's images
    ranges = [as_mxnet_reads(folder, key)[0] for key in range(13, 17)]
    assert ranges == [(1.0, 4.0), (4.0, 7.0), (7.0, 10.0), (10.0, 13.0)]
    assert (folder / "property").read_text() == "4,16,16\n"
    assert (folder / "train.lst").read_text().splitlines()[3] == "1\t0000001_00000.jpg\t1"


def test_what_is_written_is_read_back(exported):
    folder, rows, _ = exported
    found = list(recordio.read(str(folder)))
    assert [f.data for f in found] == [r["image"]["bytes"] for r in rows]
    assert [int(f.identity_id) for f in found] == [r["label"] for r in rows]


def test_files_without_an_index_record(exported, tmp_path):
    _, rows, _ = exported
    stream = io.BytesIO()
    for number, row in enumerate(rows):
        stream.write(recordio.frame(recordio.pack((float(row["label"]),), number, row["image"]["bytes"])))
    stream.seek(0)
    assert list(recordio.read_images(stream, "x")) == [(r["label"], r["image"]["bytes"]) for r in rows]


@given(st.lists(st.sampled_from([MAGIC, b"a", b"bc", b"\n#\xd7\xce", b"\0" * 4]), max_size=12).map(b"".join))
def test_any_payload_survives_the_framing(payload):
    framed = recordio.frame(payload)
    assert len(framed) % 4 == 0
    # the magic stands at a multiple of four only where a part starts
    places = [i for i in range(0, len(framed), 4) if framed[i : i + 4] == MAGIC]
    parts, place = [], 0
    while place < len(framed):
        parts.append(place)
        length = struct.unpack_from("<I", framed, place + 4)[0] % 2**29
        place += 8 + (length + 3) // 4 * 4
    assert places == parts
    assert list(recordio.read_payloads(io.BytesIO(framed * 2), "x")) == [payload] * 2


def whole_file():
    rng = np.random.default_rng(0)
    records = [recordio.pack((5.0, 7.0), 0, b"")]
    records += [recordio.pack((float(n // 2),), n, rng.bytes(40) + MAGIC * (n % 2)) for n in range(1, 5)]
    return b"".join(recordio.frame(r) for r in records)


def test_every_truncation_is_refused():
    data = whole_file()
    whole = list(recordio.read_images(io.BytesIO(data), "x"))
    assert len(whole) == 4
    boundaries = 0
    for stop in range(len(data)):
        try:
            found = list(recordio.read_images(io.BytesIO(data[:stop]), "x"))
        except InputError:
            continue
        boundaries += 1
        assert found == whole[: len(found)]
    assert boundaries <= 5  # cut exactly between two records


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_refused_or_harmless(seed):
    rng = np.random.default_rng(seed)
    data = np.frombuffer(whole_file(), np.uint8)
    for _ in range(500):
        broken = data.copy()
        broken[rng.integers(0, len(data), 3)] ^= rng.integers(1, 256, 3).astype(np.uint8)
        try:
            assert len(list(recordio.read_images(io.BytesIO(broken.tobytes()), "x"))) <= 6
        except InputError:
            continue


def test_absurd_sizes_are_refused_before_memory_is_taken():
    head = MAGIC + struct.pack("<I", (1 << 29) - 1)
    with pytest.raises(InputError, match="allowed 67108864"):
        list(recordio.read_payloads(io.BytesIO(head), "x"))
    with pytest.raises(InputError, match="names 4294967295 labels"):
        recordio.unpack(struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0), "x")
    with pytest.raises(InputError, match="expected a whole number"):
        list(recordio.read_images(io.BytesIO(recordio.frame(recordio.pack((float("nan"),), 0, b"x"))), "x"))


def test_labels_must_rise_and_counts_must_fit(images_at, tmp_path):
    output = images_at(tmp_path / "a")
    shards = list(tables.iter_images(output))
    with pytest.raises(InputError, match="needs rising labels"):
        recordio.write(iter(shards[::-1]), str(tmp_path / "r"), 12, 4)
    with pytest.raises(InputError, match="12 images, expected 13"):
        recordio.write(iter(shards), str(tmp_path / "r"), 13, 4)
    assert not (tmp_path / "r" / "train.rec").exists()
    with pytest.raises(InputError, match="float32"):
        recordio.write(iter(shards), str(tmp_path / "r"), 12, 2**24 + 1)
    assert artifact.require(output).numbers["identities"] == 4
