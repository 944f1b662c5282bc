"""``cemiface``: an identity's embedding and a similarity, drawn by a diffusion model (arXiv 2409.18876)."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.generate import asked
from synface.generate.config import GenerateConfig
from synface.generate.generators.diffusion import DiffusionGenerator, drawn_by_embedding
from synface.generate.generators.types import Sample
from synface.generate.plan import Item
from synface.models.sampling import SamplerSettings
from synface.models.weights import WeightsConfig


class CemifaceGenerator(DiffusionGenerator):
    """Samples ``G(E(x), m)``: m or a target similarity by `config.variation`."""

    name = "cemiface"
    modes = ("paper", "relation", "hybrid")
    built_in = "cemiface-tiny"
    attributes = pa.struct(
        [
            ("inquiry", pa.bool_()),
            ("noise_sample", pa.int32()),
            ("similarity_expected", pa.float32()),
            ("cone_cosine", pa.float32()),
        ]
    )

    @classmethod
    def check(cls, config: GenerateConfig, stated: WeightsConfig, settings: SamplerSettings) -> Any:
        """What is asked must be an m, or a target that the weights' dial reaches with this sampler: the dial then."""
        if not drawn_by_embedding(config):
            raise InputError("generator cemiface draws given people: give identities (made by `embed` or `pack`)")
        calibration = stated.details.get("dial")
        asked.check(config.variation, calibration, cls.place(config))
        if config.variation.similarity is None or calibration is None:  # asked.check refused a missing one
            return None
        _check_dial(calibration, settings)
        return calibration

    def _ask(self, item: Item) -> asked.Asked:
        return asked.ask(
            self._config.variation,
            self._dial,
            self._config.seed,
            item.identity.identity_id,
            self._draw_number(item),
        )

    def _sample(self, image: np.ndarray, wanted: asked.Asked, facts: dict[str, Any]) -> Sample:
        target, expected = float(wanted.target_n[0]), float(wanted.expected_n[0])
        return Sample(
            image,
            {
                "inquiry": False,
                "noise_sample": int(wanted.noise_n[0]),
                "similarity_expected": None if np.isnan(expected) else expected,
                **facts,
            },
            m=float(wanted.m_n[0]),
            similarity_target=None if np.isnan(target) else target,
        )


def _check_dial(calibration: dict[str, Any], settings: SamplerSettings) -> None:
    """A dial holds for the sampler that it was measured with."""
    measured = calibration.get("sampler", {})
    used = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()}
    other = [f"{k}: {v!r} then, {used[k]!r} now" for k, v in measured.items() if used.get(k) != v]
    if other:
        raise InputError(
            f"variation.similarity: the dial was calibrated with another sampler ({'; '.join(other)}); leave "
            "cemiface.sampler out, or calibrate with yours"
        )
