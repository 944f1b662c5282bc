"""Face-recognition backbones: images in [-1, 1] to raw features; the registry and what it promises.

Every backbone takes RGB [n, 3, s, s] scaled by ``core.crops`` and returns raw features [n, d]: the norm
carries quality (AdaFace), so normalising is the caller's.
"""

from collections.abc import Callable

from torch import nn

from synface.core.errors import InputError, unknown_name
from synface.models.recognizers.iresnet import DEPTHS, IResNet
from synface.models.recognizers.mobilefacenet import MobileFaceNet
from synface.models.recognizers.tiny import TinyResNet

#: name -> (embedding_dim, input_size) -> module
RECOGNIZERS: dict[str, Callable[[int, int], nn.Module]] = {
    "r18": lambda dim, size: IResNet(DEPTHS["r18"], dim, size),
    "r34": lambda dim, size: IResNet(DEPTHS["r34"], dim, size),
    "r50": lambda dim, size: IResNet(DEPTHS["r50"], dim, size),
    "r100": lambda dim, size: IResNet(DEPTHS["r100"], dim, size),
    "mobilefacenet": MobileFaceNet,
    "tiny": TinyResNet,
}
SIZE_STEP = 16


def build(name: str, embedding_dim: int = 512, input_size: int = 112) -> nn.Module:
    """A freshly initialised backbone (from torch's global generator: seed it first).

    Raises:
        InputError: an unknown name, or an input size that is not a positive multiple of 16.
    """
    if name not in RECOGNIZERS:
        raise unknown_name("backbone", name, RECOGNIZERS)
    if input_size < 2 * SIZE_STEP or input_size % SIZE_STEP:
        raise InputError(
            f"input size {input_size} for backbone {name!r}: a multiple of {SIZE_STEP} from {2 * SIZE_STEP} on, "
            "usually 64 or 112"
        )
    return RECOGNIZERS[name](embedding_dim, input_size)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, fixed ones included (as the field counts them)."""
    return sum(p.numel() for p in module.parameters())
