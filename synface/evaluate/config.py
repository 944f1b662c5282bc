"""Configuration of the verb ``evaluate``."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from synface.evaluate import catalog
from synface.settings import InputUri, MeasuredRate, Numerics, PlacedHow, StageConfig


class EvaluateNumerics(Numerics):
    """What decides the last bits of embeddings."""

    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1, le=256, description="threads of each embedding actor")
    micro_batch: int = Field(default=64, ge=1, le=4096, description="images a forward pass, padded")


class EvaluateHow(PlacedHow):
    """What decides only the speed of an evaluation."""

    actors: int | None = Field(default=None, ge=1, description="embedding actors; default: all CPUs or GPUs")
    rate: MeasuredRate = None
    cache: str | None = Field(
        default=None,
        description="folder of rendered benchmarks and of embeddings; default $SYNFACE_CACHE or ~/.cache/synface",
    )
    embeddings_gb: float = Field(
        default=2.0, ge=0, description="embeddings kept in the cache, the oldest removed beyond this; 0: none kept"
    )


class EvaluateConfig(StageConfig):
    """Verification accuracy, TAR@FAR, ROC and histograms of a recognizer on benchmarks."""

    verb: ClassVar[str] = "evaluate"

    weights: InputUri = Field(description="folder or URI of a recognizer, or a built-in name")
    benchmarks: tuple[str, ...] = Field(
        default=("heads-v1",), description="heads-v1, heads-val, heads-v1/<protocol>, lfw, ... or paths of .bin files"
    )
    far: tuple[float, ...] = Field(default=(0.1, 0.01, 0.001), description="false accept rates to report TAR at")
    far_rule: Literal["strict", "nearest"] = Field(
        default="strict", description="strict: never above the asked FAR; nearest: the nearest, as IJB scripts do"
    )
    groups: dict[str, tuple[str, ...]] = Field(
        default={}, description="benchmarks that each stand for a group of people, e.g. {rfw: [African, Asian, ...]}"
    )
    real: InputUri | None = Field(
        default=None, description="evaluation of the recognizer trained on real data: the gap to real is reported"
    )
    numerics: EvaluateNumerics = EvaluateNumerics()
    how: EvaluateHow = EvaluateHow()

    @field_validator("benchmarks")
    @classmethod
    def _benchmarks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        catalog.parse_all(value)
        return value

    @field_validator("far")
    @classmethod
    def _far(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < far < 1 for far in value) or len(set(value)) != len(value):
            raise ValueError("give distinct rates between 0 and 1, for example 0.01,0.001")
        return value

    @model_validator(mode="after")
    def _groups(self) -> "EvaluateConfig":
        known = [spec.name for spec in catalog.parse_all(self.benchmarks)]
        for name, members in self.groups.items():
            unknown = [m for m in members if m not in known]
            if unknown or len(set(members)) < 2:
                raise ValueError(
                    f"groups.{name} = {list(members)}: at least two of the benchmarks' names: {', '.join(known)}"
                )
        return self
