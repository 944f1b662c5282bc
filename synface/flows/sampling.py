"""What the flows that measure a CemiFace generator ask of ``generate`` and ``embed``, and what that takes."""

from typing import Any

from synface.embed import run as embed
from synface.embed.config import EmbedConfig
from synface.flows.calibrate_config import CalibrateConfig
from synface.flows.closed_loop_config import ClosedLoopConfig
from synface.generate import run as generate
from synface.generate.config import GenerateConfig
from synface.generate.generators import find_generator
from synface.generate.plan import plan_shards
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


def embed_config(
    config: CalibrateConfig | ClosedLoopConfig, images: str, output: str, recognizer: str | None = None
) -> EmbedConfig:
    """Generated images embedded by the scorer, or by another recognizer, with each image's cosine to its mean."""
    numerics = {"threads": config.numerics.threads_per_actor, "device": config.numerics.device}
    fields = {"images": images, "weights": recognizer or config.scorer, "output": output, "numerics": numerics}
    return build(EmbedConfig, fields | {"similarities": recognizer is not None, "how": {"labels": config.how.labels}})


def estimate(
    config: CalibrateConfig | ClosedLoopConfig,
    identities: int,
    images_per_identity: int,
    variation: Variation | dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """What making so many images takes (``generate``), and embedding them (``embed``): see `store.cost`."""
    made = generate_config(config, config.weights, config.identities, images_per_identity, variation, config.output)
    description = find_generator(made.generator).describe(made)
    shards = plan_shards(identities, images_per_identity, made.images_per_shard, description.images_per_minute)
    dim = weights.read_config(config.scorer).embedding_dim
    asked = embed_config(config, config.output, f"{config.output}-embedded")
    return {
        "generate": generate.estimate(made, description, shards),
        "embed": embed.estimate(asked, generate.table_size(made, shards), dim),
    }
