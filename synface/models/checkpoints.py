"""Released checkpoints of other people's trainers: read without running anything of theirs, and converted.

A checkpoint is a ``torch.save`` of a state dict, or of a training's whole state with the state dict under a key, with
a prefix before every name. Each public layout is one row of `LAYOUTS`. Tensors alone are taken: every other class
that a file names (a Lightning checkpoint holds its hyper-parameters and callbacks) stands for an inert object.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch

from synface.core import crops
from synface.core.errors import InputError, unknown_name
from synface.models import onnx_recognizer, recognizers, weights
from synface.store import uri as uris
from synface.store.artifact import sha256_hex


@dataclass(frozen=True)
class Layout:
    """Where a released file keeps its backbone.

    Attributes:
        key: of the state dict in the saved object; None: the object is the state dict.
        prefix: before the backbone's names; what does not begin with it (heads, statistics) is left out.
        colour_order: what the published networks take; None: differs between releases, so it must be given.
    """

    key: str | None
    prefix: str
    colour_order: str | None


#: AdaFace: github.com/mk-minchul/AdaFace, inference.py. HyperFace: the released .ckpt files and their demo are
#: AdaFace's layout with ir_50. CVLface: pretrained_model/model.pt; the colour space stands in its model.yaml.
LAYOUTS: dict[str, Layout] = {
    "insightface": Layout(None, "", "RGB"),
    "adaface": Layout("state_dict", "model.", "BGR"),
    "hyperface": Layout("state_dict", "model.", "BGR"),
    "cvlface": Layout(None, "net.", None),
}
#: a released ONNX file, which is no state dict
ONNX = onnx_recognizer.ARCHITECTURE


class _Inert:
    """Stands for every class that is not a tensor's.

    Its instances are plain dicts that take whatever state follows: torch's reader sets items of exact dicts alone,
    and Lightning's hyper-parameters are a dict of its own.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def read_tensors(data: bytes, where: str) -> Any:
    """What ``torch.save`` or safetensors wrote; only tensors and plain data come alive.

    Raises:
        InputError: neither format, damaged, or an object that cannot be read without running code.
    """
    if where.endswith(".safetensors"):
        try:
            return safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{where}: not a safetensors file ({error})") from error
    try:
        with torch.serialization.safe_globals(_inert_stand_ins(data)):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
        lines = [line for line in str(error).splitlines() if line] or ["empty"]
        # torch's advice to read the file unsafely stands first, what is wrong with it before the last line
        shown = lines[-2] if len(lines) > 2 else lines[0]
        raise InputError(f"{where}: not a checkpoint whose tensors can be read safely ({shown})") from error


def _inert_stand_ins(data: bytes) -> list[Callable | tuple[Callable, str]]:
    """(inert class, name) for each name of the file that is not torch's own; found without unpickling."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError):
        return []  # the format before torch 1.6, or no checkpoint: torch.load itself decides
    return [(_Inert, name) for name in names]


def backbone_state(saved: Any, layout: Layout, where: str) -> dict[str, torch.Tensor]:
    """The backbone's tensors by the architecture's own names.

    Raises:
        InputError: no state dict where the layout keeps it, or no name with its prefix; the first names are shown.
    """
    state = saved.get(layout.key) if layout.key and isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping):
        keys = ", ".join(map(str, list(saved)[: weights.SHOWN_KEYS])) if isinstance(saved, Mapping) else type(saved)
        raise InputError(f"{where}: no {layout.key or 'state dict'!r} in it, but: {keys}; layouts: {_known()}")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    # data-parallel trainers put "module." before everything
    tensors = {k.removeprefix("module."): v for k, v in tensors.items()}
    found = {k[len(layout.prefix) :]: v for k, v in tensors.items() if k.startswith(layout.prefix)}
    if not found:
        shown = ", ".join(list(tensors)[: weights.SHOWN_KEYS]) or "none"
        raise InputError(
            f"{where}: no tensor's name begins with {layout.prefix!r}; its first names: {shown}; layouts: {_known()}"
        )
    return found


def _known() -> str:
    return ", ".join(LAYOUTS)


def convert(
    uri: str,
    layout: str,
    architecture: str,
    licence: str,
    training_data: str,
    output: str,
    colour_order: str | None = None,
    embedding_dim: int | str = 512,
    input_size: int | str = 112,
) -> dict[str, Any]:
    """Make a weights folder of a released checkpoint; every verb takes it as ``weights`` from then on.

    The tensors stay as released; their colour order stands in config.json and is turned round on load.

    Args:
        uri: of the file.
        layout: one of `LAYOUTS`, or ``onnx``: the file is kept as it is, for embedding.
        architecture: of the backbone, a name of `recognizers.RECOGNIZERS`; ``onnx`` of an ONNX file.
        licence: of the released weights.
        training_data: one sentence: what they were trained on.
        output: URI of the new folder.
        colour_order: RGB or BGR, where it differs from the layout's.
        embedding_dim: of the feature.
        input_size: pixels.

    Returns:
        uri, architecture, parameters, colour_order, sha256 of the new file and of the source.

    Raises:
        InputError: an unknown name, a file that cannot be read safely, tensors of another architecture (the first
            differing keys are listed), or an output that holds other weights.
    """
    if layout not in (*LAYOUTS, ONNX):
        raise unknown_name("layout", layout, (*LAYOUTS, ONNX))
    if layout == ONNX:
        return _convert_onnx(uri, licence, training_data, output, colour_order or "RGB")
    order = colour_order or LAYOUTS[layout].colour_order
    if order not in crops.COLOUR_ORDERS:
        raise InputError(
            f"colour order {order!r} of layout {layout!r}: give --colour-order RGB or BGR, as the release states "
            "(CVLface: color_space in model.yaml)"
        )
    dim, size = whole_number("embedding-dim", embedding_dim), whole_number("input-size", input_size)
    with torch.random.fork_rng(devices=[]):
        module = recognizers.build(architecture, dim, size)
    data = uris.read_bytes(uri)
    source = sha256_hex(data)
    check_output(output, source)
    state = backbone_state(read_tensors(data, uri), LAYOUTS[layout], uri)
    weights.load_state(module, state, f"{uri} ({layout}, {architecture})")
    stated = weights.WeightsConfig(
        architecture,
        dim,
        size,
        licence,
        training_data,
        colour_order=order,
        details={"layout": layout, "source_sha256": source},
    )
    try:
        weights.save_pretrained(output, module, stated)
    except ValueError as error:
        raise InputError(f"{uri}: {error}") from error
    return {
        "uri": output,
        "architecture": architecture,
        "parameters": recognizers.parameter_count(module),
        "colour_order": order,
        "sha256": weights.read_config(output).sha256,
        "source_sha256": source,
    }


def check_output(output: str, source: str) -> None:
    """InputError where an output holds the weights of another file."""
    if uris.exists(uris.join(output, weights.CONFIG_FILE)):
        there = weights.read_stated(output).details.get("source_sha256")
        if there != source:
            raise InputError(f"{output}: holds other weights; choose another output, or delete it")


def _convert_onnx(uri: str, licence: str, training_data: str, output: str, colour_order: str) -> dict[str, Any]:
    """An ONNX file beside a config.json of what it is; its sha256 stays the release's own."""
    if colour_order not in crops.COLOUR_ORDERS:
        raise InputError(f"colour order {colour_order!r}: RGB or BGR")
    data = uris.read_bytes(uri)
    module = onnx_recognizer.OnnxRecognizer(data, colour_order, uri)
    dim, size = onnx_recognizer.shapes(module)
    sha256 = sha256_hex(data)
    check_output(output, sha256)
    details = {"layout": ONNX, "source_sha256": sha256, "scales_itself": module.scales_itself}
    stated = weights.WeightsConfig(
        ONNX, dim, size, licence, training_data, colour_order=colour_order, sha256=sha256, details=details
    )
    uris.write_bytes(uris.join(output, onnx_recognizer.MODEL_FILE), data)
    uris.write_bytes(uris.join(output, weights.CONFIG_FILE), weights.config_bytes(stated))
    return {"uri": output, "architecture": ONNX, "colour_order": colour_order, "sha256": sha256, **details}


def whole_number(name: str, value: int | str) -> int:
    """A number that came from a command line.

    Raises:
        InputError: not a positive whole number.
    """
    text = str(value)
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--{name} {value!r}: expected a positive whole number")
    return int(text)
