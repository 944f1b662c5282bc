"""Configuration of the verb ``embed``."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from synface.settings import InputUri, MeasuredRate, Numerics, PlacedHow, StageConfig


class EmbedNumerics(Numerics):
    """What decides the last bits of an embedding."""

    micro_batch: int = Field(default=64, ge=1, le=4096, description="images per forward pass, always padded to it")
    threads: int = Field(default=1, ge=1, le=256, description="of each actor")
    device: Literal["cpu", "cuda"] = "cpu"


class EmbedHow(PlacedHow):
    """What decides only speed."""

    actors: int | None = Field(default=None, ge=1, description="default: as many as there are CPUs or GPUs for")
    gpus_per_actor: float = Field(default=1.0, gt=0, description="with device cuda; may be a fraction")
    restarts: int = Field(default=8, ge=-1, description="times that a dead actor is started again; -1: always")
    rate: MeasuredRate = None


class EmbedConfig(StageConfig):
    """Images -> identities table: one unit embedding per identity, the mean of its images'."""

    verb: ClassVar[str] = "embed"

    images: InputUri = Field(description="images table, or a local folder: ID/picture.jpg, or one picture an identity")
    weights: InputUri = Field(default="heads-fr-tiny", description="recognizer: built-in name, folder or URI")
    images_per_identity: int | None = Field(
        default=None, ge=1, description="only the first so many samples of each identity; default: all"
    )
    flip: bool = Field(default=False, description="add the mirror image's features, as verification does")
    similarities: bool = Field(
        default=False, description="keep each image's cosine to its identity's mean, for train's similarity_group"
    )
    numerics: EmbedNumerics = EmbedNumerics()
    how: EmbedHow = EmbedHow()

    @model_validator(mode="after")
    def _all_images(self) -> "EmbedConfig":
        if self.similarities and self.images_per_identity is not None:
            raise ValueError("similarities are those of all images: leave images_per_identity out")
        return self
