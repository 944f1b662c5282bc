"""What people wear and what gets in the way: geometry fitted to the person's own shell and eyes.

Everything is drawn with PLAIN (or LENS) material; colours live in a palette of one row per part.
The same key gives the same glasses: details come from the variation's seed.
"""

from dataclasses import dataclass

import numpy as np

from synface.core.rng import generator
from synface.models.heads.assets import Assets
from synface.models.heads.shell import COLUMNS, HIGHEST, LOWEST, ROWS, shell_grid, shell_points
from synface.models.heads.solids import Part, box, brim, disc, ellipsoid, outline, shell_part, smooth, tube

#: red, green, blue, gloss, pattern strength
Row = tuple[float, float, float, float, float]


@dataclass
class Worn:
    """Parts with their palette rows and materials; hair above `hat_line` (or all of it) is hidden."""

    parts: list[Part]
    palette: list[Row]
    lens: list[bool]
    shift: np.ndarray
    hat_line: tuple[float, float] | None = None
    hides_hair: bool = False

    def add_at_face(self, part: Part, row: Row) -> None:
        """Append a part given in the base head's coordinates; it moves with the person's nose."""
        part.vertices += self.shift
        self.add(part, row)

    def add(self, part: Part, row: Row, lens: bool = False) -> None:
        """Append a part."""
        self.parts.append(part)
        self.palette.append(row)
        self.lens.append(lens)


def nose_shift(assets: Assets, vertices: np.ndarray) -> np.ndarray:
    """How far the person's nose tip lies from the base head's, float32 [3], dm (people differ in height)."""
    nose = assets.landmark["nose"]
    return vertices[nose] - assets.base[nose]


def _fabric(r: np.random.Generator) -> Row:
    colour = np.clip(r.beta(0.8, 1.6) * np.exp(r.normal(0, 0.45, 3)), 0.01, 0.85)
    return float(colour[0]), float(colour[1]), float(colour[2]), 0.02, 1.0


def _above(front: float, back: float) -> np.ndarray:
    """Height of the shell's base-head points above a plane through `front` (z = 1.3) and `back` (z = -0.5)."""
    canonical = shell_grid().canonical
    return canonical[..., 1] - (back + (front - back) * (canonical[..., 2] + 0.5) / 1.8)


def _dome(
    worn: Worn, points: np.ndarray, line: tuple[float, float], offset: float, peak: float, row: Row
) -> np.ndarray:
    above = _above(*line)
    lift = offset + peak * np.clip(above / 0.6, 0, 1)
    worn.add(shell_part(smooth(points, 2), lift, above), row)
    worn.hat_line = line
    return above


def _rim_rows(above: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """First shell row above the hat's line at each column."""
    return np.argmax(above[:, columns % COLUMNS] > 0.02, axis=0)


def _cap(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    row = _fabric(r)
    line = (7.83 + r.uniform(-0.04, 0.05), 7.40)
    above = _dome(worn, points, line, 0.09, 0.10, row)
    columns = np.arange(-11, 12)
    reach = 0.62 * np.cos(columns / 12 * np.pi / 2) ** 0.5 + 0.02
    visor = brim(smooth(points, 2), _rim_rows(above, columns), columns, reach, r.uniform(0.1, 0.4))
    worn.add(visor, row if r.random() < 0.5 else _fabric(r))


def _beanie(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    row = _fabric(r)
    line = (7.76 + r.uniform(-0.08, 0.06), 7.12)
    _dome(worn, points, line, 0.08, r.uniform(0.05, 0.2), row)
    cuff = _above(*line)
    worn.add(shell_part(smooth(points, 2), 0.11, np.minimum(cuff, 0.20 - cuff)), row)


def _hat(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    row = _fabric(r)
    line = (7.86, 7.45)
    above = _dome(worn, points, line, 0.08, r.uniform(0.15, 0.35), row)
    columns = np.arange(COLUMNS + 1)
    worn.add(
        brim(smooth(points, 2), _rim_rows(above, columns), columns, np.full(COLUMNS + 1, r.uniform(0.35, 0.7)), 0.15),
        row,
    )
    band = np.minimum(above - 0.03, 0.16 - above)
    worn.add(shell_part(smooth(points, 2), 0.11, band), _fabric(r))


def _headband(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    half = r.uniform(0.06, 0.13)
    worn.add(shell_part(smooth(points, 1), 0.15, half - np.abs(_above(7.92, 7.5))), _fabric(r))


def _headscarf(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    x, y, z = np.moveaxis(shell_grid().canonical, -1, 0)
    oval = np.sqrt((x / 0.63) ** 2 + ((y - 7.12) / 0.83) ** 2) - 1
    alpha = np.where(z > 0.4, oval, 0.5)
    folds = 0.02 * np.sin(np.arange(COLUMNS) * 1.1)[None] * (1 - np.linspace(0, 1, ROWS)[:, None])
    spread = 0.35 * np.clip(np.linspace(0.55, -1.2, ROWS), 0, 1)[:, None]
    worn.add(shell_part(smooth(points, 3), 0.11 + folds + spread, alpha), _fabric(r))
    worn.hides_hair = True


def _mask(worn: Worn, points: np.ndarray, r: np.random.Generator) -> None:
    x, y, z = np.moveaxis(shell_grid().canonical, -1, 0)
    top = 7.12 - 0.26 * np.clip(np.abs(x) - 0.05, 0, 1)
    alpha = np.minimum(np.minimum(top - y, y - (6.30 + 0.35 * np.abs(x))), (z - 0.55) * 0.8)
    colours = [(0.30, 0.50, 0.66), (0.72, 0.74, 0.76), (0.025, 0.025, 0.03)]
    colour = colours[int(r.integers(3))]
    worn.add(shell_part(smooth(points, 4), 0.10, alpha), (*colour, 0.02, 0.4))
    for side in (-1, 1):
        near = np.array([side * 0.66, 6.85, 0.72])
        worn.add_at_face(tube(np.linspace(near, [side * 0.80, 7.15, 0.42], 5), 0.012), (*colour, 0.0, 0.0))


def _headphones(worn: Worn, points: np.ndarray, r: np.random.Generator, assets: Assets, vertices: np.ndarray) -> None:
    row = (*_fabric(r)[:3], 0.3, 0.0)
    for side, column in (("left", COLUMNS // 4), ("right", 3 * COLUMNS // 4)):
        lobe = vertices[assets.landmark[f"ear_{side}"]]
        sign = 1 if side == "left" else -1
        worn.add(ellipsoid(lobe + np.array([sign * 0.10, 0.27, 0.0]), np.array([0.13, 0.30, 0.27])), row)
        rows = np.arange(int(ROWS * (0.1 - LOWEST) / (HIGHEST - LOWEST)), ROWS)
        arc = points[rows, column] + 0.13 * shell_grid().direction[rows, column]
        worn.add(tube(arc.astype(np.float64), 0.05), row)


def _earrings(worn: Worn, r: np.random.Generator, assets: Assets, vertices: np.ndarray) -> None:
    metal: Row = [(0.75, 0.55, 0.20, 1.2, 0.0), (0.70, 0.70, 0.72, 1.2, 0.0), (0.85, 0.82, 0.76, 0.8, 0.0)][
        int(r.integers(3))
    ]
    hoop, size = r.random() < 0.6, r.uniform(0.04, 0.13)
    for side in ("left", "right"):
        sign = 1 if side == "left" else -1
        lobe = vertices[assets.landmark[f"ear_{side}"]].astype(np.float64) + np.array([sign * 0.015, 0.03, 0.03])
        if hoop:
            a = np.arange(16) * np.pi / 8
            ring = np.stack([0 * a, size * (np.cos(a) - 1), size * np.sin(a)], 1)
            worn.add(tube(lobe + ring, 0.014, closed=True, sides=5), metal)
        else:
            worn.add(ellipsoid(lobe + np.array([sign * 0.02, -0.02, 0.0]), np.full(3, 0.2 * size + 0.025), 10), metal)


def _glasses(worn: Worn, r: np.random.Generator, assets: Assets, vertices: np.ndarray, dark: bool) -> None:
    frames = [
        (0.012, 0.012, 0.014),
        (0.11, 0.05, 0.025),
        (0.5, 0.42, 0.25),
        (0.35, 0.36, 0.38),
        (0.3, 0.03, 0.04),
        (0.04, 0.07, 0.2),
    ]
    frame: Row = (*frames[int(r.integers(len(frames)))], 0.6, 0.0)
    width, power = r.uniform(0.21, 0.27), r.choice([2.0, 2.6, 4.0])
    height = width * r.uniform(0.62, 0.95) if power < 4 else width * r.uniform(0.55, 0.75)
    wire = float(r.uniform(0.010, 0.026))
    tint = (
        *[(0.010, 0.010, 0.012), (0.05, 0.028, 0.012), (0.015, 0.035, 0.06)][int(r.integers(3))],
        0.9,
        0.80 + 0.16 * r.random(),
    )
    clear: Row = (0.7, 0.75, 0.8, 0.35, 0.06)
    eyes = [vertices[e].astype(np.float64) for e in assets.eyes]
    front = max(e[:, 2].max() for e in eyes) + 0.12
    bridge_y = float(np.mean([e[:, 1].mean() for e in eyes]))
    inner = []
    for sign, side, eye in ((1, "left", eyes[0]), (-1, "right", eyes[1])):
        centre = np.array([eye[:, 0].mean() * 1.04, bridge_y - 0.03, front])
        rim = outline(centre, width, height, power, 0.10)
        worn.add(tube(rim, wire, closed=True), frame)
        worn.add(disc(rim), tint if dark else clear, lens=True)
        outer = rim[np.argmax(rim[:, 0] * sign)]
        inner.append(rim[np.argmin(rim[:, 0] * sign)] + [0, 0.35 * height, 0])
        lobe = vertices[assets.landmark[f"ear_{side}"]].astype(np.float64)
        hinge = outer + np.array([0.02 * sign, 0.25 * height, -0.01])
        ear = lobe + np.array([sign * 0.03, 0.42, -0.05])
        middle = np.array([max(abs(hinge[0]), abs(ear[0])) * sign, (hinge[1] + ear[1]) / 2, (hinge[2] + ear[2]) / 2])
        path = np.array([outer + np.array([0, 0.25 * height, 0.01]), hinge, middle, ear])
        worn.add(tube(path, max(wire, 0.014)), frame)
    arch = np.array([inner[0], (inner[0] + inner[1]) / 2 + [0, 0.03, 0.04], inner[1]])
    worn.add(tube(arch, wire * 1.1), frame)


def _hand(worn: Worn, r: np.random.Generator, skin: Row) -> None:
    side = float(r.choice([-1, 1]))
    palm = np.array([side * r.uniform(0.15, 0.5), r.uniform(6.25, 6.75), 1.78])
    lean = r.uniform(-0.5, 0.2) * side
    worn.add_at_face(ellipsoid(palm, np.array([0.36, 0.40, 0.12])), skin)
    for k in range(4):
        spread = (k - 1.5) * 0.16
        root = palm + np.array([spread, 0.28 - 0.02 * abs(k - 1.3), 0.02])
        length = [0.62, 0.74, 0.70, 0.55][k]
        tip = root + length * np.array([np.sin(lean + 0.25 * spread), np.cos(lean), -0.05])
        bend = (root + tip) / 2 + [0, 0, 0.07]
        worn.add_at_face(
            tube(
                np.array([root, bend, tip, tip + (tip - bend) * 0.08]), np.array([0.085, 0.082, 0.07, 0.02]), sides=8
            ),
            skin,
        )
    thumb = palm + np.array([-side * 0.30, 0.0, 0.02])
    path = np.array([palm, thumb, thumb + np.array([-side * 0.15, 0.38, 0.0])])
    worn.add_at_face(tube(path, np.array([0.12, 0.10, 0.06]), sides=8), skin)
    wrist = palm + np.array([[0, -0.25, 0.0], [side * 0.15, -0.9, 0.15]])
    worn.add_at_face(tube(wrist, np.array([0.26, 0.24]), sides=10), skin)


def _object(worn: Worn, r: np.random.Generator) -> None:
    row = (*_fabric(r)[:3], float(r.uniform(0.1, 0.6)), 0.3)
    centre = np.array([r.uniform(-0.6, 0.6), r.uniform(6.25, 7.1), 2.05])
    angle = r.uniform(-0.6, 0.6)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    kind = int(r.integers(3))
    if kind == 0:  # a phone or a book
        worn.add_at_face(box(centre, np.array([r.uniform(0.25, 0.5), r.uniform(0.4, 0.6), 0.04]), turn), row)
    elif kind == 1:  # a cup
        path = centre + np.array([[0, -0.3, 0], [0, -0.29, 0], [0, 0.25, 0], [0, 0.25, 0]])
        worn.add_at_face(tube(path, np.array([0.01, 0.24, 0.30, 0.27]), sides=16), row)
    else:  # a ball or a fruit
        worn.add_at_face(ellipsoid(centre, np.full(3, r.uniform(0.2, 0.38))), row)


def _patch(worn: Worn, r: np.random.Generator) -> None:
    angle = r.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    centre = np.array([r.uniform(-0.55, 0.55), r.uniform(6.45, 7.75), 1.85])
    row = (*_fabric(r)[:3], 0.0, 4.0)
    worn.add_at_face(box(centre, np.array([r.uniform(0.15, 0.45), r.uniform(0.12, 0.35), 0.005]), turn), row)


def dress(
    assets: Assets,
    vertices: np.ndarray,
    names: tuple[str, ...],
    occluder: str,
    skin: tuple[float, float, float],
    seed: int,
) -> Worn:
    """All accessories and the occluder of a picture.

    Args:
        assets: the pack.
        vertices: the head's vertices with its expression, float32 [V, 3].
        names: accessories worn.
        occluder: "none", "hand", "object" or "patch".
        skin: the person's colour (for the hand).
        seed: of the picture.
    """
    worn = Worn([], [], [], nose_shift(assets, vertices))
    if not names and occluder == "none":
        return worn
    points = shell_points(vertices)
    for name in names:
        r = generator("heads", "accessory", name, seed)
        if name in ("glasses", "sunglasses"):
            _glasses(worn, r, assets, vertices, dark=name == "sunglasses")
        elif name == "earrings":
            _earrings(worn, r, assets, vertices)
        elif name == "headphones":
            _headphones(worn, points, r, assets, vertices)
        else:
            _SHELL[name](worn, points, r)
    r = generator("heads", "occluder", occluder, seed)
    if occluder == "hand":
        _hand(worn, r, (*skin, 0.05, 0.6))
    elif occluder == "object":
        _object(worn, r)
    elif occluder == "patch":
        _patch(worn, r)
    return worn


_SHELL = {"cap": _cap, "beanie": _beanie, "hat": _hat, "headband": _headband, "headscarf": _headscarf, "mask": _mask}


def hidden_hair(worn: Worn, vertices: np.ndarray) -> np.ndarray:
    """Which hair vertices a hat or scarf hides, bool [n]."""
    if worn.hides_hair:
        return np.ones(len(vertices), bool)
    if worn.hat_line is None:
        return np.zeros(len(vertices), bool)
    front, back = worn.hat_line
    y, z = vertices[:, 1] - worn.shift[1], vertices[:, 2] - worn.shift[2]
    return y > back + (front - back) * (z + 0.5) / 1.8 + 0.05
