"""What a sweep will do, before any of it: points, trials, and the place of every stage's output by its content.

A stage's place is ``<store>/<section>/<key>``; the key hashes its configuration with every input by what it holds:
an outside input by its digest, one made in the sweep by its own key. So stages that a point does not change stand at
one place, whoever makes them, in this sweep or the next.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synface.core import rng
from synface.core.errors import InputError
from synface.evaluate import catalog
from synface.flows.config import PipelineConfig
from synface.flows.sweep_config import NAME, Dimension, SweepConfig
from synface.flows.wiring import STEPS, steps
from synface.models import weights
from synface.models.arc2face.files import HUB
from synface.settings import (
    StageConfig,
    build,
    canonical_json,
    config_hash,
    hashed_fields,
    input_uris,
    merge,
    read_recipe,
)
from synface.store import artifact
from synface.store import uri as uris

#: sections that every trial needs, and those that it never runs
NEEDED = ("train_recognizer", "evaluate")
IGNORED = ("report", "recipe", "description")
#: sections of a recipe file that are no stages of a trial
BESIDE = ("pipeline", "sweep", "audit", "import")
KEY_LENGTH = 16
#: the store of stage outputs, below the sweep's output unless another is named
SHARED = "shared"

Point = dict[str, Any]
Stages = dict[str, StageConfig]


@dataclass(frozen=True)
class Rung:
    """One training of a trial, shorter than or as long as the recipe's, with all that leads to its evaluation."""

    epochs: int
    stages: Stages

    @property
    def evaluation(self) -> str:
        """Where its outcome stands."""
        return self.stages["evaluate"].output


@dataclass(frozen=True)
class Trial:
    """A point with one training seed; `rungs` end with the whole training; `name` is the point's, or empty."""

    index: int
    point: int
    values: Point
    seed: int
    rungs: tuple[Rung, ...]
    name: str = ""

    @property
    def whole(self) -> Rung:
        """The training as long as the recipe says."""
        return self.rungs[-1]


def resolved(config: SweepConfig) -> SweepConfig:
    """The same with the base recipe read in, so that its content is asked and not its place.

    Raises:
        InputError: no such recipe, or one without the sections that a trial needs.
    """
    recipe: dict[str, Any] = {"seed": 0}
    if config.base is not None:
        found = read_recipe(config.base, (*STEPS, *BESIDE))
        recipe |= {name: found[name] for name in STEPS if name in found}
        recipe |= {k: v for k, v in found.get("pipeline", {}).items() if k == "seed"}
    recipe = {name: section for name, section in merge(recipe, config.recipe).items() if name not in IGNORED}
    missing = [name for name in NEEDED if recipe.get(name) is None]
    if missing:
        raise InputError(
            f"recipe: has no section {missing[0]!r}, which every trial needs; it has: {', '.join(recipe)}"
        )
    shared = config.how.shared and uris.absolute(config.how.shared)  # workers have another folder
    how = config.how.model_copy(update={"shared": shared})
    return config.model_copy(update={"base": None, "recipe": recipe, "how": how})


def metrics(config: SweepConfig) -> list[str]:
    """Names that `metric` may have."""
    specs = catalog.parse_all(config.select_on)
    return ["all", *(s.name for s in specs), *(f"{s.name}/{p}" for s in specs for p in s.protocols)]


def points(config: SweepConfig) -> list[Point]:
    """Every point, in order.

    Raises:
        InputError: a point that stands twice.
    """
    if config.search == "grid":
        axes = [[(path, v) for v in listed(dimension)] for path, dimension in config.space.items()]
        grid = [dict(pairs) for pairs in itertools.product(*axes)]
        found = [{**given, **point} for given in config.points or [{}] for point in grid]
    else:
        found = [
            {path: draw(dimension, config.seed, path, k) for path, dimension in config.space.items()}
            for k in range(config.num_samples or 0)
        ]
    seen: set[str] = set()
    for point in found:
        text = canonical_json(_values(point))
        if text in seen and config.search == "grid":
            raise InputError(f"space: the point {text} stands twice")
        seen.add(text)
    return [dict(p) for p in {canonical_json(p): p for p in found}.values()]


def _values(point: Point) -> Point:
    """What a point changes, without its name."""
    return {path: value for path, value in point.items() if path != NAME}


def listed(dimension: Dimension) -> list[Any]:
    """The values of a grid, in order."""
    if dimension.linspace is not None:
        low, high, count = dimension.linspace
        return [round(float(v), 9) + 0.0 for v in np.linspace(low, high, count)]
    assert dimension.grid is not None
    return dimension.grid


def draw(dimension: Dimension, seed: int, path: str, number: int) -> Any:
    """The value of the `number`-th random point: a function of seed, path and number alone."""
    stream = rng.generator(seed, path, number, "sweep")
    if dimension.uniform is not None:
        return float(stream.uniform(*dimension.uniform))
    if dimension.loguniform is not None:
        return float(np.exp(stream.uniform(*np.log(dimension.loguniform))))
    if dimension.randint is not None:
        return int(stream.integers(*dimension.randint, endpoint=True))
    values = listed(dimension) if dimension.choice is None else dimension.choice
    return values[int(stream.integers(len(values)))]


def with_values(recipe: dict[str, Any], values: Point) -> dict[str, Any]:
    """The recipe with a point's values in place; a mapping replaces what stood there.

    Raises:
        InputError: a path whose section the recipe does not have, or that goes through a plain value.
    """
    out = dict(recipe)
    for path, value in values.items():
        parts = path.split(".")
        if parts[0] not in out or (len(parts) > 1 and out[parts[0]] is None):
            raise InputError(f"space: {path}: the recipe has no section {parts[0]!r}; it has: {', '.join(recipe)}")
        node: Any = out
        for part in parts[:-1]:
            node[part] = dict(node.get(part) or {}) if isinstance(node.get(part), dict | None) else node[part]
            node = node[part]
            if not isinstance(node, dict):
                raise InputError(f"space: {path}: {part!r} is {node!r}, which has no fields")
        node[parts[-1]] = value
    return out


class Planner:
    """Places stages of one sweep; remembers digests, so that each outside input is read once."""

    def __init__(self, config: SweepConfig):
        self.config = config
        self.store = config.how.shared or uris.join(config.output, SHARED)
        #: place of a stage's output -> its key, for stages placed so far
        self._keys: dict[str, str] = {}
        self._digests: dict[str, str | None] = {}

    def trial(self, index: int, point: int, given: Point, seed: int) -> Trial:
        """One trial, all of its stages built and placed.

        Raises:
            InputError: a value that its section refuses; names the point.
        """
        values = _values(given)
        try:
            whole = self.stages(values, seed, None, self.config.select_on)
        except InputError as error:
            raise InputError(f"point {values}: {error}") from None
        epochs = whole["train_recognizer"].epochs  # type: ignore[attr-defined]
        shorter = [Rung(e, self.stages(values, seed, e, self.config.select_on)) for e in rungs(self.config, epochs)]
        return Trial(index, point, values, seed, (*shorter, Rung(epochs, whole)), given.get(NAME, ""))

    def stages(self, values: Point, seed: int, epochs: int | None, benchmarks: tuple[str, ...]) -> Stages:
        """Section -> configuration at its place, for one training and one evaluation."""
        recipe = with_values(self.config.recipe, values)
        for name in NEEDED:
            if recipe[name] is None:
                raise InputError(f"{name}: null, but every trial needs it")
        training: dict[str, Any] = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
        data = {
            **recipe,
            "output": self.store,
            "train_recognizer": {**recipe["train_recognizer"], **training},
            "evaluate": {**recipe["evaluate"], "benchmarks": list(benchmarks)},
        }
        return steps(build(PipelineConfig, data), self._place)

    def test(self, trial: Trial) -> StageConfig:
        """The evaluation of a trial's recognizer on the test benchmarks."""
        stages = self.stages(trial.values, trial.seed, None, self.config.test_on)
        return stages["evaluate"]

    def missing(self, stages: Stages) -> list[str]:
        """Inputs from outside of the sweep that are not there: ``section.field URI``."""
        return [
            f"{name}.{field} {uri}"
            for name, stage in stages.items()
            for field, uri in input_uris(stage).items()
            if uri not in self._keys and self._digest(uri) is None
        ]

    def outside(self, uri: str) -> bool:
        """Whether an input is none of the sweep's own outputs."""
        return uri not in self._keys

    def _place(self, name: str, stage: StageConfig) -> str:
        digests = {field: self._content(uri) for field, uri in input_uris(stage).items()}
        key = config_hash({"section": name, **hashed_fields(stage, digests)})[:KEY_LENGTH]
        place = uris.join(self.store, name, key)
        self._keys[place] = key
        return place

    def _content(self, uri: str) -> str:
        return self._keys.get(uri) or self._digest(uri) or f"not there yet: {uri}"

    def _digest(self, uri: str) -> str | None:
        if uri not in self._digests:
            self._digests[uri] = digest(uri)
        return self._digests[uri]


def digest(uri: str) -> str | None:
    """What an outside input holds; None where nothing stands. A folder of plain pictures counts by its place."""
    uri = str(weights.PRETRAINED.get(uri, uri))
    if uri.startswith(HUB):
        return f"at {uri}"
    if artifact.load_manifest(uri) is not None or uris.is_file(uri):
        return artifact.content_digest(uri)
    stated = uris.join(uri, weights.CONFIG_FILE)
    if uris.exists(stated):
        return artifact.sha256_hex(uris.read_bytes(stated))
    return f"at {uri}" if uris.exists(uri) else None


def rungs(config: SweepConfig, epochs: int) -> list[int]:
    """Epochs of the shorter trainings: first, first x factor, ... below the whole."""
    if config.rungs is None:
        return []
    found = itertools.takewhile(
        lambda e: e < epochs, (config.rungs.first * config.rungs.factor**k for k in itertools.count())
    )
    return list(found)


def trials(config: SweepConfig, planner: Planner) -> list[Trial]:
    """Every trial that is known in advance; none of search optuna.

    Args:
        config: resolved.
        planner: of the same configuration.
    """
    if config.metric not in metrics(config):
        known = ", ".join(metrics(config))
        raise InputError(f"metric {config.metric!r}: select_on {list(config.select_on)} gives no such; known: {known}")
    return crossed(config, planner, [] if config.search == "optuna" else points(config))


def crossed(config: SweepConfig, planner: Planner, found: Sequence[Point], after: Sequence[Trial] = ()) -> list[Trial]:
    """Points with every seed, numbered on from the trials before.

    Seeds are outermost, so that neighbours in the queue share no dataset that is still to be made.
    """
    first_point = 1 + max((t.point for t in after), default=-1)
    pairs = [(seed, number, values) for seed in config.seeds for number, values in enumerate(found, first_point)]
    return [planner.trial(len(after) + i, number, values, seed) for i, (seed, number, values) in enumerate(pairs)]


def uses(found: Iterable[Trial]) -> dict[str, dict[str, int]]:
    """Section -> place -> how many trials need it."""
    out: dict[str, dict[str, int]] = {}
    for trial in found:
        places = {(name, stage.output) for rung in trial.rungs for name, stage in rung.stages.items()}
        for name, place in sorted(places):
            row = out.setdefault(name, {})
            row[place] = row.get(place, 0) + 1
    return out


def distinct(found: Iterable[Trial]) -> list[tuple[str, StageConfig]]:
    """(section, stage) of every stage of some trials once."""
    seen: dict[str, tuple[str, StageConfig]] = {}
    for trial in found:
        for rung in trial.rungs:
            for name, stage in rung.stages.items():
                seen.setdefault(stage.output, (name, stage))
    return list(seen.values())
