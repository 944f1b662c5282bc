"""What the surface of a person is made of: skin, eyes, brows, beard and hair, and how they are drawn.

Colours are linear RGB in [0, 1]; rows of chance tables are the ancestries of `assets.ANCESTRIES`.
"""

from dataclasses import dataclass

import numpy as np

from synface.models.heads.domains import Domain

Colour = tuple[float, float, float]

_SKIN_DARK, _SKIN_MIDDLE, _SKIN_LIGHT = (0.12, 0.062, 0.038), (0.47, 0.275, 0.178), (0.80, 0.575, 0.465)
_HAIR = {
    "black": (0.018, 0.015, 0.014),
    "dark_brown": (0.055, 0.032, 0.020),
    "brown": (0.13, 0.072, 0.038),
    "light_brown": (0.26, 0.16, 0.085),
    "blond": (0.50, 0.36, 0.19),
    "platinum": (0.68, 0.57, 0.40),
    "auburn": (0.22, 0.075, 0.032),
    "ginger": (0.40, 0.155, 0.055),
}
#: rows: african, asian, caucasian
_HAIR_CHANCE = np.array(
    [
        [0.75, 0.18, 0.05, 0.01, 0.00, 0.00, 0.01, 0.00],
        [0.70, 0.22, 0.06, 0.01, 0.00, 0.00, 0.01, 0.00],
        [0.12, 0.22, 0.24, 0.16, 0.12, 0.04, 0.05, 0.05],
    ]
)
_DYES = ((0.45, 0.05, 0.10), (0.08, 0.20, 0.45), (0.55, 0.22, 0.42), (0.10, 0.35, 0.25), (0.30, 0.10, 0.45))
_EYES = (
    (0.065, 0.030, 0.015),
    (0.16, 0.085, 0.035),
    (0.20, 0.17, 0.07),
    (0.15, 0.24, 0.15),
    (0.16, 0.29, 0.45),
    (0.30, 0.36, 0.40),
)
_EYE_CHANCE = np.array(
    [[0.75, 0.2, 0.03, 0.01, 0.01, 0], [0.72, 0.24, 0.03, 0.01, 0, 0], [0.18, 0.22, 0.15, 0.14, 0.22, 0.09]]
)


@dataclass(frozen=True)
class Skin:
    """Skin colour and texture; amounts are about 0..1."""

    tone: float
    colour: Colour
    lip: Colour
    mottle: float
    freckles: float
    redness: float
    eye_shadow: float
    gloss: float
    wrinkles: float
    pores: float
    moles: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Eyes:
    """Iris colour, iris radius (dm), dark rim 0..1, redness of the white 0..1, liner 0..1."""

    iris: Colour
    radius: float
    rim: float
    bloodshot: float
    liner: float


@dataclass(frozen=True)
class Brows:
    """Height, arch and slope (dm), inner and outer end (dm from the middle), thickness (dm), density 0..1."""

    height: float
    arch: float
    slope: float
    inner: float
    outer: float
    thickness: float
    density: float
    darkness: float


@dataclass(frozen=True)
class Beard:
    """Coverage 0..1 of cheeks and jaw, moustache and chin, and the length of the longest hair (dm)."""

    jaw: float
    moustache: float
    chin: float
    line: float
    length: float


@dataclass(frozen=True)
class Hair:
    """Style (`hair.STYLES`), colour, and the person's own version of the style."""

    style: str
    colour: Colour
    length: float
    volume: float
    curl: float
    part: float
    fringe: float
    front: float
    temple: float
    baldness: float
    grey_age: float
    seed: int


def _colour(rgb: np.ndarray | tuple[float, ...]) -> Colour:
    r, g, b = (round(float(min(1.0, max(0.004, c))), 6) for c in rgb)
    return r, g, b


def skin_colour(tone: float, undertone: float, warmth: float) -> np.ndarray:
    """Linear RGB for tone 0 (dark) .. 1 (light), shifted along red-yellow (undertone) and saturation."""
    lo, mid, hi = np.array(_SKIN_DARK), np.array(_SKIN_MIDDLE), np.array(_SKIN_LIGHT)
    base = lo + (mid - lo) * 2 * tone if tone < 0.5 else mid + (hi - mid) * (2 * tone - 1)
    grey = base.mean()
    base = grey + (base - grey) * (1 + warmth)
    return base * np.array([1 + 0.05 * undertone, 1 - 0.03 * undertone, 1 - 0.10 * undertone])


def sample_skin(r: np.random.Generator, ancestry: np.ndarray, male: bool, d: Domain) -> Skin:
    """Skin of a person: tone from ancestry, texture scaled by the domain's `skin_spread`."""
    k = d.skin_spread
    tone = float(np.clip(ancestry @ np.array([0.16, 0.66, 0.80]) + r.normal(0, 0.12 * (0.4 + 0.6 * k)), 0.02, 1))
    colour = skin_colour(tone, r.normal(0, k), r.normal(0, 0.12 * k))
    made_up = (not male) and r.random() < 0.35
    tint = np.array([0.98, 0.66, 0.66]) if not made_up else np.array([1.0, 0.42, 0.45])
    lip = colour * tint * np.exp(r.normal(0, 0.08, 3)) * np.exp(r.normal(0, 0.10))
    moles = tuple(
        (float(r.uniform(-0.6, 0.6)), float(r.uniform(6.35, 7.9)), float(r.uniform(0.008, 0.02)))
        for _ in range(r.poisson(2.2 * k))
    )
    return Skin(
        tone=tone,
        colour=_colour(colour),
        lip=_colour(lip),
        mottle=float(r.uniform(0.25, 1.0) * (0.4 + 0.6 * k)),
        freckles=float(k * max(0.0, r.normal(-0.35, 0.55)) * (0.4 + 0.6 * ancestry[2])),
        redness=float(k * r.beta(1.2, 2.0)),
        eye_shadow=float(r.beta(1.5, 2.5)),
        gloss=float(r.uniform(0.3, 1.0)),
        wrinkles=float(np.exp(r.normal(0, 0.35))),
        pores=float(r.uniform(0.2, 1.0) * k),
        moles=moles,
    )


def sample_brows(r: np.random.Generator, male: bool) -> Brows:
    """Brows of a person."""
    return Brows(
        height=float(r.normal(0.0, 0.022)),
        arch=float(r.normal(0.035 if male else 0.05, 0.028)),
        slope=float(r.normal(-0.01, 0.035)),
        inner=float(r.uniform(0.07, 0.155)),
        outer=float(r.uniform(0.47, 0.60)),
        thickness=float(r.uniform(0.030, 0.058) if male else r.uniform(0.018, 0.042)),
        density=float(r.uniform(0.45, 1.0)),
        darkness=float(r.uniform(0.35, 1.0)),
    )


def sample_beard(r: np.random.Generator, male: bool, age: float) -> Beard:
    """Facial hair of a person: none, stubble, moustache, goatee or full."""
    kind = r.choice(5, p=[0.42, 0.2, 0.12, 0.12, 0.14]) if male and age > 19 else 0
    full, line = float(r.uniform(0.6, 1.0)), float(r.normal(0, 1))
    jaw, moustache, chin, length = 0.0, 0.0, 0.0, 0.0
    if kind == 1:
        jaw = moustache = chin = float(r.uniform(0.15, 0.5))
    elif kind == 2:
        moustache = full
        jaw = chin = float(r.choice([0.0, 0.2]))
    elif kind == 3:
        moustache, chin, length = full * float(r.random() < 0.7), full, float(r.uniform(0.05, 0.25))
    elif kind == 4:
        jaw, moustache, chin, length = full, full, full, float(r.uniform(0.08, 0.4))
    return Beard(jaw, moustache, chin, line, length)


def style_chances(styles: tuple[str, ...], male: bool, ancestry: np.ndarray, age: float) -> np.ndarray:
    """Probability of each hair style for such a person."""
    weight = {
        "bald": 0.02 + 0.12 * male * (age > 35),
        "buzz": 0.12 if male else 0.015,
        "short": 0.22 if male else 0.05,
        "crop": 0.13 if male else 0.05,
        "quiff": 0.12 if male else 0.01,
        "side_part": 0.15 if male else 0.05,
        "slick_back": 0.08 if male else 0.03,
        "medium": 0.07 if male else 0.12,
        "bob": 0.01 if male else 0.12,
        "fringe_bob": 0.0 if male else 0.09,
        "long": 0.02 if male else 0.16,
        "long_parted": 0.02 if male else 0.14,
        "ponytail": 0.01 if male else 0.10,
        "bun": 0.01 if male else 0.07,
        "short_curls": (0.08 if male else 0.06) * (0.4 + 2.0 * ancestry[0] + 0.5 * ancestry[2]),
        "afro": (0.06 if male else 0.08) * (0.1 + 3.0 * ancestry[0]),
        "long_curls": (0.01 if male else 0.08) * (0.3 + 2.0 * ancestry[0] + 0.6 * ancestry[2]),
    }
    p = np.array([weight[s] for s in styles])
    return p / p.sum()


def sample_hair(r: np.random.Generator, ancestry: np.ndarray, male: bool, age: float, d: Domain) -> Hair:
    """Hair style and colour of a person."""
    style = str(r.choice(d.hair_styles, p=style_chances(d.hair_styles, male, ancestry, age)))
    names = list(_HAIR)
    colour = np.array(_HAIR[names[int(r.choice(len(names), p=ancestry @ _HAIR_CHANCE))]])
    if r.random() < d.dyed:
        colour = np.array(_DYES[int(r.integers(len(_DYES)))])
    colour = colour * np.exp(r.normal(0, 0.18)) * np.exp(r.normal(0, 0.05, 3))
    return Hair(
        style=style,
        colour=_colour(colour),
        length=float(np.exp(r.normal(0, 0.18))),
        volume=float(np.exp(r.normal(0, 0.25))),
        curl=float(np.clip(r.beta(1.3, 3.0) + 0.5 * ancestry[0] - 0.15 * ancestry[1], 0, 1)),
        part=float(r.choice([-1, 1]) * r.uniform(0.0, 0.45)),
        fringe=float(r.uniform(0, 1)),
        front=float(r.normal(0, 0.06)),
        temple=float(r.normal(0, 0.5)),
        baldness=float(np.clip(r.normal(-0.1, 0.45), 0, 1)) if male else 0.0,
        grey_age=float(r.normal(56, 10)),
        seed=int(r.integers(1 << 30)),
    )


def sample_eyes(r: np.random.Generator, ancestry: np.ndarray, male: bool) -> Eyes:
    """Eyes of a person; colours follow ancestry."""
    return Eyes(
        iris=_colour(np.array(_EYES[int(r.choice(len(_EYES), p=ancestry @ _EYE_CHANCE))]) * np.exp(r.normal(0, 0.2))),
        radius=float(r.uniform(0.066, 0.076)),
        rim=float(r.uniform(0.2, 0.9)),
        bloodshot=float(r.beta(1.2, 5)),
        liner=float(0.0 if male else max(0.0, r.normal(0, 0.6))),
    )
