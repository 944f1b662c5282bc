"""What the flows that measure a CemiFace generator ask of ``generate``."""

from typing import Any

from synface.flows.calibrate_config import CalibrateConfig
from synface.flows.closed_loop_config import ClosedLoopConfig
from synface.generate.config import GenerateConfig
from synface.generate.variation_config import Variation
from synface.models import weights
from synface.models.denoisers import generator as generators
from synface.settings import build


def generate_config(
    config: CalibrateConfig | ClosedLoopConfig,
    weights_uri: str,
    identities: str,
    images_per_identity: int,
    variation: Variation | dict[str, Any],
    output: str,
) -> GenerateConfig:
    """Images of a table's identities by a CemiFace generator, losslessly stored.

    Raises:
        InputError: as `GenerateConfig`.
    """
    return build(
        GenerateConfig,
        {
            "generator": "cemiface",
            "identities": identities,
            "images_per_identity": images_per_identity,
            "image_size": weights.read_config(weights_uri, generators.GENERATOR_KIND).input_size,
            "format": "png",
            "seed": config.seed,
            "variation": variation,
            "cemiface": {"weights": weights_uri, "sampler": config.sampler},
            "numerics": config.numerics,
            "how": config.how,
            "output": output,
        },
    )
