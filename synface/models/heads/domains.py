"""The two render domains and the published seed ranges.

`heads-real` plays the real world: all styles, lights, cameras and degradations. `heads-digi` plays a
synthetic source such as DigiFace: narrower on purpose, so that a domain gap exists and can be measured.
"""

from dataclasses import dataclass

from synface.core.errors import InputError, unknown_name

#: identity seeds of each split: [start, stop)
SPLITS = {"train": (0, 10**9), "val": (10**9, 2 * 10**9), "test": (2 * 10**9, 3 * 10**9)}
STRESSES = ("any", "frontal", "pose", "age", "quality")
#: smallest rendered crop, pixels
MIN_SIZE = 16


@dataclass(frozen=True)
class Domain:
    """What a domain may draw.

    Attributes:
        name: as in the registry.
        spread: standard deviation of a face modifier before bounds (targets blend at 0..1).
        skin_spread: multiplies the variety of skin texture and colour.
        hair_styles: names in `hair.STYLES`.
        hair_change: chance that a picture shows the person with another hair style or colour.
        dyed: chance of an unnatural or dyed hair colour per person.
        backgrounds: names in `background.SCENES`.
        lights: names in `variation.LIGHTS`.
        accessories: name -> chance per picture.
        expressions: share of pictures that are not neutral.
        yaw, pitch, roll: standard deviations, degrees.
        distance: nearest and farthest camera, decimetres.
        degrade: strength of everyday blur, noise, compression and low resolution, 0..1.
        occlusion: chance per picture of a hand, object or patch.
        age_shift: years by which one everyday picture in seven is older or younger.
        grade: spread of exposure, contrast, saturation and white balance.
    """

    name: str
    spread: float
    skin_spread: float
    hair_styles: tuple[str, ...]
    hair_change: float
    dyed: float
    backgrounds: tuple[str, ...]
    lights: tuple[str, ...]
    accessories: dict[str, float]
    expressions: float
    yaw: float
    pitch: float
    roll: float
    distance: tuple[float, float]
    degrade: float
    occlusion: float
    age_shift: float
    grade: float


DOMAINS: dict[str, Domain] = {
    "heads-real": Domain(
        name="heads-real",
        spread=0.45,
        skin_spread=1.0,
        hair_styles=(
            "bald", "buzz", "short", "crop", "quiff", "side_part", "slick_back", "medium", "bob", "fringe_bob",
            "long", "long_parted", "ponytail", "bun", "short_curls", "afro", "long_curls",
        ),
        hair_change=0.22,
        dyed=0.06,
        backgrounds=("room", "window", "office", "shelves", "street", "park", "sky", "night", "studio", "wall"),
        lights=("soft", "front", "side", "top", "back", "low", "two", "dim"),
        accessories={
            "glasses": 0.10, "sunglasses": 0.04, "cap": 0.05, "beanie": 0.04, "hat": 0.03, "headband": 0.03,
            "headscarf": 0.02, "mask": 0.03, "earrings": 0.06, "headphones": 0.02,
        },
        expressions=0.6,
        yaw=22.0,
        pitch=9.0,
        roll=6.0,
        distance=(7.0, 30.0),
        degrade=0.5,
        occlusion=0.05,
        age_shift=5.0,
        grade=1.0,
    ),
    "heads-digi": Domain(
        name="heads-digi",
        spread=0.36,
        skin_spread=0.55,
        hair_styles=("bald", "buzz", "short", "side_part", "medium", "bob", "long", "ponytail", "afro"),
        hair_change=0.08,
        dyed=0.0,
        backgrounds=("studio", "wall", "sky"),
        lights=("soft", "front", "side"),
        accessories={"glasses": 0.06, "cap": 0.03},
        expressions=0.4,
        yaw=18.0,
        pitch=7.0,
        roll=4.0,
        distance=(12.0, 22.0),
        degrade=0.1,
        occlusion=0.0,
        age_shift=0.0,
        grade=0.45,
    ),
}  # fmt: skip


def domain(name: str) -> Domain:
    """The domain of that name, or an InputError that lists the known ones."""
    if name not in DOMAINS:
        raise unknown_name("head domain", name, DOMAINS)
    return DOMAINS[name]


def check_seed(seed: int) -> int:
    """The seed as an int; an InputError when it lies in no published split."""
    seed = int(seed)
    if not any(start <= seed < stop for start, stop in SPLITS.values()):
        ranges = ", ".join(f"{name} [{a}, {b})" for name, (a, b) in SPLITS.items())
        raise InputError(f"identity seed {seed} lies in no split; use one of: {ranges}")
    return seed


def check_stress(stress: str) -> str:
    """The stress, or an InputError that lists the known ones."""
    if stress not in STRESSES:
        raise unknown_name("stress", stress, STRESSES)
    return stress


def check_size(size: int) -> int:
    """The crop's side in pixels, or an InputError when it is too small."""
    if size < MIN_SIZE:
        raise InputError(f"size {size} is too small for a face; use at least {MIN_SIZE} pixels")
    return int(size)
