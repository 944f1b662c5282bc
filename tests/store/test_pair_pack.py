"""The verb bin: packs of folders, and the alignment that they are made with."""

import io
import json

import numpy as np
import pytest
from blobs import blob, png
from PIL import Image

from synface import cli
from synface.core import crops
from synface.core.errors import InputError
from synface.store import images, pair_pack
from synface.store.formats.verification_bin import read_pack

#: a face turned by 65 degrees: the eyes near each other, the nose beyond them
PROFILE = np.array([[45.8, 51.0], [60.5, 49.3], [70.0, 77.4], [44.7, 91.3], [58.6, 88.0]])


def onto_template(points, size):
    """The similarity [2, 3] that leaves the least squared distance in the crop, by a general solver."""
    rows, want = [], crops.template(size).ravel()
    for x, y in points:
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    a, b, u, v = np.linalg.lstsq(np.array(rows), want, rcond=None)[0]
    return np.array([[a, -b, u], [b, a, v]])


def naive_align(pixels, points, size):
    """Bilinear at the place of every crop pixel, in float64; black outside."""
    forward = onto_template(points, size)
    back = np.linalg.inv(np.vstack([forward, [0, 0, 1]]))[:2]
    out = np.zeros((size, size, 3))
    height, width = pixels.shape[:2]
    for y in range(size):
        for x in range(size):
            u, v = back[:, :2] @ (x, y) + back[:, 2]
            i, j = int(np.floor(u)), int(np.floor(v))
            for a, b, w in (
                (i, j, (1 + i - u) * (1 + j - v)), (i + 1, j, (u - i) * (1 + j - v)),
                (i, j + 1, (1 + i - u) * (v - j)), (i + 1, j + 1, (u - i) * (v - j)),
            ):  # fmt: skip
                if 0 <= a < width and 0 <= b < height:
                    out[y, x] += w * pixels[b, a]
    return out


@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_alignment_is_the_bilinear_similarity_transform(angle):
    pixels = np.asarray(Image.fromarray(blob(1, 0)).resize((90, 80), Image.Resampling.BICUBIC))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = crops.template(40) @ turn.T + (60, 12)  # partly beyond the right edge
    got = images.align(pixels, points, 32).astype(float)
    assert (got[:, -1] == 0).any()
    expected = naive_align(pixels, points, 32)
    assert np.abs(got - expected).max() <= 0.5 + 1e-3  # rounding
    profile = images.align(pixels, 0.6 * PROFILE @ turn.T + (20, 5), 32)
    assert np.abs(profile - naive_align(pixels, 0.6 * PROFILE @ turn.T + (20, 5), 32)).max() <= 0.5 + 1e-3
    # OpenCV's rule: whole-number coordinates are pixel centres
    whole = images.align(pixels, crops.template(32) + np.array([7, 5]), 32)
    assert np.array_equal(whole, pixels[5:37, 7:39])


def test_wrong_landmarks_are_refused():
    with pytest.raises(InputError, match="five different points"):
        images.align(blob(0, 0), np.zeros((5, 2)), 32)
    with pytest.raises(InputError, match="five different points"):
        images.align(blob(0, 0), np.full((5, 2), np.nan), 32)
    with pytest.raises(InputError, match="no turn and scale"):
        images.align(blob(0, 0), nothing_of_a_face(), 32)


def nothing_of_a_face():
    """Five points without what any turn and scale of the template explains of them."""
    target = crops.template(32) - crops.template(32).mean(0)
    points = np.random.default_rng(0).normal(size=(5, 2))
    rest = (points - points.mean(0)).ravel()
    for axis in (target.ravel(), (target @ np.array([[0, 1], [-1, 0]])).ravel()):
        rest -= axis * (axis @ rest) / (axis @ axis)
    return rest.reshape(5, 2)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "people"
    for person in range(6):
        (root / f"p_{person}").mkdir(parents=True)
        for k in (1, 2):
            (root / f"p_{person}" / f"p_{person}_{k:04d}.png").write_bytes(png(blob(person, k)))
    return root


def lfw_pairs(path, people=6):
    lines = ["1\t6"]
    for i in range(people):
        lines += [f"p_{i}\t1\t2", f"p_{i}\t1\tp_{(i + 1) % people}\t2"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lfw_pairs_of_crops_are_copied(folder, tmp_path, capsys):
    pairs, output = lfw_pairs(tmp_path / "pairs.txt"), tmp_path / "own.bin"
    assert cli.main(["bin", str(folder), "--pairs", str(pairs), "--output", str(output)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["pairs"], line["images"], line["aligned"]) == (12, 12, False)
    pack = read_pack(str(output))
    assert pack.same_n.tolist() == [True, False] * 6
    assert pack.encoded[3] == (folder / "p_1" / "p_1_0002.png").read_bytes()


def test_given_landmarks_align(folder, tmp_path):
    (tmp_path / "wide").mkdir()
    lines, marks = [], []
    for person in range(10):
        picture = np.zeros((60, 50, 3), np.uint8)
        picture[20:52, 10:42] = blob(person, 0)
        (tmp_path / "wide" / f"{person}.png").write_bytes(png(picture))
        marks.append(f"{person}.png," + ",".join(str(v) for v in (crops.template(32) + np.array([10, 20])).ravel()))
        lines.append(f"{person}.png {(person + person % 2) % 10}.png {1 - person % 2}")
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "marks.txt").write_text("\n".join(marks))
    arguments = (str(tmp_path / "wide"), str(tmp_path / "pairs.txt"), str(tmp_path / "a.bin"))
    with pytest.raises(InputError, match="50x60 pixels is no crop; give --landmarks or --detector"):
        pair_pack.build(*arguments)
    pair_pack.build(*arguments, landmarks=str(tmp_path / "marks.txt"), size=32)
    pack = read_pack(str(tmp_path / "a.bin"))
    for row, person in enumerate([0, 0, 1, 2, 2, 2]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(pack.encoded[row]))), blob(person, 0))
    pair_pack.build(*arguments, detector=f"{__name__}:corner_detector", size="32")
    assert read_pack(str(tmp_path / "a.bin")).encoded == pack.encoded
    pair_pack.build(*arguments, detector=f"{__name__}:weighted_detector", detector_weights="corner", size="32")
    assert read_pack(str(tmp_path / "a.bin")).encoded == pack.encoded
    with pytest.raises(InputError, match="no face was detected"):
        pair_pack.build(*arguments, detector=f"{__name__}:blind_detector")


def test_landmark_lines():
    marks = " ".join(str(k) for k in range(10))
    text = f"a.jpg {marks}\n\nJane Roe, Jr/1.jpg, {marks.replace(' ', ',')}\nb c.png\t{marks.replace(' ', chr(9))} \n"
    found = pair_pack.parse_landmarks(text, "marks.txt")
    assert list(found) == ["a.jpg", "Jane Roe, Jr/1.jpg", "b c.png"]
    assert all(np.array_equal(points, np.arange(10.0).reshape(5, 2)) for points in found.values())
    for line in (marks, f"a.jpg {marks[:-2]}", f"a.jpg x{marks}", f"a.jpg {marks[:-1]}nan"):
        with pytest.raises(InputError, match="line 2: expected a path and ten numbers"):
            pair_pack.parse_landmarks(f"a.jpg {marks}\n{line}", "marks.txt")


def weighted_detector(weights):
    return {"corner": corner_detector, "blind": blind_detector}[weights]


def corner_detector(pixels):
    assert pixels.shape == (60, 50, 3)
    return crops.template(32) + np.array([10, 20])


def blind_detector(pixels):
    return None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p_0 1\n" * 12, r"line 1: 'p_0 1'; expected"),
        ("p_0\t1\t2\n" * 12, "all 12 pairs are genuine"),
        ("p_0\t1\t2\np_0\t1\tp_1\t1\n", "2 pairs; 10-fold"),
        ("p_0\t1\t2\np_0\t1\tp_9\t1\n" * 6, "has no image 'p_9/p_9_0001'"),
    ],
)
def test_bad_pairs_are_refused(folder, tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        pair_pack.build(str(folder), str(tmp_path / "pairs.txt"), str(tmp_path / "x.bin"))
    assert not (tmp_path / "x.bin").exists()


def test_bad_options_are_refused(folder, tmp_path):
    pairs = str(lfw_pairs(tmp_path / "pairs.txt"))
    for options, message in (
        ({"size": "big"}, "--size 'big'"), ({"landmarks": "a", "detector": "b:c"}, "not both"),
        ({"detector": "nothing"}, "known: package.module:attribute, yunet"),
        ({"detector": "no.such:thing"}, "cannot be imported"),
        ({"detector": "yunet"}, "--detector yunet needs --detector-weights"),
        ({"detector_weights": "a.onnx"}, "--detector-weights without --detector"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            pair_pack.build(str(folder), pairs, str(tmp_path / "x.bin"), **options)
    (tmp_path / "marks.txt").write_text("a.png 1 2 3\n")
    with pytest.raises(InputError, match=r"line 1: expected a path and ten numbers"):
        pair_pack.build(str(folder), pairs, str(tmp_path / "x.bin"), landmarks=str(tmp_path / "marks.txt"))
