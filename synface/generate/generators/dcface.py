"""``dcface``: an identity's embedding in the style of a drawn image (DCFace, arXiv 2304.07060)."""

from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.generate import asked
from synface.generate.config import GenerateConfig
from synface.generate.generators.diffusion import DiffusionGenerator, drawn_by_embedding
from synface.generate.generators.style_images import StyleImages, check_size
from synface.models import sampling
from synface.models.sampling import SamplerSettings
from synface.models.weights import WeightsConfig


class DcfaceGenerator(DiffusionGenerator):
    """Samples ``G(E(x), style)``: for each sample one of the style images, drawn by (seed, identity, sample)."""

    name = "dcface"
    modes = ("style",)
    attributes = pa.struct([("inquiry", pa.bool_()), ("style", pa.int64()), ("cone_cosine", pa.float32())])

    def __init__(self, config: GenerateConfig) -> None:
        super().__init__(config)
        options = config.dcface
        assert options.style_images is not None  # describe refused it
        self._styles = StyleImages(options.style_images, options.styles, config.image_size)

    @classmethod
    def check(cls, config: GenerateConfig, stated: WeightsConfig, settings: SamplerSettings) -> Any:
        """There must be people and style images; there is no m to ask for."""
        asked.check_without_m(config.variation, cls.name)
        if not drawn_by_embedding(config):
            raise InputError("generator dcface draws given people: give identities (made by `embed` or `pack`)")
        if config.dcface.style_images is None:
            raise InputError(
                "generator dcface: give dcface.style_images, an images table whose pictures lend their style (the "
                "paper's: those that it was trained on)"
            )
        check_size(config.dcface.style_images, config.image_size, "dcface.style_images")
        return None

    def _style(self, keys: list[sampling.Key]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        number_n = self._styles.draw(self._config.seed, keys)
        samples = self._styles.samples(number_n, self._autoencoder, self._settings.micro_batch, self._device)
        return samples, [{"style": int(number)} for number in number_n]
