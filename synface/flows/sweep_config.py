"""Configuration of the verb ``sweep``."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from synface.evaluate import catalog
from synface.settings import How, Settings, StageConfig

#: paths that are fields of the sweep itself
OWN = {"train_recognizer.seed": "seeds", "evaluate.benchmarks": "select_on and test_on", "output": "output"}
GRIDS = ("grid", "linspace")
DRAWS = ("uniform", "loguniform", "randint", "choice")
TRACKERS = ("tensorboard", "mlflow", "wandb")
#: in a point given one by one: what tables and figures call it
NAME = "name"
NAME_LENGTH = 60


class Dimension(Settings):
    """The values of one field: a list is a grid; else a mapping with one of the fields below."""

    grid: list[Any] | None = Field(default=None, min_length=1, description="each of these")
    linspace: tuple[float, float, int] | None = Field(
        default=None, description="low, high, count: a grid of equal steps"
    )
    uniform: tuple[float, float] | None = Field(default=None, description="drawn from [low, high]")
    loguniform: tuple[float, float] | None = Field(default=None, description="drawn, uniform in the logarithm")
    randint: tuple[int, int] | None = Field(default=None, description="an integer drawn from low ... high")
    choice: list[Any] | None = Field(default=None, min_length=1, description="one of these, drawn")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"grid": data} if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _one(self) -> "Dimension":
        given = [name for name in (*GRIDS, *DRAWS) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join((*GRIDS, *DRAWS))}; got {', '.join(given) or 'none'}")
        for name in ("linspace", "uniform", "loguniform", "randint"):
            value = getattr(self, name)
            if value is not None and not value[0] < value[1]:
                raise ValueError(f"{name} {list(value)}: low before high")
        if self.linspace is not None and self.linspace[2] < 2:
            raise ValueError(f"linspace {list(self.linspace)}: a count of at least 2")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform {list(self.loguniform)}: above 0")
        return self

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn, rather than listed."""
        return any(getattr(self, name) is not None for name in DRAWS)


class Rungs(Settings):
    """Shorter trainings before the whole one: first, first x factor, ... epochs, each a training of its own."""

    first: int = Field(ge=1, description="epochs of the shortest")
    factor: int = Field(default=3, ge=2, le=100, description="from one rung to the next; ASHA keeps one in so many")


class SweepHow(How):
    """What decides only the speed of a sweep, and what its failures cost."""

    max_concurrent: int | None = Field(
        default=None, ge=1, description="trials at once; default: as many worker groups as the cluster holds"
    )
    retries: int = Field(default=1, ge=0, le=100, description="times that a failed trial is tried again")
    shared: str | None = Field(
        default=None, description="store of stage outputs, which several sweeps may share; default: OUTPUT/shared"
    )
    driver_memory_gb: float = Field(
        default=0.5, gt=0, description="that a trial's driver asks for where the cluster has no trial_driver resource"
    )
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        default=[], description="Tune's callbacks; mlflow and wandb read their usual environment variables"
    )


class SweepConfig(StageConfig):
    """Trials of one recipe over a search space, each trained with several seeds; the best one is tested at the end.

    A point sets dotted paths of the recipe (`generate.variation.m`, or a whole section: `pack: null`), and may have a
    `name`. Points are the product of `points` with the grids of `space`, or `num_samples` draws.
    """

    verb: ClassVar[str] = "sweep"

    base: str | None = Field(default=None, description="a recipe file; `recipe` is put on top of it")
    recipe: dict[str, Any] = Field(default={}, description="sections of a recipe, as the pipeline's")
    space: dict[str, Dimension] = Field(default={}, description="dotted path -> list, or a mapping: see docs")
    points: list[dict[str, Any]] = Field(default=[], description="points given one by one: dotted path -> value")
    real: str | None = Field(
        default=None, description="name of the point that is trained on real data: the others' gap to it is reported"
    )
    seeds: list[int] = Field(default=[0], min_length=1, description="seeds of the recognizer's training")
    search: Literal["grid", "random", "optuna"] = "grid"
    num_samples: int | None = Field(default=None, ge=1, le=100_000, description="points of random and optuna")
    batch: int = Field(default=4, ge=1, le=10_000, description="optuna: points that are proposed together")
    seed: int = Field(default=0, ge=0, lt=2**62, description="of the draws")
    scheduler: Literal["none", "asha"] = "none"
    rungs: Rungs | None = Field(
        default=None, description="train each trial shorter first, and correlate the ranks; asha stops there"
    )
    metric: str = Field(default="all", description="all, a benchmark, or benchmark/protocol of select_on: accuracy")
    select_on: tuple[str, ...] = Field(default=("heads-val",), description="benchmarks that choose")
    test_on: tuple[str, ...] = Field(default=("heads-v1",), description="benchmarks that are opened once, at the end")
    test_every_point: bool = Field(default=False, description="test all points, not the best alone")
    how: SweepHow = SweepHow()

    @field_validator("select_on", "test_on")
    @classmethod
    def _benchmarks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            catalog.parse_all(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> "SweepConfig":
        if self.base is None and not self.recipe:
            raise ValueError("give base (a recipe file) or recipe (its sections)")
        if not self.space and not self.points:
            raise ValueError("nothing to sweep: give space (path: values) or points")
        self._check_names()
        for path in self.paths:
            if path in OWN:
                raise ValueError(f"space {path}: this is {OWN[path]} of the sweep")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: the same one stands twice")
        drawn = [path for path, values in self.space.items() if values.drawn]
        if self.search == "grid" and (drawn or self.num_samples is not None):
            what = f"space {drawn[0]}: drawn values" if drawn else f"num_samples {self.num_samples}"
            raise ValueError(f"{what} need search random or optuna; a grid takes lists and linspace")
        if self.search != "grid" and (self.num_samples is None or not self.space or self.points):
            raise ValueError(f"search {self.search} needs num_samples and a space, without points")
        if self.search == "optuna" and self.scheduler == "asha":
            raise ValueError("scheduler asha compares points that are known together; use search random, or none")
        if self.scheduler == "asha" and self.rungs is None:
            raise ValueError("scheduler asha needs rungs: {first: EPOCHS, factor: 3}, where it may stop a trial")
        if self.scheduler == "asha" and self.touches_similarity:
            raise ValueError(
                "scheduler asha with a similarity (generate.variation) in the space: easy similarities converge early "
                "(CemiFace: m = 0.7 is best at epoch 10, m = 0 at 38), so stopping early chooses them; use scheduler "
                "none; with rungs it measures how far short trainings rank as whole ones do"
            )
        both = set(self._names(self.select_on)) & set(self._names(self.test_on))
        if both:
            raise ValueError(f"test_on {sorted(both)}: chosen on the same; a test must not have taken part")
        return self

    def _check_names(self) -> None:
        """ValueError for names that would not tell points apart."""
        names = [point[NAME] for point in self.points if NAME in point]
        for name in names:
            if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or names.count(name) > 1:
                raise ValueError(f"points: name {name!r}: a text of 1 to {NAME_LENGTH} letters, another at each point")
        if names and len(names) < len(self.points):
            raise ValueError(f"points: {len(names)} of {len(self.points)} have a name; name all or none")
        if self.real is not None and (self.real not in names or self.space):
            known = "points crossed with a space have none of their own" if self.space else ", ".join(names) or "none"
            raise ValueError(f"real {self.real!r}: the name of one of the points; known: {known}")

    @property
    def paths(self) -> list[str]:
        """Every path that some point sets, in order."""
        given = (path for point in self.points for path in point if path != NAME)
        return list(dict.fromkeys([*given, *self.space]))

    @property
    def touches_similarity(self) -> bool:
        """Whether any point changes what the generator is asked."""
        similarity = ("generate.variation", "train_recognizer.similarity_group")
        return any(path == "generate" or path.startswith(similarity) for path in self.paths)

    @staticmethod
    def _names(benchmarks: tuple[str, ...]) -> list[str]:
        return [spec.name for spec in catalog.parse_all(benchmarks)] if benchmarks else []
