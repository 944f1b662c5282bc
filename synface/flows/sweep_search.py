"""Points that depend on outcomes: Optuna, asked for a batch at a time.

A batch is a function of the seed and of what is known of the points before it, told anew each time. So a killed sweep
finds its way again without a store of its own: the first batch is the same, its outcomes stand, and so on.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from synface.core import rng
from synface.core.errors import InputError
from synface.flows.sweep_config import Dimension, SweepConfig
from synface.flows.sweep_plan import Point, listed


def check() -> Any:
    """The optuna package.

    Raises:
        InputError: not installed.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as missing:
        raise InputError('search optuna needs optuna: pip install "synface[optuna]"') from missing
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def suggest(config: SweepConfig, known: Sequence[tuple[Point, float | None]], count: int) -> list[Point]:
    """The next points.

    Args:
        config: its space and seed.
        known: points so far, in order, with the mean of the metric; None where the point failed.
        count: how many.
    """
    optuna = check()
    axes = {path: _axis(optuna, dimension) for path, dimension in config.space.items()}
    seed = rng.derived_seed(config.seed, len(known), "optuna") % 2**32
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    )
    for point, value in known:
        params = {path: _to_axis(config.space[path], point[path]) for path in axes}
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=axes, value=value))
    asked = [study.ask(axes) for _ in range(count)]
    return [{path: _from_axis(config.space[path], trial.params[path]) for path in axes} for trial in asked]


def _axis(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.uniform is not None:
        return kinds.FloatDistribution(*dimension.uniform)
    if dimension.loguniform is not None:
        return kinds.FloatDistribution(*dimension.loguniform, log=True)
    if dimension.randint is not None:
        return kinds.IntDistribution(*dimension.randint)
    return kinds.CategoricalDistribution(list(range(len(_values(dimension)))))


def _values(dimension: Dimension) -> list[Any]:
    return listed(dimension) if dimension.choice is None else dimension.choice


def _is_number(dimension: Dimension) -> bool:
    return any(v is not None for v in (dimension.uniform, dimension.loguniform, dimension.randint))


def _to_axis(dimension: Dimension, value: Any) -> Any:
    return value if _is_number(dimension) else _values(dimension).index(value)


def _from_axis(dimension: Dimension, value: Any) -> Any:
    return value if _is_number(dimension) else _values(dimension)[value]
