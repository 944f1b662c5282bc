"""Configuration of the verb ``calibrate``."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from synface.generate.config import GenerateHow, GenerateNumerics
from synface.generate.variation_config import SamplerOptions
from synface.settings import InputUri, StageConfig


class CalibrateConfig(StageConfig):
    """Generator weights -> the same weights with a dial: which m gives which similarity, by this sampler."""

    verb: ClassVar[str] = "calibrate"

    weights: InputUri = Field(description="folder or URI of `train generator`")
    identities: InputUri = Field(description="identities table of people that the generator was not trained on")
    scorer: InputUri = Field(
        default="heads-fr-tiny", description="recognizer that measures: the one that the generator was trained with"
    )
    num_identities: int = Field(default=100, ge=2, le=1_000_000, description="the curve is measured on these")
    test_identities: int = Field(default=100, ge=1, le=1_000_000, description="and the targets on others, after them")
    samples: int = Field(default=8, ge=2, le=10_000, description="of an identity at each m and each target")
    m_range: tuple[float, float] = Field(default=(-0.25, 1.0), description="of the grid of asked m")
    m_count: int = Field(default=11, ge=2, le=1000, description="values on it")
    targets: tuple[float, ...] = Field(
        default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), description="tested similarities; those beyond the dial are named"
    )
    inquiries_below: float | Literal["threshold"] | None = Field(
        default=None, description="as of generate's cemiface section: keep the inquiries apart"
    )
    sampler: SamplerOptions = SamplerOptions()
    seed: int = Field(default=0, ge=0, lt=2**62)
    numerics: GenerateNumerics = GenerateNumerics()
    how: GenerateHow = GenerateHow()

    @model_validator(mode="after")
    def _grids(self) -> "CalibrateConfig":
        if not -1 <= self.m_range[0] < self.m_range[1] <= 1:
            raise ValueError(f"m_range {list(self.m_range)}: inside [-1, 1], low before high")
        ascending = all(a < b for a, b in zip(self.targets, self.targets[1:], strict=False))
        if len(self.targets) < 2 or not ascending or not all(-1 <= target <= 1 for target in self.targets):
            raise ValueError(f"targets {list(self.targets)}: at least two, ascending, inside [-1, 1]")
        return self
