"""Configuration of `synface pack`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from synface.settings import InputUri, MeasuredRate, Numerics, PlacedHow, StageConfig

SolverName = Literal["lse", "subset", "code", "algorithm1", "algorithm2", "row_max"]
InitialName = Literal["auto", "random", "gallery", "code"]

#: of a gallery's energy, in whose directions lse packs where nothing else is asked: a generator renders what it has
#: learned, and identities packed in all directions came out more alike than unpacked ones (docs/cemiface.md)
SAFE_SHARE = 0.9
ITEM_BYTES = {"float32": 4, "float64": 8}
# fields that only some solvers read; anything else about a field holds for every solver that makes points
ONLY_FOR = {
    "pool": ("subset",),
    "max_cosine": ("subset",),
    "target_cosine": ("lse",),
    "max_seconds": ("lse",),
    "keep": ("lse",),
    "tau_lo": ("lse",),
    "tau_hi": ("lse",),
    "scorer": ("lse",),
    "start": ("lse", "algorithm1", "algorithm2", "row_max"),
    "gallery": ("lse", "algorithm1", "algorithm2", "row_max"),
    "subspace": ("lse", "algorithm1", "algorithm2", "row_max"),
    "whiten": ("lse", "algorithm1", "algorithm2", "row_max"),
}


class PackNumerics(Numerics):
    """What decides the last bits of a packing."""

    dtype: Literal["float32", "float64"] = "float32"
    threads: int = Field(default=2, ge=1, le=256, description="threads of the matrix products")
    tile: int = Field(default=512, ge=16, le=16384, description="edge of a Gram tile")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where lse computes; cuda: one GPU a worker")
    early_precision: Literal["highest", "high", "medium"] | None = Field(
        default=None,
        description="lse: of float32 products in the first four fifths of the passes, in PyTorch's words (high: TF32 "
        "on a GPU); default: high on cuda, highest on cpu; the rest is always in full precision",
    )

    @property
    def early(self) -> Literal["highest", "high", "medium"]:
        """The early precision that holds on this device."""
        return self.early_precision or ("high" if self.device == "cuda" else "highest")


class PackHow(PlacedHow):
    """What decides only speed or talk."""

    progress_seconds: float = Field(default=5.0, gt=0, description="seconds between lines of progress")
    workers: int = Field(default=1, ge=1, le=1024, description="lse: shards of the rows, in Ray actors if more than 1")
    cpus_per_worker: float | None = Field(
        default=None, gt=0, description="default: one per thread, fewer where the cluster has fewer"
    )
    checkpoint_passes: int = Field(default=25, ge=1, description="lse: passes between checkpoints at the output")
    exchange_timeout: float = Field(default=300.0, gt=0, description="seconds after which a silent worker is lost")
    restarts: int = Field(default=8, ge=0, description="times in a row that lost workers are replaced")
    rate: MeasuredRate = None


class PackConfig(StageConfig):
    """Identities far apart on the hypersphere of embeddings, or a dispersed subset of a pool.

    Solvers: lse (log-sum-exp continuation), subset (members of a pool), code (an exact construction), and for
    comparison algorithm1, algorithm2 (HyperFace's own) and row_max (Mettes et al.).
    """

    verb: ClassVar[str] = "pack"
    algorithm_version: ClassVar[int] = 4

    solver: SolverName = Field(default="lse", description="lse, subset, code, algorithm1, algorithm2, row_max")
    num_identities: int = Field(ge=2, description="how many identities")
    dim: int | None = Field(default=None, ge=2, description="dimension of the embeddings; None: that of the input")
    seed: int = Field(default=0, ge=0, lt=2**62)
    gallery: InputUri | None = Field(default=None, description="identities table that the packing stays near")
    alpha: float = Field(default=0.5, ge=0.0, description="weight of the gallery term (HyperFace: 0.5)")
    gallery_refresh: int = Field(default=10, ge=1, description="passes between gallery look-ups")
    tau_lo: float | None = Field(default=None, ge=-1, le=1, description="least cosine to the nearest gallery row")
    tau_hi: float | None = Field(default=None, ge=-1, le=1, description="largest cosine to any gallery row")
    scorer: InputUri | None = Field(
        default=None, description="an evaluation: for a gallery of real people tau_hi is its threshold at FAR 1e-4"
    )
    subspace: Annotated[float, Field(gt=0, le=1)] | Literal["all"] | None = Field(
        default=None,
        description="pack inside the directions that hold this share of the gallery's energy, or in all; default: 0.9 "
        "for lse with a gallery, without whiten and tau_lo; else all",
    )
    whiten: Literal["start", "space"] | None = Field(
        default=None, description="by the gallery: start with an even spectrum, or pack in whitened coordinates"
    )
    trade_off: tuple[float, ...] = Field(
        default=(), description="further weights alpha to solve for: max cosine against gallery distance"
    )
    pool: InputUri | None = Field(default=None, description="identities table to choose from (solver subset)")
    initial: InitialName = Field(default="auto", description="auto: gallery rows, else a code where it pays")
    start: InputUri | None = Field(default=None, description="identities table to start from; overrides initial")
    keep: InputUri | None = Field(default=None, description="identities that stay in place; new ones are added")
    passes: int = Field(default=100, ge=1, description="passes over all pairs; steps of the other algorithms")
    learning_rate: float = Field(default=1e-3, gt=0, description="of algorithm1, algorithm2 and row_max (Adam)")
    batch: int = Field(default=1000, ge=2, description="rows in a step of algorithm2")
    swap_passes: int = Field(default=3, ge=0, description="rounds of swaps of subset, per sharpness")
    target_cosine: float | None = Field(default=None, ge=-1, le=1, description="lse: stop at this max cosine")
    max_cosine: float | None = Field(default=None, ge=-1, le=1, description="subset: no pair above this cosine")
    max_seconds: float | None = Field(default=None, gt=0, description="lse: finish by then; depends on the machine")
    numerics: PackNumerics = PackNumerics()
    how: PackHow = PackHow()

    @model_validator(mode="after")
    def _fields_fit_the_solver(self) -> Self:
        _require(self.how.workers == 1 or self.solver == "lse", f"how.workers > 1 is for lse, not {self.solver!r}")
        _require(self.numerics.device == "cpu" or self.solver == "lse", f"cuda is for lse, not {self.solver!r}")
        for name, solvers in ONLY_FOR.items():
            fits = getattr(self, name) is None or self.solver in solvers
            _require(fits, f"{name} belongs to solver {', '.join(solvers)}, not to {self.solver!r}")
        curve = not self.trade_off or (self.solver == "lse" and self.gallery is not None)
        _require(curve, "trade_off is a curve of solver lse with a gallery")
        _require(all(a >= 0 for a in self.trade_off), "trade_off: every weight alpha is at least 0")
        if self.solver == "subset":
            _require(self.pool is not None, "solver 'subset' chooses from a pool: give pool")
            return self
        _require(self.dim is not None or any((self.gallery, self.start, self.keep)), "give dim, or a table with one")
        for name in ("tau_lo", "tau_hi", "scorer", "subspace", "whiten"):
            _require(getattr(self, name) is None or self.gallery is not None, f"{name} needs a gallery")
        _require(self.initial != "gallery" or self.gallery is not None, "initial 'gallery' needs a gallery")
        for name in ("tau_lo", "tau_hi", "scorer", "target_cosine"):
            clash = self.whiten == "space" and getattr(self, name) is not None
            _require(not clash, f"{name}: whiten 'space' solves for other cosines than the embeddings'; use 'start'")
        _require(self.scorer is None or self.tau_hi is None, "give tau_hi or a scorer to take it from, not both")
        if self.tau_lo is not None and self.tau_hi is not None:
            _require(self.tau_lo <= self.tau_hi, f"tau_lo = {self.tau_lo} is above tau_hi = {self.tau_hi}")
        return self

    @property
    def share(self) -> float | None:
        """Of the gallery's energy, in whose directions points move; None: in all directions."""
        if isinstance(self.subspace, float):
            return self.subspace
        free = self.solver != "lse" or self.gallery is None or self.whiten is not None or self.tau_lo is not None
        return None if free or self.subspace == "all" else SAFE_SHARE


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
