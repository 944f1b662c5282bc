"""What is asked of a dialled generator for each sample: m, directly or through the calibrated dial."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synface.core import dial
from synface.core.dial import Dial
from synface.core.errors import InputError
from synface.generate import conditions
from synface.generate.conditions import Factors
from synface.generate.variation_config import Angle, Factor, MixturePart, Variation
from synface.models.denoisers.conditioning import POSE_UNIT
from synface.models.denoisers.config import POSES


@dataclass(frozen=True)
class Asked:
    """Some samples of one identity; the arrays are equally long.

    Attributes:
        m_n: asked of the network, float32.
        target_n: asked of the dial; NaN where m was asked directly.
        expected_n: what the dial promises; NaN likewise.
        noise_n: int64, number of the noise; equal numbers get equal noise.
    """

    m_n: np.ndarray
    target_n: np.ndarray
    expected_n: np.ndarray
    noise_n: np.ndarray


def factors_of(settings: Factor | MixturePart | Angle, unit: float = 1.0) -> Factors:
    """The pure form of a configured factor, or of an angle in a unit of so many degrees."""
    if settings.fixed is not None:
        return conditions.Fixed(settings.fixed / unit)
    if settings.range is not None:
        return conditions.Range(settings.range[0] / unit, settings.range[1] / unit)
    assert isinstance(settings, Factor | Angle)
    if settings.schedule is not None:
        return conditions.Schedule(tuple(value / unit for value in settings.schedule))
    assert isinstance(settings, Factor) and settings.mixture is not None
    parts = tuple(factors_of(part) for part in settings.mixture)
    return conditions.Mixture(parts, tuple(part.weight for part in settings.mixture))  # type: ignore[arg-type]


def extremes(factors: Factors) -> tuple[float, float]:
    """The smallest and largest value that may be drawn."""
    if isinstance(factors, conditions.Fixed):
        return factors.value, factors.value
    if isinstance(factors, conditions.Range):
        return factors.low, factors.high
    if isinstance(factors, conditions.Schedule):
        return min(factors.values), max(factors.values)
    ends = [extremes(part) for part in factors.parts]
    return min(low for low, _ in ends), max(high for _, high in ends)


def check(variation: Variation, calibration: dict[str, Any] | None, where: str) -> None:
    """Refuse, before any work, what the network or its dial cannot be asked.

    Args:
        variation: what is asked.
        calibration: the weights' dial (``details.dial``), if they have one.
        where: the weights, for the message.

    Raises:
        InputError: neither m nor similarity; a target without a dial, or beyond what the dial reaches.
    """
    if variation.m is None and variation.similarity is None:
        raise InputError(
            "variation: say how like the inquiry the samples shall be: variation.similarity (0.5; needs calibrated "
            "weights) or variation.m (in [-1, 1])"
        )
    if variation.similarity is None:
        return
    if calibration is None:
        raise InputError(
            f"variation.similarity: {where} has no dial; run `synface calibrate` and use its output as weights, or "
            "give variation.m"
        )
    low, high = extremes(factors_of(variation.similarity))
    curve = Dial.from_dict(calibration).curve_g
    if low < curve[0] or high > curve[-1]:
        raise InputError(
            f"variation.similarity [{low:g}, {high:g}]: the dial of {where} realises [{curve[0]:.3f}, "
            f"{curve[-1]:.3f}]; ask for a target inside it"
        )


def check_without_m(variation: Variation, generator: str) -> None:
    """InputError where a similarity is asked of weights that know none."""
    for field in ("m", "similarity"):
        if getattr(variation, field) is not None:
            raise InputError(
                f"variation.{field}: generator {generator} knows no similarity factor; leave it out "
                "(variation.cone varies the embedding)"
            )


def check_pose(variation: Variation, known: Sequence[str], where: str) -> None:
    """InputError unless the angles that are asked, if any, are those that the weights `where` know."""
    if variation.pose is None:
        return
    asked = [name for name in POSES if getattr(variation.pose, name) is not None]
    if not known:
        raise InputError(
            f"variation.pose: {where} know no pose; train with --architecture '{{pose: [yaw, pitch]}}' on pictures "
            "that state theirs (docs/generators.md), or leave it out"
        )
    if set(asked) != set(known):
        raise InputError(f"variation.pose: {where} know {', '.join(known)}, asked {', '.join(asked)}; give these")


def pose(variation: Variation, known: Sequence[str], seed: int, identity_id: str, draw_n: np.ndarray) -> np.ndarray:
    """Angles of some samples of one identity, float32 [n, known] in degrees; each depends on its own number alone."""
    angles = []
    for name in known:
        drawn = factors_of(getattr(variation.pose, name), POSE_UNIT)
        angles.append(conditions.factors(drawn, seed, identity_id, draw_n, name) * np.float32(POSE_UNIT))
    return np.stack(angles, 1)


def plain(draw_n: np.ndarray) -> Asked:
    """What samples are asked of a network that knows no m: 1 stands in its place, each has noise of its own."""
    unknown = np.full(len(draw_n), np.nan)
    return Asked(np.ones(len(draw_n), np.float32), unknown, unknown, np.asarray(draw_n, np.int64))


def embeddings(
    variation: Variation,
    seed: int,
    embedding_nd: np.ndarray,
    nearest_n: Sequence[float | None],
    keys: Sequence[conditions.Key],
) -> tuple[np.ndarray, np.ndarray | None]:
    """What to condition on for some samples, one key each: float32 [n, d], and the cosines to the identity's own.

    Args:
        variation: whose cone or beta is applied; without one the embeddings are returned as they are.
        seed: of the run.
        embedding_nd: unit embeddings of the samples' identities.
        nearest_n: their cosines to the nearest other identity; used where cones must not overlap.
        keys: (identity_id, number of the sample).
    """
    cone = variation.cone
    if variation.beta is not None:
        drawn = conditions.gaussian_perturbed(embedding_nd, variation.beta, seed, keys)
        return drawn, (drawn.astype(np.float64) * embedding_nd).sum(1)
    if cone is None:
        return embedding_nd, None
    bound = None
    if cone.separate:
        bound = conditions.non_overlap_bound(np.array([-1.0 if c is None else c for c in nearest_n]))
    cosine = conditions.cone_cosines(seed, keys, cone.lower, bound)
    return conditions.cone_perturbed(embedding_nd, cosine, seed, keys), cosine


def ask(variation: Variation, calibrated: Dial | None, seed: int, identity_id: str, draw_n: np.ndarray) -> Asked:
    """What to ask for some samples of one identity; each depends on its own number alone.

    Args:
        variation: checked.
        calibrated: the dial, where targets are asked.
        seed: of the run.
        identity_id: whose samples.
        draw_n: their numbers.
    """
    settings = variation.m or variation.similarity
    assert settings is not None
    values = conditions.factors(factors_of(settings), seed, identity_id, draw_n)
    row = len(settings.schedule) if variation.share_noise and settings.schedule is not None else 1
    noise = np.asarray(draw_n, np.int64) // row
    unknown = np.full(len(values), np.nan)
    if variation.m is not None:
        return Asked(values, unknown, unknown, noise)
    assert calibrated is not None
    found = dial.ask(calibrated, values)
    return Asked(found.m_n.astype(np.float32), values.astype(np.float64), found.expected_n, noise)
