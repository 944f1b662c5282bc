"""Recognizers that are published as ONNX files (insightface's packages, Arc2Face's ArcFace), run by onnxruntime.

For embedding alone: nothing flows back through them. Such a file states neither scale nor colour order. The field's
reader (insightface, ``ArcFaceONNX``) takes RGB and looks whether the graph begins by subtracting and multiplying: then
it scales pixels itself and takes 0 ... 255, else (x - 127.5) / 127.5. The same is looked up here on every load.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synface.core import crops
from synface.core.errors import InputError

ARCHITECTURE = "onnx"
MODEL_FILE = "model.onnx"
#: how many of the graph's first operators tell whether it scales pixels
FIRST_OPERATORS = 8
# fields of ONNX's messages (onnx.proto): ModelProto.graph, GraphProto.node, NodeProto.op_type
_GRAPH, _NODE, _OPERATOR = 7, 1, 4
_BYTES = 2  # wire type of what has a length before it


class OnnxRecognizer(nn.Module):
    """An ONNX graph as a module: float32 RGB [n, 3, s, s] in [-1, 1] to raw features [n, d]."""

    def __init__(self, data: bytes, colour_order: str, where: str):
        super().__init__()
        self._data, self._where, self._bgr = data, where, colour_order == "BGR"
        self.scales_itself = {"Sub", "Mul"} <= set(first_operators(data, where))
        self._session: Any = None

    def session(self, cuda: bool = False) -> Any:
        """The graph, ready to run on this process's number of threads."""
        if self._session is None:
            self._session = _session(self._data, self._where, cuda)
        return self._session

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Raw features [n, d]. InputError where a gradient is wanted."""
        if torch.is_grad_enabled() and x_nchw.requires_grad:
            raise InputError(f"{self._where}: an ONNX recognizer only embeds; a training loss needs PyTorch weights")
        x = x_nchw.flip(1) if self._bgr else x_nchw
        if self.scales_itself:
            x = x * crops.PIXEL_SCALE + crops.PIXEL_MEAN
        session = self.session(x_nchw.is_cuda)
        (given,) = session.get_inputs()
        rows = x.float().cpu().contiguous().numpy()
        parts = np.split(rows, len(rows)) if given.shape[0] == 1 else [rows]
        out = np.concatenate([session.run(None, {given.name: part})[0] for part in parts])
        return torch.from_numpy(out).to(x_nchw.device)


def load(data: bytes, embedding_dim: int, input_size: int, colour_order: str, where: str) -> OnnxRecognizer:
    """The recognizer of a file, its shapes checked against what is stated.

    Raises:
        InputError: onnxruntime is missing, no ONNX graph, or one of other shapes.
    """
    module = OnnxRecognizer(data, colour_order, where).eval()
    found = shapes(module)
    if found != (embedding_dim, input_size):
        raise InputError(
            f"{where}: makes {found[0]} numbers of crops of {found[1]} pixels, stated are {embedding_dim} and "
            f"{input_size}"
        )
    module._session = None  # made anew with the threads and on the device of whoever embeds
    return module


def shapes(module: OnnxRecognizer) -> tuple[int, int]:
    """Size of the feature and side of the crop.

    Raises:
        InputError: the graph does not take one [n, 3, s, s] and give one [n, d].
    """
    session = module.session()
    inputs = [(i.type, i.shape) for i in session.get_inputs()]
    outputs = [o.shape for o in session.get_outputs()]
    one = len(inputs) == 1 and len(outputs) == 1 and len(inputs[0][1]) == 4 and len(outputs[0]) == 2
    if not one or inputs[0][0] != "tensor(float)" or inputs[0][1][1] != 3 or inputs[0][1][2] != inputs[0][1][3]:
        raise InputError(
            f"{module._where}: takes {inputs} and gives {outputs}; a recognizer takes one float [n, 3, s, s] and "
            "gives one [n, d]"
        )
    if not isinstance(inputs[0][1][2], int) or not isinstance(outputs[0][1], int):
        raise InputError(f"{module._where}: its crop or feature has no fixed size: {inputs}, {outputs}")
    return outputs[0][1], inputs[0][1][2]


def _session(data: bytes, where: str, cuda: bool) -> Any:
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError(f'{where}: an ONNX recognizer needs onnxruntime: pip install "synface[onnx]"')
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
    known = [p for p in providers if p in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(data, options, providers=known)
    except Exception as error:  # its own classes, of no public name
        raise InputError(f"{where}: not an ONNX graph that onnxruntime runs ({error})") from error


def first_operators(data: bytes, where: str, count: int = FIRST_OPERATORS) -> list[str]:
    """Names of the graph's first operators, read from the file's protocol buffer; no tensor is decoded.

    Raises:
        InputError: the file is no protocol buffer of a model.
    """
    found = []
    try:
        for graph in _messages(memoryview(data), _GRAPH):
            for node in _messages(graph, _NODE):
                found += [bytes(text).decode() for text in _messages(node, _OPERATOR)]
                if len(found) >= count:
                    return found
    except (ValueError, IndexError) as error:
        raise InputError(f"{where}: not an ONNX file ({error})") from error
    if not found:
        raise InputError(f"{where}: not an ONNX file (no graph in it)")
    return found


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The length-delimited values of one field of a message, in order. ValueError or IndexError for damage."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("cut off")
            if tag >> 3 == wanted:
                yield data[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("number too long")
