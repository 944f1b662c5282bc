"""Weights on disk: ``model.safetensors`` beside a ``config.json`` that states their conventions.

A weights folder is found by a built-in name (`PRETRAINED`), a local folder, or any URI that ``store.uri``
resolves. Everything that `WeightsConfig` states is checked on load, the file's sha256 included, so that
weights are never fed images of another crop, colour order or scale. No pickle is read.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from synface.core import crops
from synface.core.errors import InputError, unknown_name
from synface.models import onnx_recognizer, recognizers
from synface.store import uri as uris
from synface.store.artifact import sha256_hex

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1
STORED_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: how many differing keys an error lists
SHOWN_KEYS = 5
#: of a safetensors file's header, as its own reader allows
MAX_HEADER_BYTES = 100_000_000

#: built-in name -> folder of package data: a recognizer and a generator for its embeddings
PRETRAINED: dict[str, Path] = {
    name: Path(__file__).parent / "pretrained" / name
    for name in ("heads-fr-tiny", "cemiface-tiny", "cemiface-tiny-paper")
}

NORMALISATION = {"mean": crops.PIXEL_MEAN, "scale": crops.PIXEL_SCALE}


@dataclass(frozen=True)
class WeightsConfig:
    """What stands in ``config.json`` beside the weights.

    Attributes:
        architecture: a name of `recognizers.RECOGNIZERS`, or ``onnx``: then the weights are ``model.onnx``.
        embedding_dim: size of the feature.
        input_size: side of the square crop, pixels.
        crop: alignment convention, ``core.crops.CROP_CONVENTION``.
        colour_order: what the tensors were trained on: RGB, or BGR (recognizers only; turned round on load).
        normalisation: x -> (x - mean) / scale on uint8.
        dtype: of the stored floats; computation is float32.
        licence: SPDX name or a text.
        training_data: one sentence: what the weights were trained on.
        sha256: of ``model.safetensors``; empty only before it is packed.
        details: free facts (training seed, margin, figures).
    """

    architecture: str
    embedding_dim: int
    input_size: int
    licence: str
    training_data: str
    crop: str = crops.CROP_CONVENTION
    colour_order: str = crops.COLOUR_ORDER
    normalisation: dict[str, float] = dataclasses.field(default_factory=lambda: dict(NORMALISATION))
    dtype: str = "float32"
    sha256: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "recognizer"
    format_version: int = FORMAT_VERSION


def locate(name_or_uri: str) -> str:
    """The folder URI of weights: a name of `PRETRAINED`, else the URI itself.

    Raises:
        InputError: neither a known name nor a place where weights stand.
    """
    if name_or_uri in PRETRAINED:
        return str(PRETRAINED[name_or_uri])
    if not stand_at(name_or_uri):
        if not any(c in name_or_uri for c in "/\\."):
            raise unknown_name("pretrained weights", name_or_uri, PRETRAINED)
        raise InputError(
            f"weights {name_or_uri}: no {CONFIG_FILE} there; give a folder with {MODEL_FILE} and {CONFIG_FILE} "
            f"or a built-in name: {', '.join(sorted(PRETRAINED))}"
        )
    return name_or_uri


def stand_at(name_or_uri: str) -> bool:
    """Whether `locate` would find weights."""
    return name_or_uri in PRETRAINED or uris.exists(uris.join(name_or_uri, CONFIG_FILE))


def read_stated(name_or_uri: str) -> WeightsConfig:
    """What ``config.json`` states, of whatever kind and unchecked.

    Raises:
        InputError: not found, not JSON, a missing or unknown field.
    """
    place = uris.join(locate(name_or_uri), CONFIG_FILE)
    try:
        return WeightsConfig(**json.loads(uris.read_bytes(place)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: not a weights configuration ({error})") from error


def read_config(name_or_uri: str, kind: str = "recognizer") -> WeightsConfig:
    """The stated conventions of weights of one kind, each checked.

    Raises:
        InputError: as `read_stated`, or a convention that synface does not use.
    """
    place, config = uris.join(locate(name_or_uri), CONFIG_FILE), read_stated(name_or_uri)
    expected = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "crop": crops.CROP_CONVENTION,
        "normalisation": NORMALISATION,
    }
    if kind != "recognizer" or config.colour_order not in crops.COLOUR_ORDERS:
        expected["colour_order"] = crops.COLOUR_ORDER
    for field, value in expected.items():
        if getattr(config, field) != value:
            raise InputError(
                f"{place}: {field} = {getattr(config, field)!r}, but synface feeds {value!r}; "
                "convert the weights first"
            )
    if config.dtype not in STORED_DTYPES:
        raise InputError(f"{place}: dtype {config.dtype!r}; known: {', '.join(STORED_DTYPES)}")
    return config


def read_checked(name_or_uri: str) -> WeightsConfig:
    """`read_config` of a recognizer whose file holds its architecture's tensors, by the file's header alone.

    For the driver, before any work: neither the tensors nor their digest are read. Networks of other people's code
    and ONNX files are checked where they are loaded.

    Raises:
        InputError: as `read_config`; an unknown architecture; no safetensors file, or one of another architecture.
    """
    config = read_config(name_or_uri)
    if config.architecture == onnx_recognizer.ARCHITECTURE or ":" in config.architecture:
        return config
    place = uris.join(locate(name_or_uri), MODEL_FILE)
    with torch.device("meta"):
        module = recognizers.build(config.architecture, config.embedding_dim, config.input_size)
        given = {key: torch.empty(shape) for key, shape in _stored_shapes(place).items()}
    check_fits(module, given, f"{place} ({config.architecture})")
    return config


def _stored_shapes(place: str) -> dict[str, list[int]]:
    """Names and shapes of a safetensors file: eight bytes of length, then JSON."""
    try:
        with uris.open_reader(place) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        shapes = {key: [int(n) for n in entry["shape"]] for key, entry in header.items() if key != "__metadata__"}
        if any(n < 0 for shape in shapes.values() for n in shape):
            raise ValueError("a negative size")
        return shapes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: not a safetensors file ({error})") from error


def save_files(module: nn.Module, config: WeightsConfig) -> dict[str, bytes]:
    """File name -> bytes of a weights folder; equal weights give equal bytes. Sets dtype casts and sha256.

    Floating tensors are stored as `config.dtype`; integer buffers as they are.
    """
    dtype = STORED_DTYPES[config.dtype]
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in module.state_dict().items()
    }
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"weights {key!r} are not finite as {config.dtype}: not saved")
    data = safetensors.torch.save(state)
    stated = dataclasses.replace(config, sha256=sha256_hex(data))
    return {MODEL_FILE: data, CONFIG_FILE: config_bytes(stated)}


def config_bytes(config: WeightsConfig) -> bytes:
    """``config.json``; equal configurations give equal bytes."""
    text = json.dumps(dataclasses.asdict(config), sort_keys=True, indent=1, allow_nan=False)
    return (text + "\n").encode()


def save_pretrained(uri: str, module: nn.Module, config: WeightsConfig) -> None:
    """Write a weights folder; ``config.json``, which readers look for, last."""
    for name, data in save_files(module, config).items():
        uris.write_bytes(uris.join(uri, name), data)


def read_state(name_or_uri: str, kind: str = "recognizer") -> tuple[WeightsConfig, dict[str, torch.Tensor]]:
    """The stated conventions of weights of one kind and their tensors, as stored.

    Raises:
        InputError: as `read_config`; another sha256 than stated, or not a safetensors file.
    """
    config = read_config(name_or_uri, kind)
    return config, _tensors(name_or_uri, config)[1]


def _tensors(name_or_uri: str, config: WeightsConfig) -> tuple[str, dict[str, torch.Tensor]]:
    """URI of the safetensors file beside a ``config.json`` and what it holds."""
    place, data = _model_bytes(name_or_uri, config, MODEL_FILE)
    try:
        return place, safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{place}: not a safetensors file ({error})") from error


def _model_bytes(name_or_uri: str, config: WeightsConfig, file: str) -> tuple[str, bytes]:
    """URI and bytes of the file beside a ``config.json``; InputError where they are not those that it states."""
    place = uris.join(locate(name_or_uri), file)
    data = uris.read_bytes(place)
    if sha256_hex(data) != config.sha256:
        raise InputError(f"{place}: sha256 is not the one that {CONFIG_FILE} states: damaged or exchanged weights")
    return place, data


def from_pretrained(name_or_uri: str) -> tuple[nn.Module, WeightsConfig]:
    """A recognizer in evaluation mode, float32 on the CPU, and its stated conventions.

    The module takes RGB, whatever its weights were trained on: `take_rgb`.

    Raises:
        InputError: not found, another sha256, unknown architecture, or tensors that do not fit it (the first
            differing keys are listed).
    """
    config = read_config(name_or_uri)
    if config.architecture == onnx_recognizer.ARCHITECTURE:
        place, data = _model_bytes(name_or_uri, config, onnx_recognizer.MODEL_FILE)
        stated = config.embedding_dim, config.input_size, config.colour_order
        return onnx_recognizer.load(data, *stated, place), config
    place, state = _tensors(name_or_uri, config)
    with torch.random.fork_rng(devices=[]):
        module = recognizers.build(config.architecture, config.embedding_dim, config.input_size)
    load_state(module, state, f"{place} ({config.architecture})")
    if config.colour_order == "BGR":
        take_rgb(module)
    return module.eval(), config


def take_rgb(module: nn.Module) -> None:
    """Make a network that was trained on BGR take RGB: the input channels of its first convolution, turned round."""
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))


def load_state(module: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Load tensors strictly, cast to the module's dtypes.

    Raises:
        InputError: missing, unexpected or wrongly shaped tensors; the first of each are named.
    """
    check_fits(module, state, where)
    module.load_state_dict(dict(state), strict=True)


def check_fits(module: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """InputError for missing, unexpected or wrongly shaped tensors; the first of each are named."""
    differences = state_differences(module.state_dict(), state)
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:SHOWN_KEYS])
        more = f"\n  and {len(differences) - SHOWN_KEYS} more" if len(differences) > SHOWN_KEYS else ""
        raise InputError(f"{where}: weights of another architecture; first differing keys:\n{shown}{more}")


def state_differences(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """One line per key that is missing, unexpected or of another shape, in the order of the architecture.

    ``num_batches_tracked`` may be missing: older files do not hold it and evaluation does not use it.
    """
    lines = []
    for key, value in own.items():
        if key not in given:
            if not key.endswith("num_batches_tracked"):
                lines.append(f"{key}: missing (expected {list(value.shape)})")
        elif given[key].shape != value.shape:
            lines.append(f"{key}: {list(given[key].shape)}, expected {list(value.shape)}")
    return lines + [f"{key}: not in this architecture" for key in given if key not in own]
