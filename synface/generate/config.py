"""Configuration of the verb ``generate``."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synface.generate.arc2face_config import Arc2faceOptions
from synface.generate.scoring_config import Scoring
from synface.generate.variation_config import DcfaceOptions, DiffusionOptions, Variation
from synface.settings import InputUri, MeasuredRate, Numerics, PlacedHow, Settings, StageConfig


class HeadsOptions(Settings):
    """Options of the generator ``heads``."""

    split: Literal["train", "val", "test"] = Field(
        default="train", description="seed range of the first-N identities; a table's own seeds stand as they are"
    )
    stress: Literal["any", "frontal", "pose", "age", "quality"] = Field(
        default="any", description="what the variation stresses"
    )
    supersampling: int = Field(
        default=2, ge=1, le=4, description="rendered at this many times the size, then averaged"
    )
    shadows: bool = True


class Contexts(Settings):
    """Identities that the run makes itself, for generators that draw an embedding."""

    uniform: bool = Field(
        default=False, description="num_identities points uniform on the sphere of embeddings (IDiff-Face)"
    )
    mixup: int | None = Field(
        default=None, ge=1, le=10**9, description="so many mixtures of two of the given identities (SynFace)"
    )
    share: tuple[float, float] = Field(
        default=(0.0, 1.0), description="mixup: share of the first parent, drawn uniformly between these"
    )

    @model_validator(mode="after")
    def _share(self) -> "Contexts":
        if not 0 <= self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share {list(self.share)}: inside [0, 1], low before high")
        return self


class Balance(Settings):
    """Equally many identities of every group of people, by the nearest person whose group is known."""

    people: InputUri = Field(description="identities table of people whose groups are known, e.g. the gallery")
    labels: InputUri = Field(
        description="their groups: their images table, by its attributes, or a .csv file with identity_id"
    )
    by: tuple[str, ...] = Field(default=("sex", "ancestry"), min_length=1, description="attributes or columns")


#: generators that do not take numerics.dtype, and why
OTHER_DTYPE = {"heads": "heads are drawn without a network: leave it out", "arc2face": "use arc2face.dtype"}


class GenerateNumerics(Numerics):
    """What decides the last bits of generated images."""

    micro_batch: int = Field(
        default=16, ge=1, le=4096, description="images per forward pass; the last one is padded to it"
    )
    threads_per_actor: int = Field(default=1, ge=1, le=256)
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the products of cemiface, dcface and idiffface (autocast)"
    )

    @model_validator(mode="after")
    def _dtype(self) -> "GenerateNumerics":
        if self.dtype == "float16" and self.device == "cpu":
            raise ValueError("dtype float16 needs device cuda; on the CPU use bfloat16 or float32")
        return self


class GenerateHow(PlacedHow):
    """What decides only the speed of generation."""

    min_actors: int = Field(default=1, ge=1, description="the actor pool shrinks to this")
    max_actors: int | None = Field(
        default=None,
        ge=1,
        description="and grows to this; default: all CPUs or GPUs; under an autoscaler one actor per five shards",
    )
    cpus_per_actor: float | None = Field(
        default=None, gt=0, description="default: 0.89 per thread, so that writers always find room"
    )
    gpus_per_actor: float = Field(default=0.0, ge=0, description="may be a fraction; actors then share a GPU")
    writers: int | None = Field(default=None, ge=1, description="writer actors at most; default: one for 8 actors")
    cpus_per_writer: float = Field(
        default=0.01,
        gt=0,
        description="held as long as the run lasts; little, or runs beside each other wait for ever",
    )
    restarts: int = Field(
        default=8, ge=-1, description="times that a dead actor is started again, and its shard with it; -1: always"
    )
    rounds: int = Field(default=2, ge=1, le=10, description="passes over shards whose work was lost")
    progress_seconds: float = Field(default=5.0, gt=0)
    max_hours: float | None = Field(
        default=None, gt=0, description="stop cleanly after this; the same command continues"
    )
    max_cost: float | None = Field(
        default=None, gt=0, description="stop cleanly when so much is spent, in the unit of cost_per_hour"
    )
    cost_per_hour: float | None = Field(default=None, gt=0, description="price of one node for an hour")
    rate: MeasuredRate = None
    bytes_per_image: float | None = Field(
        default=None, gt=0, description="of the encoded image, as you measured it: for --dry-run's estimate"
    )
    append: bool = Field(
        default=False,
        description="add identities or samples to the finished table that stands at output, as its next version",
    )

    @model_validator(mode="after")
    def _pool(self) -> "GenerateHow":
        if self.max_actors is not None and self.max_actors < self.min_actors:
            raise ValueError(f"max_actors {self.max_actors} is below min_actors {self.min_actors}")
        if self.max_cost is not None and self.cost_per_hour is None:
            raise ValueError("max_cost needs cost_per_hour, the price of one node for an hour")
        return self


class GenerateConfig(StageConfig):
    """Identities -> images table, streamed through generator actors to any URI.

    Who: `identities`, the URI of an identities table; or `num_identities` (with `first_seed` and `domain`),
    the first ones of a parametric generator's own space, which is how a pool of candidates is made; or `contexts`:
    points of the sphere, mixtures of the table's identities.
    """

    verb: ClassVar[str] = "generate"

    generator: str = Field(default="heads", description="a known name, or package.module:attribute of your own")
    identities: InputUri | None = None
    num_identities: int | None = Field(default=None, ge=1, le=10**9)
    first_seed: int = Field(default=0, ge=0, lt=10**9)
    contexts: Contexts = Contexts()
    balance: Balance | None = Field(
        default=None, description="keep equally many identities of every group of people (sex, ancestry, ...)"
    )
    domain: str | None = Field(default=None, description="default: the identities' own source")
    images_per_identity: int = Field(default=16, ge=1, le=100_000)
    image_size: int = Field(default=112, ge=16, le=1024, description="pixels; ArcFace crop of this size")
    seed: int = Field(default=0, ge=0, lt=2**63)
    format: Literal["jpeg", "png", "webp"] = "jpeg"
    quality: int = Field(default=95, ge=1, le=100, description="of jpeg and webp")
    images_per_shard: int | None = Field(
        default=None, ge=1, le=1_000_000, description="rounded to whole identities; default: a minute's work or less"
    )
    variation: Variation = Variation()
    scoring: Scoring = Scoring()
    heads: HeadsOptions = HeadsOptions()
    arc2face: Arc2faceOptions = Arc2faceOptions()
    cemiface: DiffusionOptions = DiffusionOptions()
    dcface: DcfaceOptions = DcfaceOptions()
    idiffface: DiffusionOptions = DiffusionOptions()
    options: dict[str, Any] = Field(default={}, description="options of a generator of your own")
    numerics: GenerateNumerics = GenerateNumerics()
    how: GenerateHow = GenerateHow()

    @model_validator(mode="after")
    def _source(self) -> "GenerateConfig":
        if (self.identities is None) == (self.num_identities is None):
            raise ValueError(
                "give either identities (URI of an identities table) or num_identities (the first ones of a "
                "parametric generator's own space)"
            )
        if self.identities is not None and self.first_seed:
            raise ValueError("first_seed belongs to num_identities; an identities table has its own seeds")
        if self.contexts.uniform and self.num_identities is None:
            raise ValueError("contexts.uniform makes num_identities points: give num_identities instead of identities")
        if self.contexts.mixup is not None and self.identities is None:
            raise ValueError("contexts.mixup mixes given people: give identities")
        if self.balance is not None and self.identities is None and not self.contexts.uniform:
            raise ValueError("balance looks at embeddings: give identities, or contexts.uniform")
        if self.generator == "heads" and self.variation != Variation():
            raise ValueError("variation is for generators that draw an embedding; heads varies by heads.stress")
        if self.numerics.dtype != "float32" and self.generator in OTHER_DTYPE:
            raise ValueError(f"numerics.dtype = {self.numerics.dtype!r}: {OTHER_DTYPE[self.generator]}")
        if self.options and ":" not in self.generator:
            raise ValueError(
                f"options are for package.module:attribute generators; use the section {self.generator!r}"
            )
        return self
