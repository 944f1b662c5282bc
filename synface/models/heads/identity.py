"""Who: an identity is a point in a documented parameter space, a pure function of (domain, seed).

Shape is linear in the morph weights (`morph_weights`): macro blends of ancestry, sex, age, weight and muscle,
117 bipolar modifiers of the face and 58 one-sided asymmetries. Modifiers are drawn with a spread per region,
so that a person has some distinctive parts, and are bounded four times: each one, each region's norm, the
joint norm, and the face's mean move. That keeps faces distinct without caricature.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from synface.core.rng import generator
from synface.models.heads.assets import AGES, ANCESTRIES, SEXES, Assets, load_assets, morph
from synface.models.heads.domains import check_seed, domain
from synface.models.heads.traits import (
    Beard,
    Brows,
    Eyes,
    Hair,
    Skin,
    sample_beard,
    sample_brows,
    sample_eyes,
    sample_hair,
    sample_skin,
)

YOUNG_YEARS, OLD_YEARS = 24.0, 90.0
#: bounds on |modifier|, and on the root mean square of one region's and of all modifiers over their spread
MODIFIER_BOUND, REGION_BOUND, JOINT_BOUND = 0.9, 1.25, 1.08
#: bound on the root mean square move of the face's points by all modifiers (interocular distance 1: 63 mm)
SHAPE_BOUND = 0.058
#: modifiers damped because full strength looks like a caricature or barely like a face: prefix -> factor
DAMPED = {
    "neck/": 0.6,
    "ears/": 0.8,
    "head/head-trans": 0.4,
    "nose/nose-trans-in": 0.12,
    "mouth/mouth-trans-in": 0.12,
    "forehead/forehead-nubian": 0.45,
    "head/head-age": 0.3,
    "head/head-square": 0.3,
    "head/head-rectangular": 0.5,
    "head/head-diamond": 0.6,
    "head/head-triangular": 0.6,
    "eyes/l-eye-push": 0.4,
    "eyes/l-eye-height": 0.6,
    "eyes/l-eye-corner": 0.7,
    "eyes/l-eye-bag": 0.7,
    "eyebrows/eyebrows-angle": 0.6,
    "mouth/mouth-angles": 0.6,
    "mouth/mouth-lowerlip-ext": 0.6,
    "mouth/mouth-upperlip-ext": 0.6,
    "mouth/mouth-lowerlip-middle": 0.5,
    "mouth/mouth-upperlip-middle": 0.5,
    "chin/chin-jaw-drop": 0.6,
    "nose/nose-compression": 0.6,
    "nose/nose-flaring": 0.6,
    "nose/nose-septumangle": 0.6,
    "nose/nose-point-width": 0.7,
    "nose/nose-volume": 0.7,
}
FULL_STRENGTH = 0.030
#: one-sided modifiers (head outlines) reach this share of full strength
ONE_SIDED = 0.7
ASYMMETRY = 0.16


@dataclass(frozen=True)
class Identity:
    """A person. `modifiers` and `asymmetry` follow the order of the asset pack; age in years."""

    domain: str
    seed: int
    sex: float
    age: float
    ancestry: tuple[float, float, float]
    weight: float
    muscle: float
    modifiers: tuple[float, ...]
    asymmetry: tuple[float, ...]
    skin: Skin
    eyes: Eyes
    brows: Brows
    beard: Beard
    hair: Hair

    @property
    def male(self) -> bool:
        """Whether the sex axis (0 female, 1 male) lies on the male side."""
        return self.sex > 0.5


def _normalised(assets: Assets, vertices_v3: np.ndarray) -> np.ndarray:
    """Probe points without position and size (interocular distance 1), float64 [k, 3]."""
    vertices = vertices_v3.astype(np.float64)
    left, right = (vertices[e].mean(0) for e in assets.eyes)
    points = (vertices[assets.probes] - (left + right) / 2) / np.linalg.norm(left - right)
    return points - points.mean(0)


@functools.cache
def modifier_moves() -> np.ndarray:
    """Move of the normalised probe points by each modifier at -1 and +1, float64 [2, 117, k, 3]."""
    assets = load_assets()
    neutral = _normalised(assets, assets.base)
    moves = [
        [
            _normalised(assets, morph(assets, assets.base, dict.fromkeys(targets, 1.0))) - neutral
            for targets in (m.minus or m.plus, m.plus)
        ]
        for m in assets.modifiers
    ]
    return np.array(moves).transpose(1, 0, 2, 3)


@functools.cache
def damping() -> np.ndarray:
    """Factor of each modifier, float64 [117]: strong ones are drawn smaller, and those of DAMPED again.

    The strength of a modifier is the root mean square (or a fifth of the largest) move of the face's points
    at full weight; above FULL_STRENGTH the factor falls as strength^-0.7.
    """
    square = (modifier_moves()[1] ** 2).sum(-1)
    strength = np.maximum(np.sqrt(square.mean(1)), np.sqrt(square.max(1)) / 5) + 1e-6
    factors = np.minimum(1.0, (FULL_STRENGTH / strength) ** 0.7)
    for i, m in enumerate(load_assets().modifiers):
        factors[i] *= min([f for prefix, f in DAMPED.items() if m.name.startswith(prefix)], default=1.0)
    return np.round(factors, 6)


def sample_modifiers(r: np.random.Generator, spread: float) -> np.ndarray:
    """Bounded modifier values, float64 [117].

    ``m_i = spread * d_i * s_region * z_i`` with z normal and s_region log-normal; then |m_i| <= 1, each
    region's and the joint root mean square of ``m / (spread * d)`` are shrunk onto their bounds, and at last
    the mean move of the face's points onto SHAPE_BOUND. One-sided modifiers keep their positive half.
    """
    assets = load_assets()
    factors = damping()
    regions = [m.region for m in assets.modifiers]
    names = sorted(set(regions))
    strength = dict(zip(names, np.exp(r.normal(-0.05, 0.30, len(names))), strict=True))
    unit = r.normal(size=len(regions)) * np.array([strength[n] for n in regions])
    for name in names:
        mask = np.array([n == name for n in regions])
        rms = np.sqrt((unit[mask] ** 2).mean())
        unit[mask] *= min(1.0, REGION_BOUND / rms)
    unit *= min(1.0, JOINT_BOUND / np.sqrt((unit**2).mean()))
    values = np.clip(unit * spread * factors, -MODIFIER_BOUND, MODIFIER_BOUND)
    one_sided = np.array([not m.minus for m in assets.modifiers])
    values = np.where(one_sided, ONE_SIDED * np.maximum(values, 0), values)
    minus, plus = modifier_moves()
    move = np.einsum("m,mkc->kc", np.maximum(-values, 0), minus) + np.einsum("m,mkc->kc", np.maximum(values, 0), plus)
    size = float(np.sqrt((move**2).sum(1).mean()))
    return np.round(values * min(1.0, SHAPE_BOUND / size), 6)


@functools.lru_cache(maxsize=256)
def sample_identity(domain_name: str, seed: int) -> Identity:
    """The person of a seed in a domain; the same for ever within a RENDERER_VERSION.

    Raises:
        InputError: unknown domain, or a seed outside the published splits.
    """
    d = domain(domain_name)
    seed = check_seed(seed)
    r = generator("heads", "identity", d.name, seed)
    ancestry = r.dirichlet([0.42, 0.42, 0.42])
    male = bool(r.random() < 0.5)
    sex = float(np.clip(male + r.normal(0, 0.12), 0, 1))
    sex = max(sex, 0.55) if male else min(sex, 0.45)
    age = float(18 + 62 * r.beta(1.3, 2.2))
    return Identity(
        domain=d.name,
        seed=seed,
        sex=sex,
        age=age,
        ancestry=(float(ancestry[0]), float(ancestry[1]), float(ancestry[2])),
        weight=float(np.clip(r.normal(0.5, 0.2), 0, 1)),
        muscle=float(np.clip(r.normal(0.5, 0.2), 0, 1)),
        modifiers=tuple(float(m) for m in sample_modifiers(r, d.spread)),
        asymmetry=tuple(float(a) for a in np.clip(r.normal(0, ASYMMETRY, len(load_assets().asymmetries)), 0, 0.5)),
        skin=sample_skin(r, ancestry, male, d),
        eyes=sample_eyes(r, ancestry, male),
        brows=sample_brows(r, male),
        beard=sample_beard(r, male, age),
        hair=sample_hair(r, ancestry, male, age, d),
    )


def aged(identity: Identity, shift: float) -> Identity:
    """The same person `shift` years older (or younger), between 16 and 85: shape, weight, hair and skin follow."""
    age = float(np.clip(identity.age + shift, 16.0, 85.0))
    years = age - identity.age
    hair = replace(
        identity.hair, baldness=float(np.clip(identity.hair.baldness + years * 0.006 * identity.male, 0, 1))
    )
    return replace(identity, age=age, weight=float(np.clip(identity.weight + 0.004 * years, 0, 1)), hair=hair)


def grey(identity: Identity) -> float:
    """Share of grey hair, 0..1, from the age and the person's greying age."""
    return float(1 / (1 + np.exp(-(identity.age - identity.hair.grey_age) / 5.0)))


def morph_weights(identity: Identity) -> dict[int, float]:
    """Target number -> weight for the neutral face at the identity's age."""
    assets: Assets = load_assets()
    old = float(np.clip((identity.age - YOUNG_YEARS) / (OLD_YEARS - YOUNG_YEARS), 0, 1))
    ages = dict(zip(AGES, (1 - old, old), strict=True))
    sexes = dict(zip(SEXES, (identity.sex, 1 - identity.sex), strict=True))

    def levels(x: float) -> tuple[float, float, float]:
        return max(0.0, 1 - 2 * x), 1 - abs(2 * x - 1), max(0.0, 2 * x - 1)

    weights: dict[int, float] = {}
    for sex, a in sexes.items():
        for age, b in ages.items():
            for ancestry, c in zip(ANCESTRIES, identity.ancestry, strict=True):
                weights[assets.target[f"macro/{ancestry}-{sex}-{age}"]] = a * b * c
            for m, c in zip(("min", "average", "max"), levels(identity.muscle), strict=True):
                for w, e in zip(("min", "average", "max"), levels(identity.weight), strict=True):
                    number = assets.target.get(f"macro/universal-{sex}-{age}-{m}muscle-{w}weight")
                    if number is not None:
                        weights[number] = a * b * c * e
    for modifier, value in zip(assets.modifiers, identity.modifiers, strict=True):
        for number in modifier.plus if value > 0 else modifier.minus:
            weights[number] = abs(value)
    weights.update(zip(assets.asymmetries, identity.asymmetry, strict=True))
    return weights


@functools.lru_cache(maxsize=4096)
def face_shape(identity: Identity) -> np.ndarray:
    """The neutral face's probe points without position and size, float64 [k, 3] (interocular distance 1)."""
    assets = load_assets()
    return _normalised(assets, morph(assets, assets.base, morph_weights(identity)))


def identity_distance(a: Identity, b: Identity) -> float:
    """How unlike two people look, without any network: 0 for the same person, about 1 for a random pair.

    Root mean square distance of face points (in units of a typical pair's), plus differences of skin tone,
    hair colour and hair style with small weights.
    """
    shape = float(np.sqrt(((face_shape(a) - face_shape(b)) ** 2).sum(1).mean())) / 0.085
    skin = abs(a.skin.tone - b.skin.tone)
    hair = float(np.abs(np.cbrt(a.hair.colour) - np.cbrt(b.hair.colour)).mean())
    style = 0.0 if a.hair.style == b.hair.style else 1.0
    sex = abs(a.sex - b.sex)
    return round(0.7 * shape + 0.35 * skin + 0.3 * hair + 0.06 * style + 0.1 * sex, 6)


def identity_attributes(identity: Identity) -> dict[str, float | int | str | bool]:
    """Flat facts about a person, to slice results by: fixed keys and types."""
    return {
        "domain": identity.domain,
        "seed": identity.seed,
        "sex": "male" if identity.male else "female",
        "age": round(identity.age, 2),
        "ancestry": ANCESTRIES[int(np.argmax(identity.ancestry))],
        "weight": round(identity.weight, 4),
        "skin_tone": round(identity.skin.tone, 4),
        "freckles": round(identity.skin.freckles, 4),
        "hair_style": identity.hair.style,
        "hair_grey": round(grey(identity), 4),
        "beard": bool(max(identity.beard.jaw, identity.beard.moustache, identity.beard.chin) > 0.1),
    }
