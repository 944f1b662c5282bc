"""CemiFace denoisers: named configurations, and the module that they describe."""

from synface.core.errors import unknown_name
from synface.models.denoisers.config import DENOISERS, DenoiserConfig
from synface.models.denoisers.unet import Denoiser


def build(name_or_config: str | DenoiserConfig) -> Denoiser:
    """A freshly initialised denoiser (from torch's global generator: seed it first).

    Raises:
        InputError: an unknown name.
    """
    if isinstance(name_or_config, str):
        if name_or_config not in DENOISERS:
            raise unknown_name("denoiser", name_or_config, DENOISERS)
        name_or_config = DENOISERS[name_or_config]
    return Denoiser(name_or_config).eval()
