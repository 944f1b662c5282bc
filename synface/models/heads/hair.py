"""Hair: a scalp cap under a few hundred ribbons ("cards") that grow, fall and lie on the head.

Each card is a polyline integrated from a root on the scalp: it leaves along the skin's normal, is combed in
the style's direction, bends under gravity, and is pushed out of the head's star-shaped hull. Curls add a
helix. The rasteriser cuts every card into strands of different length.
"""

from dataclasses import dataclass, replace

import numpy as np

from synface.core.rng import generator
from synface.models.heads import raster
from synface.models.heads.domains import DOMAINS
from synface.models.heads.identity import Identity
from synface.models.heads.shell import COLUMNS, ROWS, radius_at, shell_grid, shell_points, shell_radius
from synface.models.heads.strands import (
    BUN_CARD,
    COMBED_CARD,
    COMBS,
    FRINGE_CARD,
    TAIL_CARD,
    Growth,
    card_triangles,
    grow,
    ribbons,
)
from synface.models.heads.traits import style_chances
from synface.models.heads.variation import HairChange

#: points of a card after its root: long and curly hair, short hair
SEGMENTS, SHORT_SEGMENTS = 7, 4
SHORT_LENGTH = 0.7


@dataclass(frozen=True)
class Style:
    """A cut. Lengths in decimetres.

    Attributes:
        length: of the crown's hair; `sides` is that share of it below the temples.
        cards: how many ribbons (0: only the cap).
        comb: "down", "back", "side" (away from the parting), "forward", "up", "out" (along the normal).
        lift: 0 lies flat, 1 stands along the normal at the root.
        gravity: how fast it bends down.
        curl: helix radius; `frizz`: random bending.
        fringe: length of the hair over the forehead, as a share of `length` (0: combed away).
        cap: thickness of the scalp cap.
        gather: "" or where the hair is tied: "tail", "bun".
        width: of a card.
        adhere: 1 keeps the hair on the head, 0 lets it stand.
    """

    length: float
    sides: float = 0.6
    cards: int = 420
    comb: str = "down"
    lift: float = 0.35
    gravity: float = 0.25
    curl: float = 0.0
    frizz: float = 0.06
    fringe: float = 0.0
    cap: float = 0.05
    gather: str = ""
    width: float = 0.075
    adhere: float = 0.8


# fmt: off
STYLES: dict[str, Style] = {
    "bald": Style(0.0, cards=0, cap=0.004),
    "buzz": Style(0.05, cards=420, comb="out", lift=0.8, gravity=0.0, cap=0.012, width=0.07, sides=0.8),
    "short": Style(0.36, cards=560, comb="forward", lift=0.5, gravity=0.3, fringe=0.55, cap=0.05, sides=0.5),
    "crop": Style(0.50, cards=560, comb="forward", lift=0.4, gravity=0.5, fringe=0.9, cap=0.05, sides=0.35),
    "quiff": Style(0.55, cards=560, comb="up", lift=0.8, gravity=0.1, cap=0.05, sides=0.25, adhere=0.25),
    "side_part": Style(0.62, cards=580, comb="side", lift=0.5, gravity=0.4, cap=0.05, sides=0.4),
    "slick_back": Style(0.80, cards=560, comb="back", lift=0.25, gravity=0.2, cap=0.05, sides=0.6, adhere=0.95),
    "medium": Style(1.0, cards=600, comb="side", lift=0.5, gravity=0.7, fringe=0.6, cap=0.06, sides=0.9),
    "bob": Style(1.5, cards=620, comb="side", lift=0.45, gravity=0.8, cap=0.07, sides=0.75, width=0.09),
    "fringe_bob": Style(
        1.5, cards=620, comb="down", lift=0.4, gravity=0.8,
        fringe=0.42, cap=0.06, sides=0.75, width=0.09,
    ),
    "long": Style(2.7, cards=620, comb="side", lift=0.45, gravity=0.8, cap=0.07, sides=0.85, width=0.11),
    "long_parted": Style(
        2.8, cards=620, comb="side", lift=0.25, gravity=0.9,
        cap=0.05, sides=0.85, width=0.11, adhere=0.9,
    ),
    "ponytail": Style(1.2, cards=560, comb="back", lift=0.06, gravity=0.0, cap=0.04, gather="tail", adhere=1.0),
    "bun": Style(1.2, cards=560, comb="back", lift=0.06, gravity=0.0, cap=0.04, gather="bun", adhere=1.0),
    "short_curls": Style(
        0.42, cards=620, comb="out", lift=0.6, gravity=0.4, curl=0.05,
        frizz=0.5, cap=0.09, fringe=0.5, sides=0.6, adhere=0.5,
    ),
    "afro": Style(
        0.62, cards=760, comb="out", lift=1.0, gravity=0.0, curl=0.045,
        frizz=0.7, cap=0.28, sides=0.85, width=0.11, adhere=0.15,
    ),
    "long_curls": Style(
        1.9, cards=620, comb="side", lift=0.6, gravity=0.6, curl=0.075,
        frizz=0.3, cap=0.08, sides=0.9, width=0.10, adhere=0.6,
    ),
}
# fmt: on
_GATHERED_CARDS = 130


@dataclass(frozen=True)
class HairMesh:
    """Vertices of the cap and the cards, with what the rasteriser and the shader read.

    `surface` holds (across, along, card) on cards; `tangent` the strand direction; `alpha` cuts the cap.
    """

    vertices: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    surface: np.ndarray
    alpha: np.ndarray


def hair_line(canonical: np.ndarray, identity: Identity) -> np.ndarray:
    """Signed height (dm) above the hairline of base-head points [..., 3]; hair grows where it is positive."""
    h = identity.hair
    x, y, z = canonical[..., 0], canonical[..., 1], canonical[..., 2]
    ax = np.abs(x)
    recede = 0.10 * h.baldness
    front = 7.90 + h.front + recede - 0.02 * np.cos(x * 9)
    line = np.interp(
        z, [-0.45, 0.10, 0.42, 0.62, 0.82, 1.02, 1.20, 1.38], [6.55, 6.72, 7.05, 7.02, 7.10, 7.48, 7.74, 7.90]
    )
    line = np.where(z > 1.15, np.maximum(line, front - 0.35 * np.clip(1.40 - z, 0, 1)), line)
    corner = np.exp(-((ax - 0.42) ** 2) / 0.02) * (z > 0.9)
    line = line + corner * (0.05 * h.temple + 0.30 * h.baldness)
    above = y - line
    if h.baldness > 0.35:  # a bald crown inside a horseshoe of hair
        above = np.minimum(above, 0.95 - 1.1 * (h.baldness - 0.35) - (y - 7.3) * 0.9)
    return above


def changed_identity(identity: Identity, change: HairChange) -> Identity:
    """The identity with the picture's hair change applied to its hair parameters."""
    hair = identity.hair
    if change.style_seed is not None:
        r = generator("heads", "restyle", identity.domain, identity.seed, change.style_seed)
        hair = replace(hair, length=float(hair.length * np.exp(r.normal(0, 0.25))))
        names = tuple(s for s in DOMAINS[identity.domain].hair_styles if s != "bald")
        p = style_chances(names, identity.male, np.array(identity.ancestry), identity.age)
        style = str(r.choice(names, p=p)) if hair.style != "bald" else "bald"
        hair = replace(
            hair, style=style, part=-hair.part if r.random() < 0.5 else hair.part, seed=int(r.integers(1 << 30))
        )
    if change.dye is not None:
        mix = np.array(hair.colour) * (1 - change.dye_amount) + np.array(change.dye) * change.dye_amount
        r, g, b = (float(c) for c in mix)
        hair = replace(hair, colour=(r, g, b))
    return replace(identity, hair=hair)


def sample_roots(
    identity: Identity, style: Style, points: np.ndarray, r: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Card roots: shell points [n, 3], outward normals [n, 3] and base-head positions [n, 3]."""
    grid = shell_grid()
    count = style.cards * 3
    sin_low = np.sin(-0.55)
    elevation = np.arcsin(r.uniform(sin_low, 1, count))
    row = (elevation + 1.0) / (np.pi / 2 + 1.0) * (ROWS - 1)
    column = r.uniform(0, COLUMNS, count)
    i, j = np.minimum(row.astype(int), ROWS - 2), column.astype(int) % COLUMNS
    u, v = (row - i)[:, None], (column - np.floor(column))[:, None]

    def at(field: np.ndarray) -> np.ndarray:
        j1 = (j + 1) % COLUMNS
        upper = field[i, j] * (1 - v) + field[i, j1] * v
        return upper * (1 - u) + (field[i + 1, j] * (1 - v) + field[i + 1, j1] * v) * u

    canonical = at(grid.canonical)
    keep = np.flatnonzero(hair_line(canonical, identity) > 0.0)[: style.cards]
    i, j, u, v = i[keep], j[keep], u[keep], v[keep]
    return at(points), at(grid.direction), canonical[keep]


def gathered_cards(
    style: Style, factor: float, centre: np.ndarray, radius: np.ndarray, r: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots, normals and lengths of the cards of a pony tail or a bun at the back of the head."""
    back = np.array([0.0, 0.42, -0.85]) / np.hypot(0.42, 0.85)
    knot = centre + back * (radius_at(back[0], back[1], back[2], radius) + 0.06)
    unit = r.normal(size=(_GATHERED_CARDS, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    if style.gather == "tail":
        return knot + 0.05 * unit, 0.5 * unit + back, r.uniform(1.2, 2.0, _GATHERED_CARDS) * factor
    return knot + 0.12 * back + 0.20 * unit, unit, r.uniform(0.25, 0.4, _GATHERED_CARDS)


def build_hair(identity: Identity, vertices_v3: np.ndarray) -> HairMesh:
    """Cap and cards of the identity's hair on its (neutral) head."""
    h, style, grid = identity.hair, STYLES[identity.hair.style], shell_grid()
    r = generator("heads", "hair", h.seed)
    points = shell_points(vertices_v3)
    centre, radius = shell_radius(points)
    above = hair_line(grid.canonical, identity)
    thickness = style.cap * h.volume * np.clip(above * 4, 0, 1)[..., None]
    cap = points + grid.direction * (thickness + 0.006)
    cap_normals = np.zeros((ROWS * COLUMNS, 3), np.float32)
    cap = np.ascontiguousarray(cap.reshape(-1, 3), np.float32)
    raster.vertex_normals(cap, grid.triangles, cap_normals)
    cap_alpha = (above - 0.03).astype(np.float32).ravel()
    if style.cards == 0:
        cap_alpha[:] = -1

    roots, normals, canonical = sample_roots(identity, style, points, r) if style.cards else (np.zeros((0, 3)),) * 3
    count = len(roots)
    crown = np.clip((canonical[:, 1] - 7.3) / 0.5, 0, 1) if count else np.zeros(0)
    length = style.length * h.length * (style.sides + (1 - style.sides) * crown) * r.uniform(0.75, 1.1, count)
    if style.sides < 0.5:
        length *= 0.35 + 0.65 * crown
    forehead = (canonical[:, 2] > 0.95) & (np.abs(canonical[:, 0]) < 0.55) if count else np.zeros(0, bool)
    fringe = np.where(forehead & (style.fringe > 0), FRINGE_CARD, COMBED_CARD)
    fall = np.clip(canonical[:, 1] - 7.62, 0.08, None) if count else np.zeros(0)
    shaped = np.minimum(style.length * style.fringe * (0.6 + 0.5 * h.fringe), 0.9 * fall + 0.08 * h.fringe)
    length = np.where(fringe > 0, shaped * r.uniform(0.8, 1.05, count), length)
    if style.gather:
        length = np.minimum(length, 0.8 * np.hypot(canonical[:, 2] + 0.45, canonical[:, 1] - 7.6) + 0.08)
    if style.gather:
        knot, knot_normals, knot_length = gathered_cards(style, h.length, centre, radius, r)
        roots, normals = np.concatenate([roots, knot]), np.concatenate([normals, knot_normals])
        length = np.concatenate([length, knot_length])
        kind = TAIL_CARD if style.gather == "tail" else BUN_CARD
        fringe = np.concatenate([fringe, np.full(len(knot), kind)])
        count = len(roots)
    growth = Growth(
        comb=COMBS.index(style.comb),
        lift=style.lift * h.volume,
        gravity=style.gravity,
        curl=style.curl * (0.5 + h.curl) + 0.03 * h.curl * (style.length > 0.8),
        frizz=style.frizz * (0.6 + h.curl),
        part=h.part,
        face_width=float(
            np.abs(
                points[
                    (grid.canonical[..., 1] > 7.0) & (grid.canonical[..., 1] < 7.6) & (grid.canonical[..., 2] > 0.95),
                    0,
                ]
            ).max()
        )
        * 0.92,
        brow_y=7.75 + float((points[-1, 0] - grid.canonical[-1, 0])[1]),
        adhere=style.adhere,
        sweep=0.5 * (1 if h.part > 0 else -1) * (style.comb in ("side", "forward")),
        gather=int(bool(style.gather)),
    )
    segments = SHORT_SEGMENTS if style.length < SHORT_LENGTH and style.curl == 0 else SEGMENTS
    lines = np.empty((count, segments + 1, 3))
    random = r.random((count, 9 + 3 * SEGMENTS))
    grow(
        growth,
        roots.astype(np.float64),
        normals.astype(np.float64),
        length,
        fringe,
        random,
        centre.astype(np.float64),
        radius,
        lines,
    )
    size = count * (segments + 1) * 2
    vertices, card_normals, tangents = (np.empty((size, 3), np.float32) for _ in range(3))
    ribbons(
        lines,
        style.width * r.uniform(0.7, 1.3, count) * np.where(fringe > 0, 0.65, 1.0),
        centre.astype(np.float64),
        vertices,
        card_normals,
        tangents,
    )
    surface = np.empty((count, segments + 1, 2, 3), np.float32)
    surface[..., 0] = [-1, 1]
    surface[..., 1] = (np.arange(segments + 1) / SEGMENTS)[:, None]
    surface[..., 2] = np.arange(count)[:, None, None]
    grown = cap_alpha > 0
    a, b, c = grid.triangles.T
    cap_triangles = grid.triangles[grown[a] | grown[b] | grown[c]]
    return HairMesh(
        vertices=np.concatenate([cap, vertices]),
        normals=np.concatenate([cap_normals, card_normals]),
        tangents=np.concatenate([np.zeros_like(cap_normals) + np.array([0, -1, 0], np.float32), tangents]),
        triangles=np.concatenate([cap_triangles, card_triangles(count, segments + 1) + len(cap)]),
        material=np.concatenate(
            [
                np.full(len(cap_triangles), raster.SCALP, np.int8),
                np.full(count * segments * 2, raster.HAIR, np.int8),
            ]
        ),
        surface=np.concatenate([grid.canonical.reshape(-1, 3), surface.reshape(-1, 3)]),
        alpha=np.concatenate([cap_alpha, np.ones(size, np.float32)]),
    )
