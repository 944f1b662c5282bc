"""Verification packs: every pickle dialect in the wild, and hostile ones."""

import contextlib
import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from synface.core.errors import InputError
from synface.store.formats import verification_bin as vb
from synface.store.formats.inert_pickle import RefusedPickleError, load


def jpeg(value: int, size: int = 16) -> bytes:
    out = io.BytesIO()
    pixels = np.full((size, size, 3), value, np.uint8)
    pixels[:, : size // 2, 0] = 255 - value
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


IMAGES = [jpeg(10 * i) for i in range(20)]
LABELS = [i % 2 == 0 for i in range(10)]


def python2_pickle(images, labels) -> bytes:
    """What Python 2's cPickle writes at protocol 2: BINSTRING for str, memo puts in between."""
    out = b"\x80\x02]q\x01("
    for i, data in enumerate(images):
        out += b"T" + struct.pack("<i", len(data)) + data + b"q" + bytes([i + 2])
    out += b"e]q\x40("
    out += b"".join(b"\x88" if x else b"\x89" for x in labels)
    return out + b"e\x86q\x41."


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["list", "numpy bools", "numpy labels", "numpy images", "tuple", "int"])
def test_reads_every_dialect_that_python_itself_reads(protocol, kind):
    images, labels = IMAGES, LABELS
    if kind == "numpy bools":
        labels = [np.bool_(x) for x in LABELS]
    elif kind == "numpy labels":
        labels = np.array(LABELS)
    elif kind == "numpy images":
        images = [np.frombuffer(i, np.uint8) for i in IMAGES]
    elif kind == "tuple":
        labels = tuple(LABELS)
    elif kind == "int":
        labels = [int(x) for x in LABELS]
    pack = vb.parse_pack(pickle.dumps((images, labels), protocol=protocol), "x.bin")
    assert list(pack.encoded) == IMAGES
    assert pack.same_n.tolist() == LABELS


def test_reads_numpy_1_names():
    data = pickle.dumps((IMAGES, np.array(LABELS)), protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    assert vb.parse_pack(old, "x.bin").same_n.tolist() == LABELS


def test_reads_python_2_packs_as_pickle_does():
    data = python2_pickle(IMAGES, LABELS)
    assert pickle.loads(data, encoding="bytes") == (IMAGES, LABELS)
    pack = vb.parse_pack(data, "lfw.bin")
    assert list(pack.encoded) == IMAGES
    assert pack.same_n.tolist() == LABELS


def test_reads_protocol_0_labels():
    assert load(pickle.dumps([True, False, 7, "a"], protocol=0)) == [True, False, 7, "a"]


def test_round_trip_and_other_tools_can_read_it(tmp_path):
    path = str(tmp_path / "own.bin")
    vb.write_pack(path, IMAGES, np.array(LABELS))
    with open(path, "rb") as stream:
        assert pickle.load(stream) == (IMAGES, LABELS)
    pack = vb.read_pack(path)
    assert (list(pack.encoded), pack.same_n.tolist()) == (IMAGES, LABELS)


class Runs:
    """Pickles as a call of its function when loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, protocol):
    target = tmp_path / "ran"
    for function, arguments in [
        (os.system, (f"touch {target}",)),
        (exec, (f"open({str(target)!r}, 'w')",)),
        (os.mkdir, (str(target),)),
        (eval, ("1",)),
        (np.load, ("x", None, True)),
    ]:
        data = pickle.dumps(([Runs(function, *arguments), *IMAGES[1:]], LABELS), protocol=protocol)
        with pytest.raises(InputError, match=r"x\.bin: refused: it holds .*nothing"):
            vb.parse_pack(data, "x.bin")
    assert not target.exists()


def opcode_attacks():
    array = b"cnumpy.core.multiarray\n_reconstruct\n"
    yield b"\x80\x02}.", "EMPTY_DICT"
    yield b"\x80\x02c__builtin__\ngetattr\n.", "getattr"
    yield b"\x80\x02cnumpy\nndarray\n.", "not plain data"
    yield b"\x80\x02cnumpy\nndarray\n)R.", "not a function of ours"
    yield b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "latin1"
    yield b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.", "'O'"
    yield b"\x80\x02" + array + b"cnumpy\ndtype\n\x85R.", "not an array"
    yield b"\x80\x02]q\x00h\x00a.", "shared"
    yield b"\x80\x02(((((((l.", None
    yield b"\x80\x02]]]]]]]aaaaaa.", "nested too deeply"
    yield b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"a.", "damaged"
    yield b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"a.", "damaged"
    yield b"\x80\x02]r\xff\xff\xff\x7f.", None
    yield b"\x80\x02P1\n.", "PERSID"
    yield b"\x80\x02\x82\x01.", "EXT1"
    yield b"\x80\x02ios\nsystem\n.", "INST"
    yield b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"
    yield b"", "damaged"
    yield b"not a pickle", "damaged"
    yield b"\x80\x02h\x07.", "damaged"
    yield b"\x80\x02.", "damaged"


@pytest.mark.parametrize(("data", "message"), list(opcode_attacks()))
def test_every_opcode_outside_plain_data_is_refused(data, message):
    if message is None:  # odd but harmless: plain data or a refusal, at once and in little memory
        with contextlib.suppress(RefusedPickleError):
            assert isinstance(load(data), list)
        return
    with pytest.raises(RefusedPickleError, match=message):
        load(data)


def test_truncated_and_flipped_bytes_never_escape_as_other_errors():
    data = pickle.dumps((IMAGES[:4], LABELS[:2]), protocol=4)
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 60):
        with pytest.raises(InputError):
            vb.parse_pack(data[:cut], "x.bin")
    for position in rng.integers(0, len(data), 200):
        broken = bytearray(data)
        broken[position] ^= int(rng.integers(1, 256))
        try:
            load(bytes(broken))
        except RefusedPickleError:
            continue


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((IMAGES, LABELS[:-1]), "20 images and 9 labels do not match; 9 pairs need 18 images"),
        ((IMAGES[:18], LABELS[:9]), "9 pairs; 10-fold verification needs at least 10"),
        ((IMAGES, [True] * 10), "all 10 pairs are genuine"),
        ((IMAGES, [False] * 10), "all 10 pairs are impostor"),
        ((IMAGES, [2] * 10), "must be a list of bool"),
        (([1] * 20, LABELS), "must be a list of encoded images"),
        ([IMAGES, LABELS, []], r"expected \(list of image bytes, list of bool\), got a list of 3"),
        (b"abc", "got a bytes"),
    ],
)
def test_unusable_packs(content, message):
    with pytest.raises(InputError, match=message):
        vb.parse_pack(pickle.dumps(content), "x.bin")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.bin: cannot be read"):
        vb.read_pack(str(tmp_path / "none.bin"))


def test_decodes_in_order_and_resizes():
    pack = vb.parse_pack(vb.pack_bytes(IMAGES, LABELS), "x.bin")
    whole = vb.decode_pack(pack, 16)
    assert whole.shape == (20, 16, 16, 3)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(i)).convert("RGB")) for i in IMAGES])
    np.testing.assert_array_equal(whole, expected)
    small = vb.decode_pack(pack, 8)
    assert small.shape == (20, 8, 8, 3)
    np.testing.assert_allclose(small.mean((1, 2)), expected.mean((1, 2)), atol=2)


@pytest.mark.parametrize(
    ("index", "data", "message"),
    [
        (5, b"no image", r"image 5 \(pair 2\): cannot be decoded"),
        (7, IMAGES[7][:60], r"image 7 \(pair 3\): cannot be decoded"),
        (3, jpeg(1, 24), r"image 3 \(pair 1\): is 24x24, expected 16x16 like the others"),
        (0, jpeg(1, 1040), r"image 0 .*1040x1040; crops are at most 1024"),
    ],
)
def test_bad_images_are_named(index, data, message):
    images = [*IMAGES[:index], data, *IMAGES[index + 1 :]]
    pack = vb.parse_pack(vb.pack_bytes(images, LABELS), "x.bin")
    with pytest.raises(InputError, match=message):
        vb.decode_pack(pack, 16)


def test_not_square():
    out = io.BytesIO()
    Image.new("RGB", (16, 12)).save(out, "PNG")
    pack = vb.parse_pack(vb.pack_bytes([out.getvalue()] * 20, LABELS), "x.bin")
    with pytest.raises(InputError, match="is 16x12, expected 16x16"):
        vb.decode_pack(pack, 16)
