"""Configuration of the verb ``closed-loop``."""

from typing import ClassVar, Literal

from pydantic import Field

from synface.generate.config import GenerateHow, GenerateNumerics
from synface.generate.variation_config import SamplerOptions, Variation
from synface.settings import InputUri, StageConfig


class ClosedLoopConfig(StageConfig):
    """Identities -> the same identities, asked so that their *generated* images lie far apart.

    Each round generates some images of every identity, embeds them, and corrects what is asked; the round whose
    realised identities are best is kept.
    """

    verb: ClassVar[str] = "closed_loop"

    identities: InputUri = Field(description="identities table to begin with, made by `pack` or `embed`")
    weights: InputUri = Field(description="CemiFace generator: built-in name, folder or URI")
    scorer: InputUri = Field(
        default="heads-fr-tiny", description="recognizer that measures: the one that the generator was trained with"
    )
    judge: InputUri | None = Field(
        default=None,
        description="an independent recognizer: rounds whose people it tells apart less well than the first's are not "
        "kept; the loop finds what its scorer alone sees",
    )
    objective: Literal["spread", "follow"] = Field(
        default="spread",
        description="spread: drive the realised identities apart; follow: realise the embeddings of the table",
    )
    rounds: int = Field(default=4, ge=1, le=1000, description="corrections; images are made once more than that")
    samples: int = Field(default=8, ge=1, le=10_000, description="images of an identity in a round")
    variation: Variation = Field(default=Variation(), description="as of generate: m or a target similarity")
    angle: float = Field(default=0.15, gt=0, lt=1.5, description="spread: radians of a round's step")
    sharpness: float = Field(default=20.0, gt=0, le=1e4, description="spread: how much the nearest alone counts")
    gain: float = Field(default=0.5, gt=0, le=2, description="follow: share of what is missing that is added")
    least_followed: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="rounds below this share of the first round's mean cosine between asked and realised are not kept",
    )
    sampler: SamplerOptions = SamplerOptions()
    seed: int = Field(default=0, ge=0, lt=2**62)
    numerics: GenerateNumerics = GenerateNumerics()
    how: GenerateHow = GenerateHow()
