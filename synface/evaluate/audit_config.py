"""Configuration of the verb ``audit``."""

from typing import ClassVar

from pydantic import Field, model_validator

from synface.evaluate.config import EvaluateHow, EvaluateNumerics
from synface.settings import InputUri, StageConfig


class AuditConfig(StageConfig):
    """Uniqueness, consistency, similarity, separability and leakage of a generated dataset."""

    verb: ClassVar[str] = "audit"

    images: InputUri = Field(description="images table to audit")
    weights: InputUri = Field(default="heads-fr-tiny", description="recognizer that judges: built-in name or URI")
    identities: InputUri | None = Field(
        default=None, description="identities table the images were made from: the packing's promise"
    )
    reference: InputUri | None = Field(
        default=None, description="images table of real (or generator-training) people to look for leaks of"
    )
    r: float = Field(default=0.3, gt=-1, lt=1, description="cosine of uniqueness and consistency (DCFace: 0.3)")
    leak_far: float = Field(
        default=1e-4, gt=0, lt=1, description="the leakage threshold: cosine at this FAR among reference people"
    )
    leak_cosine: float | None = Field(default=None, gt=-1, lt=1, description="a fixed threshold instead")
    worst_pairs: int = Field(default=20, ge=1, le=1000, description="most alike (synthetic, reference) pairs kept")
    style: str | None = Field(
        default=None,
        description="package.module:attribute: uint8 RGB [n, s, s, 3] -> style features [n, d], e.g. Inception with "
        "weights of yours; with a reference: diversity and Frechet distance in that space",
    )
    flip: bool = Field(default=False, description="add the mirror image's features, as verification does")
    numerics: EvaluateNumerics = EvaluateNumerics()
    how: EvaluateHow = EvaluateHow()

    @model_validator(mode="after")
    def _leak(self) -> "AuditConfig":
        if self.leak_cosine is not None and self.reference is None:
            raise ValueError("leak_cosine needs a reference to look for leaks of")
        if self.style is not None and self.reference is None:
            raise ValueError("style needs a reference to compare with")
        return self
