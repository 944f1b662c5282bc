"""Small ONNX recognizers, written byte by byte: no package that makes such files is needed for it."""

import numpy as np

from synface.core import rng


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, x: np.ndarray) -> bytes:
    x = np.ascontiguousarray(x, "<f4")
    return b"".join(field(1, d) for d in x.shape) + field(2, 1) + field(8, name) + field(9, x.tobytes())


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(field(1, i) for i in inputs) + field(2, output) + field(4, kind)


def value(name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def network(dim: int = 6) -> dict[str, np.ndarray]:
    generator = rng.generator(4, "onnx")
    return {
        "w": 0.2 * generator.standard_normal((4, 3, 5, 5)).astype(np.float32),
        "fc": generator.standard_normal((4, dim)).astype(np.float32),
    }


def graph(inside: bool = False, batch: int | str = "n", dim: int = 6, size: int = 32) -> bytes:
    """Convolution, mean over the picture, matrix; `inside`: pixels 0 ... 255 are scaled by the graph first."""
    given = network(dim)
    nodes, x = [], "data"
    if inside:
        given |= {"mean": np.array([127.5], np.float32), "scale": np.array([1 / 127.5], np.float32)}
        nodes += [node("Sub", ["data", "mean"], "minus"), node("Mul", ["minus", "scale"], "scaled")]
        x = "scaled"
    nodes += [
        node("Conv", [x, "w"], "c"),
        node("Relu", ["c"], "r"),
        node("GlobalAveragePool", ["r"], "p"),
        node("Flatten", ["p"], "f"),
        node("MatMul", ["f", "fc"], "feature"),
    ]
    body = b"".join(field(1, n) for n in nodes) + field(2, "face")
    body += b"".join(field(5, tensor(k, v)) for k, v in given.items())
    body += field(11, value("data", [batch, 3, size, size])) + field(12, value("feature", [batch, dim]))
    return field(1, 8) + field(7, body) + field(8, field(1, "") + field(2, 17))
