"""ONNX recognizers: a small graph, run by onnxruntime, against the same network in PyTorch."""

import numpy as np
import pytest
import torch
from onnx_graphs import field, graph, network, node

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.models import onnx_recognizer, weights
from synface.models.checkpoints import convert
from synface.models.embedding import Embedder

SIZE, DIM = 32, 6
FACTS = {"licence": "non-commercial research", "training_data": "nobody"}


def expected(pixels: np.ndarray, bgr: bool = False) -> np.ndarray:
    given = {k: torch.from_numpy(v) for k, v in network().items()}
    x = torch.from_numpy(crops.to_network(pixels[..., ::-1] if bgr else pixels))
    return (torch.nn.functional.conv2d(x, given["w"]).relu().mean((2, 3)) @ given["fc"]).numpy()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return rng.generator(1, "pixels").integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_features_are_the_networks_whoever_scales_the_pixels(tmp_path, pixels, inside, order):
    (tmp_path / "arcface.onnx").write_bytes(graph(inside))
    result = convert(
        str(tmp_path / "arcface.onnx"), "onnx", "onnx", output=str(tmp_path / "w"), colour_order=order, **FACTS
    )
    assert result["scales_itself"] is inside
    embedder = Embedder.from_pretrained(str(tmp_path / "w"), micro_batch=2)
    assert (embedder.dim, embedder.size, embedder.sha256) == (DIM, SIZE, result["sha256"])
    np.testing.assert_allclose(embedder.features(pixels), expected(pixels, order == "BGR"), atol=2e-5, rtol=1e-4)
    assert np.array_equal(embedder.features(pixels[3:4])[0], embedder.features(pixels)[3])


def test_a_graph_of_one_picture_is_run_picture_by_picture(pixels):
    module = onnx_recognizer.load(graph(batch=1), DIM, SIZE, "RGB", "file")
    with torch.inference_mode():
        out = module(torch.from_numpy(crops.to_network(pixels))).numpy()
    np.testing.assert_allclose(out, expected(pixels), atol=2e-5, rtol=1e-4)


def test_the_first_operators_are_read_without_the_tensors():
    assert onnx_recognizer.first_operators(graph(True), "file", 3) == ["Sub", "Mul", "Conv"]
    assert onnx_recognizer.first_operators(graph(), "file") == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
    ]


def test_what_is_refused(tmp_path):
    for data in (b"", b"\x0f", graph()[:40], b"\xff" * 30):
        with pytest.raises(InputError, match="not an ONNX file"):
            onnx_recognizer.first_operators(data, "file")
    with pytest.raises(InputError, match="not an ONNX graph that onnxruntime runs"):
        onnx_recognizer.load(field(7, field(1, node("Conv", ["a"], "b"))), DIM, SIZE, "RGB", "file")
    with pytest.raises(InputError, match="makes 6 numbers of crops of 32 pixels, stated are 512 and 112"):
        onnx_recognizer.load(graph(), 512, 112, "RGB", "file")
    module = onnx_recognizer.load(graph(), DIM, SIZE, "RGB", "file")
    with pytest.raises(InputError, match="only embeds"):
        module(torch.zeros(1, 3, SIZE, SIZE, requires_grad=True))
    (tmp_path / "a.onnx").write_bytes(graph())
    convert(str(tmp_path / "a.onnx"), "onnx", "onnx", output=str(tmp_path / "w"), **FACTS)
    (tmp_path / "w" / "model.onnx").write_bytes(graph(True))
    with pytest.raises(InputError, match="damaged or exchanged"):
        weights.from_pretrained(str(tmp_path / "w"))
    (tmp_path / "b.onnx").write_bytes(graph(True))
    with pytest.raises(InputError, match="holds other weights"):
        convert(str(tmp_path / "b.onnx"), "onnx", "onnx", output=str(tmp_path / "w"), **FACTS)
