"""Configuration of the verbs ``evaluate ijb`` and ``evaluate tinyface``: protocols over folders of face images."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synface.evaluate.config import EvaluateNumerics
from synface.settings import InputUri, MeasuredRate, PlacedHow, StageConfig

Rate = Annotated[float, Field(gt=0, lt=1)]
Rank = Annotated[int, Field(ge=1)]


class FacesHow(PlacedHow):
    """What decides only the speed of an evaluation."""

    actors: int | None = Field(default=None, ge=1, description="embedding actors; default: all CPUs or GPUs")
    rate: MeasuredRate = None


class FacesConfig(StageConfig):
    """What every protocol over a folder of faces needs."""

    weights: InputUri = Field(description="folder or URI of a recognizer, or a built-in name")
    faces: InputUri = Field(description="folder of the images; hashed by its files' names and sizes")
    numerics: EvaluateNumerics = EvaluateNumerics()
    how: FacesHow = FacesHow()


class EvaluateIjbConfig(FacesConfig):
    """1:1 TAR@FAR and 1:N identification on IJB-B or IJB-C."""

    verb: ClassVar[str] = "evaluate_ijb"

    protocol: InputUri = Field(description="folder of the protocol files (meta); hashed by their content")
    far: tuple[Rate, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    fpir: tuple[Rate, ...] = (0.01, 0.1)
    ranks: tuple[Rank, ...] = (1, 5, 10)
    far_rule: Literal["strict", "nearest"] = Field(
        default="strict", description="strict: never above the asked FAR; nearest: the nearest, as IJB scripts do"
    )
    flip: bool = Field(default=True, description="add the mirror image's features")
    keep_norm: bool = Field(default=True, description="faces weigh by their feature's norm; false: unit features")
    detector_score: bool = Field(default=True, description="faces weigh by the detector's score")


class EvaluateTinyfaceConfig(FacesConfig):
    """Rank-k identification on TinyFace."""

    verb: ClassVar[str] = "evaluate_tinyface"

    ranks: tuple[Rank, ...] = (1, 5, 20)
    flip: bool = Field(default=True, description="add the mirror image's features")
