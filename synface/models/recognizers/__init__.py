"""Face-recognition backbones: images in [-1, 1] to raw features; the registry and what it promises.

Every backbone takes RGB [n, 3, s, s] scaled by ``core.crops`` and returns raw features [n, d]: the norm
carries quality (AdaFace), so normalising is the caller's. ``package.module:attribute`` names other people's:
a callable of (embedding_dim, input_size) that returns such a module.
"""

from collections.abc import Callable

from torch import nn

from synface.core import plugins
from synface.core.errors import InputError, unknown_name
from synface.models.recognizers.ir import VARIANTS, IRNet
from synface.models.recognizers.iresnet import DEPTHS, IResNet
from synface.models.recognizers.mobilefacenet import MobileFaceNet
from synface.models.recognizers.tiny import TinyResNet
from synface.models.recognizers.vit import VARIANTS as VITS
from synface.models.recognizers.vit import VisionTransformer

#: name -> (embedding_dim, input_size) -> module
RECOGNIZERS: dict[str, Callable[[int, int], nn.Module]] = {
    **{name: lambda dim, size, depths=depths: IResNet(depths, dim, size) for name, depths in DEPTHS.items()},
    **{name: lambda dim, size, name=name: IRNet(name, dim, size) for name in VARIANTS},
    **{name: lambda dim, size, kind=kind: VisionTransformer(kind, dim, size) for name, kind in VITS.items()},
    "mobilefacenet": MobileFaceNet,
    "tiny": TinyResNet,
}
SIZE_STEP = 16


def build(name: str, embedding_dim: int = 512, input_size: int = 112) -> nn.Module:
    """A freshly initialised backbone (from torch's global generator: seed it first).

    Raises:
        InputError: an unknown name, or an input size that is not a positive multiple of 16.
    """
    make = find(name)
    if input_size < 2 * SIZE_STEP or input_size % SIZE_STEP:
        raise InputError(
            f"input size {input_size} for backbone {name!r}: a multiple of {SIZE_STEP} from {2 * SIZE_STEP} on, "
            "usually 64 or 112"
        )
    return make(embedding_dim, input_size)


def find(name: str) -> Callable[[int, int], nn.Module]:
    """The maker of a backbone of a known name, or of ``package.module:attribute``.

    Raises:
        InputError: unknown, or not importable.
    """
    if name in RECOGNIZERS:
        return RECOGNIZERS[name]
    if ":" not in name:
        raise unknown_name("backbone", name, [*RECOGNIZERS, "package.module:attribute"])
    return plugins.load("backbone", name)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, fixed ones included (as the field counts them)."""
    return sum(p.numel() for p in module.parameters())
