"""``idiffface``: an identity's embedding drawn by latent diffusion with partial dropout (arXiv 2308.04995).

Its identities are any table: uniform on the sphere, packed, real ones' embeddings. Without a table (`num_identities`)
the same weights draw nobody in particular, one picture each: the first stage of the paper's two-stage contexts, whose
second is `embed`.
"""

from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.generate import asked
from synface.generate.config import GenerateConfig
from synface.generate.generators.diffusion import DiffusionGenerator, drawn_by_embedding
from synface.generate.plan import Identity
from synface.generate.variation_config import Variation
from synface.models.sampling import SamplerSettings
from synface.models.weights import WeightsConfig

#: source, and beginning of the names, of pictures of nobody in particular
UNCONDITIONAL = "unconditional"


class IdifffaceGenerator(DiffusionGenerator):
    """Samples ``G(E(x))``; samples differ by their noise, and by `variation.cone` where it is asked."""

    name = "idiffface"
    modes = ("identity",)
    attributes = pa.struct([("inquiry", pa.bool_()), ("cone_cosine", pa.float32())])

    @classmethod
    def check(cls, config: GenerateConfig, stated: WeightsConfig, settings: SamplerSettings) -> Any:
        """There is no m to ask for; nobody in particular needs weights that were trained on dropped conditions."""
        asked.check_without_m(config.variation, cls.name)
        if drawn_by_embedding(config):
            return None
        if not stated.details.get("drop"):
            raise InputError(
                f"num_identities: {cls.place(config)} were trained without dropped conditions and cannot draw nobody "
                "in particular; train with drop = 0.1, or give identities"
            )
        options = cls.options(config)
        if config.images_per_identity != 1 or config.variation != Variation() or settings.guidance != 1:
            raise InputError(
                "num_identities: pictures of nobody in particular are each of somebody else; set images_per_identity "
                "= 1, and leave variation and guidance out"
            )
        if options.negative is not None or options.inquiries_below is not None or options.inquiry_repeats:
            raise InputError(
                f"{cls.name}.negative, inquiries_below, inquiry_repeats: for given people, and num_identities has none"
            )
        return None

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """Nobody in particular: names for the noise of `first_seed`, `first_seed` + 1, ..."""
        seeds = [config.first_seed + label for label in labels]
        return [
            Identity(label, f"{UNCONDITIONAL}-{seed:010d}", UNCONDITIONAL, seed)
            for label, seed in zip(labels, seeds, strict=True)
        ]
