"""Configuration of `synface pack`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from synface.settings import How, InputUri, Numerics, StageConfig

SolverName = Literal["lse", "subset"]
InitialName = Literal["auto", "random", "gallery"]


class PackNumerics(Numerics):
    """What decides the last bits of a packing."""

    dtype: Literal["float32", "float64"] = "float32"
    threads: int = Field(default=2, ge=1, le=256, description="threads of the matrix products")
    tile: int = Field(default=512, ge=16, le=16384, description="edge of a Gram tile")


class PackHow(How):
    """What decides only speed or talk."""

    progress_seconds: float = Field(default=5.0, gt=0, description="seconds between lines of progress")


class PackConfig(StageConfig):
    """Identities far apart on the hypersphere of embeddings, or a dispersed subset of a pool."""

    verb: ClassVar[str] = "pack"

    solver: SolverName = Field(default="lse", description="lse: packed points; subset: members of the pool")
    num_identities: int = Field(ge=2, description="how many identities")
    dim: int | None = Field(default=None, ge=2, description="dimension of the embeddings; None: that of the input")
    seed: int = Field(default=0, ge=0, lt=2**62)
    gallery: InputUri | None = Field(default=None, description="identities table that the packing stays near")
    alpha: float = Field(default=0.5, ge=0.0, description="weight of the gallery term (HyperFace: 0.5)")
    gallery_refresh: int = Field(default=10, ge=1, description="passes between gallery look-ups")
    pool: InputUri | None = Field(default=None, description="identities table to choose from (solver subset)")
    initial: InitialName = Field(default="auto", description="start of lse; auto: gallery rows if given")
    start: InputUri | None = Field(default=None, description="identities table to start from; overrides initial")
    passes: int = Field(default=100, ge=1, description="passes of lse over all pairs")
    swap_passes: int = Field(default=3, ge=0, description="rounds of swaps of subset, for each of its sharpnesses")
    target_cosine: float | None = Field(default=None, ge=-1.0, le=1.0, description="lse: stop at this max cosine")
    max_cosine: float | None = Field(default=None, ge=-1.0, le=1.0, description="subset: no pair above this cosine")
    max_seconds: float | None = Field(default=None, gt=0, description="lse: finish by then; depends on the machine")
    numerics: PackNumerics = PackNumerics()
    how: PackHow = PackHow()

    @model_validator(mode="after")
    def _fields_fit_the_solver(self) -> Self:
        if self.solver == "subset":
            _require(self.pool is not None, "solver 'subset' chooses from a pool: give pool")
            for name in ("gallery", "start", "target_cosine", "max_seconds"):
                _require(getattr(self, name) is None, f"{name} belongs to solver 'lse', not to 'subset'")
        else:
            for name in ("pool", "max_cosine"):
                _require(getattr(self, name) is None, f"{name} belongs to solver 'subset', not to {self.solver!r}")
            inputs = (self.gallery, self.start)
            _require(self.dim is not None or any(inputs), "give dim, or a gallery or start that has one")
            _require(self.initial != "gallery" or self.gallery is not None, "initial 'gallery' needs a gallery")
        return self


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
