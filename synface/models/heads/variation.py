"""How a picture was taken: pose, expression, light, camera, place, accessories, quality and age.

A variation is a pure function of its key. A stress replaces the everyday mix by the distribution that one
benchmark protocol stresses; everything else keeps the domain's distribution.
"""

from dataclasses import dataclass, field

import numpy as np

from synface.core.rng import KeyPart, generator
from synface.models.heads.domains import Domain, check_stress, domain

Colour = tuple[float, float, float]

#: expression -> (unit, lowest, highest) weights, both sides at once where a name ends in *
EXPRESSIONS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "neutral": (("mouthSmile*", 0.0, 0.22), ("browInnerUp", 0.0, 0.15)),
    "smile": (("mouthSmile*", 0.25, 0.8), ("cheekSquint*", 0.1, 0.5), ("eyeSquint*", 0.0, 0.35)),
    "laugh": (
        ("mouthSmile*", 0.5, 0.9), ("jawOpen", 0.12, 0.38), ("cheekSquint*", 0.3, 0.8), ("eyeSquint*", 0.1, 0.5),
        ("mouthUpperUp*", 0.1, 0.4),
    ),
    "talk": (("jawOpen", 0.06, 0.3), ("mouthFunnel", 0.0, 0.4), ("mouthLowerDown*", 0.0, 0.4)),
    "surprise": (
        ("jawOpen", 0.25, 0.6), ("browInnerUp", 0.4, 0.9), ("browOuterUp*", 0.3, 0.8), ("eyeWide*", 0.3, 0.9),
    ),
    "anger": (("browDown*", 0.5, 1.0), ("mouthFrown*", 0.1, 0.6), ("noseSneer*", 0.1, 0.6), ("mouthPress*", 0.0, 0.6)),
    "sad": (("browInnerUp", 0.4, 0.9), ("mouthFrown*", 0.3, 0.9), ("mouthShrugLower", 0.0, 0.5)),
    "disgust": (("noseSneer*", 0.4, 0.9), ("browDown*", 0.2, 0.6), ("mouthUpperUp*", 0.2, 0.6)),
    "pucker": (("mouthPucker", 0.3, 0.8), ("mouthFunnel", 0.0, 0.3)),
    "squint": (("eyeSquint*", 0.4, 0.9), ("browDown*", 0.1, 0.5), ("mouthSmile*", 0.0, 0.3)),
    "smirk": (("mouthSmileLeft", 0.3, 0.9), ("mouthDimpleLeft", 0.0, 0.6), ("browOuterUpLeft", 0.0, 0.5)),
    "wink": (("eyeBlinkRight", 0.8, 1.0), ("mouthSmileRight", 0.2, 0.7), ("cheekSquintRight", 0.3, 0.8)),
}  # fmt: skip

#: light name -> (azimuth mean and spread, elevation mean and spread in degrees, key, ambient, softness ranges)
LIGHTS: dict[str, tuple[tuple[float, float], ...]] = {
    "soft": ((0, 40), (35, 15), (0.35, 0.65), (0.60, 0.85), (0.7, 1.0)),
    "front": ((0, 22), (22, 14), (0.75, 1.05), (0.30, 0.50), (0.2, 0.7)),
    "side": ((0, 0), (20, 14), (0.80, 1.15), (0.18, 0.40), (0.1, 0.6)),
    "top": ((0, 45), (62, 8), (0.80, 1.15), (0.28, 0.50), (0.0, 0.5)),
    "back": ((0, 0), (35, 12), (0.90, 1.40), (0.30, 0.50), (0.2, 0.8)),
    "low": ((0, 35), (-28, 12), (0.55, 0.90), (0.22, 0.40), (0.2, 0.7)),
    "two": ((40, 15), (20, 10), (0.60, 0.90), (0.22, 0.40), (0.3, 0.8)),
    "dim": ((0, 50), (30, 20), (0.30, 0.55), (0.12, 0.25), (0.2, 0.8)),
}
#: azimuth magnitude of lights that come from a side at random
_SIDED = {"side": (48, 85), "back": (105, 160)}
OCCLUDERS = ("none", "hand", "object", "patch")
HEADWEAR = ("cap", "beanie", "hat", "headband", "headscarf", "headphones")
EYEWEAR = ("glasses", "sunglasses")


@dataclass(frozen=True)
class Light:
    """A directional key light with a shadow, an ambient sky and ground, and a weaker fill without shadow."""

    name: str
    azimuth: float
    elevation: float
    key: float
    ambient: float
    softness: float
    key_colour: Colour
    sky_colour: Colour
    ground_colour: Colour
    fill: float
    fill_azimuth: float


@dataclass(frozen=True)
class HairChange:
    """A change of hair against the identity's own: the person's other look number (None: their own), and dye."""

    style_seed: int | None = None
    dye: Colour | None = None
    dye_amount: float = 0.0


@dataclass(frozen=True)
class Quality:
    """Damage to the picture. Lengths in pixels of a 112-pixel crop.

    Attributes:
        blur: sigma of a Gaussian blur.
        resolution: shrunk to this share of the size and enlarged again (1 = untouched).
        noise: standard deviation of sensor noise at mid-grey, of 255.
        jpeg: quality 1..100 of the block compression, 100 = none.
        exposure: log2 factor; contrast, saturation: factors; warmth: shift of the white balance.
    """

    blur: float = 0.0
    resolution: float = 1.0
    noise: float = 0.0
    jpeg: int = 100
    exposure: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    warmth: float = 0.0


@dataclass(frozen=True)
class Variation:
    """One picture's circumstances. Angles in degrees, distance in decimetres, jitter in pixels at 112."""

    domain: str
    stress: str
    seed: int
    yaw: float
    pitch: float
    roll: float
    distance: float
    jitter: tuple[float, float]
    zoom: float
    expression: str
    units: tuple[tuple[str, float], ...]
    gaze: tuple[float, float]
    light: Light
    background: str
    cloth: Colour
    accessories: tuple[str, ...]
    hair: HairChange
    beard: float
    makeup: float
    occluder: str
    age_shift: float
    quality: Quality = field(default_factory=Quality)


def _expression(r: np.random.Generator, share: float) -> tuple[str, tuple[tuple[str, float], ...]]:
    names = list(EXPRESSIONS)
    p = np.array([0.0, 0.34, 0.14, 0.16, 0.06, 0.05, 0.05, 0.03, 0.05, 0.05, 0.05, 0.02])
    name = str(r.choice(names, p=p)) if r.random() < share else "neutral"
    units: dict[str, float] = {}
    for unit, low, high in EXPRESSIONS[name]:
        value = float(r.uniform(low, high))
        if unit.endswith("*"):
            units[unit[:-1] + "Left"] = value * float(r.uniform(0.8, 1))
            units[unit[:-1] + "Right"] = value * float(r.uniform(0.8, 1))
        else:
            units[unit] = value
    blink = float(np.clip(r.normal(0.0, 0.16), 0, 0.6)) if r.random() > 0.02 else 1.0
    for side in ("Left", "Right"):
        units[f"eyeBlink{side}"] = max(blink, units.get(f"eyeBlink{side}", 0.0))
        units[f"browOuterUp{side}"] = units.get(f"browOuterUp{side}", 0.0) + max(0.0, float(r.normal(0, 0.12)))
    for unit in ("mouthLeft", "mouthRight", "jawLeft", "jawRight", "mouthRollLower", "mouthPressLeft"):
        units[unit] = units.get(unit, 0.0) + max(0.0, float(r.normal(-0.03, 0.08)))
    return name, tuple((k, round(v, 5)) for k, v in sorted(units.items()) if v > 0)


def _tint(r: np.random.Generator, spread: float) -> Colour:
    warm, green = r.normal(0, spread), r.normal(0, spread * 0.35)
    return float(np.exp(warm)), float(np.exp(green)), float(np.exp(-warm))


def _light(r: np.random.Generator, names: tuple[str, ...], grade: float) -> Light:
    name = str(r.choice(names))
    (az, az_s), (el, el_s), key, ambient, soft = LIGHTS[name]
    azimuth = float(r.normal(az, az_s))
    if name in _SIDED:
        azimuth = float(r.uniform(*_SIDED[name]) * r.choice([-1, 1]))
    fill = {"two": float(r.uniform(0.35, 0.7)), "back": float(r.uniform(0.3, 0.6))}.get(name, 0.0)
    return Light(
        name=name,
        azimuth=azimuth,
        elevation=float(np.clip(r.normal(el, el_s), -60, 80)),
        key=float(r.uniform(*key)),
        ambient=float(r.uniform(*ambient)),
        softness=float(r.uniform(*soft)),
        key_colour=_tint(r, 0.10 * grade),
        sky_colour=_tint(r, 0.10 * grade),
        ground_colour=_tint(r, 0.12 * grade),
        fill=fill,
        fill_azimuth=float(-azimuth * r.uniform(0.6, 1.2)) if name == "two" else float(r.normal(0, 25)),
    )


def _accessories(r: np.random.Generator, chances: dict[str, float]) -> tuple[str, ...]:
    drawn = [name for name, chance in chances.items() if r.random() < chance]
    kept: list[str] = []
    for name in drawn:
        rivals = HEADWEAR if name in HEADWEAR else EYEWEAR if name in EYEWEAR else (name,)
        if not any(k in rivals for k in kept):
            kept.append(name)
    return tuple(kept)


def _hair_change(r: np.random.Generator, chance: float) -> HairChange:
    if r.random() >= chance:
        return HairChange()
    if r.random() < 0.7:  # few looks per person, so that pictures share them
        return HairChange(style_seed=int(r.integers(3)))
    dye = [(0.50, 0.36, 0.19), (0.05, 0.03, 0.02), (0.22, 0.07, 0.03), (0.26, 0.16, 0.08)][int(r.integers(4))]
    return HairChange(dye=dye, dye_amount=0.8)


def _quality(r: np.random.Generator, strength: float, grade: float) -> Quality:
    """Everyday damage: each kind is absent in part of the pictures; strength 1 is a bad camera."""
    return Quality(
        blur=float(r.random() < 0.6 * strength + 0.1) * float(r.gamma(2.0, 0.45 * strength)),
        resolution=float(r.uniform(0.92 - 0.7 * strength, 0.95)) if r.random() < 0.5 * strength else 1.0,
        noise=float(r.gamma(1.4, 2.6 * strength)),
        jpeg=int(r.integers(int(95 - 60 * strength), 98)) if r.random() < 0.2 + 0.7 * strength else 100,
        exposure=float(r.normal(0, 0.28 * grade)),
        contrast=float(np.exp(r.normal(0, 0.13 * grade))),
        saturation=float(np.exp(r.normal(0, 0.18 * grade))) * (0.0 if r.random() < 0.03 * grade else 1.0),
        warmth=float(r.normal(0, 0.05 * grade)),
    )


def _bad_quality(r: np.random.Generator) -> Quality:
    """Surveillance and old phones: two or three kinds of strong damage at once."""
    return Quality(
        blur=float(r.uniform(0.6, 2.6)) if r.random() < 0.6 else 0.0,
        resolution=float(r.uniform(0.16, 0.45)) if r.random() < 0.55 else 1.0,
        noise=float(r.uniform(6, 22)) if r.random() < 0.6 else 3.0,
        jpeg=int(r.integers(8, 35)) if r.random() < 0.6 else 75,
        exposure=float(r.uniform(-1.7, 0.9)),
        contrast=float(r.uniform(0.6, 1.2)),
        saturation=float(r.uniform(0.0, 1.1)),
        warmth=float(r.normal(0, 0.08)),
    )


def _angle(r: np.random.Generator, spread: float, limit: float) -> float:
    return float(np.clip(r.normal(0, spread), -limit, limit))


def sample_variation(domain_name: str, *key: KeyPart, stress: str = "any") -> Variation:
    """The circumstances of one picture, keyed by ``(domain, stress, *key)``.

    Args:
        domain_name: a name in DOMAINS.
        key: anything that names the picture, for example (identity seed, sample number).
        stress: "any" (everyday mix), "frontal" (near frontal, good light, nothing worn), "pose" (yaw to about
            70 degrees, pitch to 30), "age" (10 to 40 years away), "quality" (blur, noise, compression, few
            pixels, bad light, occlusion).

    Raises:
        InputError: unknown domain or stress.
    """
    d: Domain = domain(domain_name)
    stress = check_stress(stress)
    r = generator("heads", "variation", d.name, stress, *key)
    yaw, pitch, roll = _angle(r, d.yaw, 65), _angle(r, d.pitch, 30), _angle(r, d.roll, 30)
    expression, units = _expression(r, 0.15 if stress == "frontal" else d.expressions)
    light = _light(r, ("soft", "front") if stress == "frontal" else d.lights, d.grade)
    worn = _accessories(r, {} if stress == "frontal" else d.accessories)
    quality = _quality(r, d.degrade, d.grade)
    age_shift = d.age_shift * float(r.choice([-1.0, 0.0, 1.0], p=[0.07, 0.86, 0.07]))
    occluder = str(r.choice(OCCLUDERS[1:])) if r.random() < d.occlusion else "none"
    hair = _hair_change(r, d.hair_change)
    if stress == "frontal":
        yaw, pitch, roll = _angle(r, 5, 12), _angle(r, 3.5, 9), _angle(r, 2, 6)
        units = tuple((name, w) for name, w in units if not name.startswith("eyeBlink"))
        quality, occluder, hair = _quality(r, 0.12, 0.5 * d.grade), "none", HairChange()
    elif stress == "pose":
        yaw, pitch = float(r.uniform(20, 70) * r.choice([-1, 1])), _angle(r, 13, 30)
        occluder = "none"
    elif stress == "age":
        age_shift = float(r.uniform(10, 40) * r.choice([-1, 1]))
    elif stress == "quality":
        quality = _bad_quality(r)
        light = _light(r, ("dim", "side", "top", "back", "low"), d.grade) if r.random() < 0.6 else light
        occluder = str(r.choice(OCCLUDERS[1:])) if r.random() < 0.3 else "none"
    return Variation(
        domain=d.name,
        stress=stress,
        seed=int(r.integers(1 << 62)),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        distance=float(np.exp(r.uniform(*np.log(d.distance)))),
        jitter=(float(r.normal(0, 0.6)), float(r.normal(0, 0.6))),
        zoom=float(np.exp(r.normal(0, 0.015))),
        expression=expression,
        units=units,
        gaze=(float(np.clip(r.normal(0, 0.25), -1, 1)), float(np.clip(r.normal(0, 0.15), -1, 1))),
        light=light,
        background=str(r.choice(d.backgrounds)),
        cloth=tuple(float(c) for c in np.clip(r.beta(0.9, 1.4) * (0.7 + 0.6 * r.random(3)), 0.02, 0.85)),  # type: ignore[arg-type]
        accessories=worn,
        hair=hair,
        beard=float(np.clip(r.normal(1.0, 0.15), 0.3, 1.4)) if r.random() > 0.15 * d.grade else 0.0,
        makeup=float(max(0.0, r.normal(0, 0.35 * d.grade))),
        occluder=occluder,
        age_shift=age_shift,
        quality=quality,
    )
