"""OpenCV's own FaceDetectorYN on a network of ours with YuNet's outputs: what it answers is known in advance.

The network sees a face at one cell if the image has red in it: so colour order, landmarks, scale and frame are checked
without the weights.
"""

import importlib
import importlib.util
import sys

import numpy as np
import pytest

from synface.core import crops
from synface.core.errors import InputError
from synface.store import pair_pack

SIDE, STRIDE = 64, 8
#: row and column of the cell with the face, and its landmarks in strides from there
CELL = (3, 4)
OFFSET_52 = np.array([[-1.0, -1.0], [1.0, -1.0], [0.0, 0.25], [-0.75, 1.0], [0.75, 1.0]])
POINTS_52 = (OFFSET_52 + CELL[::-1]) * STRIDE


@pytest.fixture(scope="module")
def yunet(in_ci):
    for name, package in (("cv2", "opencv-python-headless"), ("onnx", "onnx")):
        if importlib.util.find_spec(name) is None:
            (pytest.fail if in_ci else pytest.skip)(f"{name} is not installed: pip install {package}")
    return importlib.import_module("synface.models.yunet")


@pytest.fixture(scope="module")
def network(yunet, tmp_path_factory):
    """A file of twelve outputs (cls, obj, bbox, kps at strides 8, 16, 32) for images of 64 pixels."""
    onnx = importlib.import_module("onnx")
    node, values = onnx.helper.make_node, {}
    red = np.zeros((1, 3, 1, 1), np.float32)
    red[0, 2] = 1 / 255  # BGR
    values |= {"pick": red, "sum": np.ones((1, 3, 1, 1), np.float32), "shape": np.ones(3, np.int64)}
    nodes = [
        node("Mul", ["input", "pick"], ["picked"]), node("GlobalMaxPool", ["picked"], ["most"]),
        node("Conv", ["most", "sum"], ["one"]), node("Reshape", ["one", "shape"], ["red"]),
    ]  # fmt: skip
    outputs = []
    for stride in (8, 16, 32):
        cells = (SIDE // stride) ** 2
        parts = {"cls": np.zeros((1, cells, 1)), "obj": np.ones((1, cells, 1)),
                 "bbox": np.zeros((1, cells, 4)), "kps": np.zeros((1, cells, 10))}  # fmt: skip
        if stride == STRIDE:
            cell = CELL[0] * (SIDE // STRIDE) + CELL[1]
            parts["cls"][0, cell], parts["kps"][0, cell] = 1, OFFSET_52.ravel()
            parts["bbox"][0, cell] = (0, 0, np.log(4), np.log(4))
        for name, part in parts.items():
            values[f"{name}_{stride}_values"] = part.astype(np.float32)
            nodes.append(node("Mul", [f"{name}_{stride}_values", "red"], [f"{name}_{stride}"]))
            outputs.append(onnx.helper.make_tensor_value_info(f"{name}_{stride}", 1, part.shape))
    inputs = [onnx.helper.make_tensor_value_info("input", 1, (1, 3, SIDE, SIDE))]
    held = [onnx.numpy_helper.from_array(v, k) for k, v in values.items()]
    graph = onnx.helper.make_graph(nodes, "face", inputs, outputs, held)
    opset = [onnx.helper.make_opsetid("", 13)]
    path = tmp_path_factory.mktemp("yunet") / "face.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    return str(path)


def picture(height, width, channel):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., channel] = 255
    return pixels


def test_landmarks_stand_where_the_network_saw_them_in_the_order_of_the_template(yunet, network):
    find = yunet.YuNet(network)
    points = find(picture(64, 64, 0))
    np.testing.assert_allclose(points, POINTS_52, atol=1e-4)
    # eyes, nose, mouth corners, image left first: the nearest template point of each is its own, after alignment
    matrix = crops.similarity_transform(points, crops.template(112))
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    distance = np.linalg.norm(moved[:, None] - crops.template(112)[None], axis=-1)
    assert distance.argmin(1).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(find(picture(60, 50, 0)), POINTS_52, atol=1e-4)  # filled up to strides of 32
    assert find(picture(64, 64, 2)) is None  # blue: RGB reached the network as BGR


def test_large_images_are_made_smaller_and_points_put_back(yunet, network, monkeypatch):
    monkeypatch.setattr(yunet, "LONGEST_SIDE", 64)
    points = yunet.YuNet(network)(picture(128, 128, 0))
    np.testing.assert_allclose(points, 2 * POINTS_52 + 0.5, atol=1e-4)


def test_the_main_face_is_large_and_near_the_middle(yunet):
    faces = np.array([[0, 0, 30, 30], [35, 35, 28, 28], [60, 60, 31, 31]], float)
    assert yunet.main_face(faces, (100, 100)) == 1
    assert yunet.main_face(faces[[0, 2]], (100, 100)) == 1


def test_missing_and_wrong_weights_are_refused(yunet, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: cannot be read"):
        pair_pack.load_detector("yunet", str(tmp_path / "none.onnx"))
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 30)
    with pytest.raises(InputError, match=r"junk\.onnx: not a network that OpenCV reads"):
        pair_pack.load_detector("yunet", str(tmp_path / "junk.onnx"))


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "synface.models.yunet", raising=False)
    with pytest.raises(InputError, match=r'pip install "synface\[detector\]"'):
        pair_pack.load_detector("yunet", "any.onnx")
