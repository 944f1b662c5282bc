"""Procedural places behind the head: soft-edged shapes painted at low resolution, as a lens out of focus sees."""

import numpy as np

from synface.core.rng import generator
from synface.models.heads.kernel import kernel

SIZE = 64
_RECT, _ELLIPSE, _RAMP = 0.0, 1.0, 2.0


@kernel
def paint_shapes(shapes_n10, out_hw3):
    """Blend shapes over the picture in order.

    A shape is (kind, x, y, half width, half height, softness, red, green, blue, opacity) in picture units
    0..1. Kind 0 is a rectangle, 1 an ellipse, 2 a vertical ramp: opacity 0 above y - half height, full below
    y + half height.
    """
    height, width, _ = out_hw3.shape
    for n in range(shapes_n10.shape[0]):
        s = shapes_n10[n]
        soft = max(s[5], 0.5 / width)
        left, right, top, bottom = 0, width, 0, height
        if s[0] != 2.0:
            left, right = int((s[1] - s[3] - soft) * width) - 1, int((s[1] + s[3] + soft) * width) + 2
            top, bottom = int((s[2] - s[4] - soft) * height) - 1, int((s[2] + s[4] + soft) * height) + 2
        if s[0] == 1.0:  # an ellipse's edge is as soft along its long axis as that is long
            grow = soft * max(s[3], s[4]) / min(s[3], s[4])
            left, right = left - int(grow * width), right + int(grow * width)
            top, bottom = top - int(grow * height), bottom + int(grow * height)
        for row in range(max(0, top), min(height, bottom)):
            y = (row + 0.5) / height
            for column in range(max(0, left), min(width, right)):
                x = (column + 0.5) / width
                if s[0] == 2.0:
                    inside = (y - s[2] + s[4]) / (2 * s[4] + 1e-9)
                elif s[0] == 1.0:
                    dx, dy = (x - s[1]) / s[3], (y - s[2]) / s[4]
                    inside = 0.5 + (1 - np.sqrt(dx * dx + dy * dy)) * min(s[3], s[4]) / (2 * soft)
                else:
                    inside = 0.5 + min(s[3] - abs(x - s[1]), s[4] - abs(y - s[2])) / (2 * soft)
                a = min(1.0, max(0.0, inside))
                a = a * a * (3 - 2 * a) * s[9]
                for k in range(3):
                    out_hw3[row, column, k] += (s[6 + k] - out_hw3[row, column, k]) * a


Shape = tuple[float, ...]


def _shape(
    kind: float, x: float, y: float, w: float, h: float, soft: float, colour: np.ndarray, alpha: float = 1.0
) -> Shape:
    return (kind, x, y, w, h, soft, float(colour[0]), float(colour[1]), float(colour[2]), alpha)


def _muted(r: np.random.Generator, low: float, high: float, chroma: float = 0.25) -> np.ndarray:
    """A random colour of limited saturation, linear."""
    return np.clip(r.uniform(low, high) * np.exp(r.normal(0, chroma, 3)), 0.004, 1.2)


def _wall(r: np.random.Generator) -> list[Shape]:
    tone = _muted(r, 0.15, 0.8, 0.12)
    shapes = [_shape(_RAMP, 0, r.uniform(0.3, 0.8), 0, 0.6, 0.1, tone * r.uniform(0.55, 0.9), 0.8)]
    shapes.append(_shape(_ELLIPSE, r.uniform(-0.2, 1.2), r.uniform(0, 0.6), 0.6, 0.6, 0.5, tone * 1.3, 0.5))
    return [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, tone), *shapes]


def _studio(r: np.random.Generator) -> list[Shape]:
    tone = _muted(r, 0.05, 0.75, 0.1)
    glow = _shape(_ELLIPSE, r.uniform(0.3, 0.7), r.uniform(0.2, 0.6), 0.5, 0.55, 0.5, tone * 1.5, 0.8)
    return [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, tone * 0.7), glow]


def _furniture(r: np.random.Generator, count: int) -> list[Shape]:
    shapes = []
    for _ in range(count):
        w, h = r.uniform(0.05, 0.25), r.uniform(0.08, 0.4)
        colour = _muted(r, 0.03, 0.45, 0.35)
        shapes.append(_shape(_RECT, r.uniform(0, 1), 1.02 - h, w, h, r.uniform(0.01, 0.04), colour))
    return shapes


def _pane(r: np.random.Generator, x: float, y: float, w: float, h: float) -> list[Shape]:
    soft = r.uniform(0.012, 0.03)
    sky = np.array([0.9, 1.0, 1.12]) * r.uniform(0.8, 1.4)
    frame = _muted(r, 0.3, 0.8, 0.08)
    view = _muted(r, 0.15, 0.4, 0.2) * np.array([0.8, 1.1, 0.7])
    return [
        _shape(_RECT, x, y, w + 0.03, h + 0.03, soft, frame),
        _shape(_RECT, x, y, w, h, soft, sky),
        _shape(_RECT, x, y + h * 0.6, w, h * 0.4, soft * 2, view, 0.8),
        _shape(_RECT, x, y, 0.012, h, soft, frame, 0.9),
    ]


def _room(r: np.random.Generator) -> list[Shape]:
    shapes = _wall(r)
    shapes.append(
        _shape(
            _RECT,
            r.uniform(0, 1),
            r.uniform(0.15, 0.4),
            r.uniform(0.06, 0.14),
            r.uniform(0.08, 0.16),
            0.02,
            _muted(r, 0.1, 0.5, 0.4),
        )
    )
    shapes += _furniture(r, int(r.integers(2, 6)))
    if r.random() < 0.5:
        lamp = np.array([1.5, 1.2, 0.75])
        x, y = r.uniform(0, 1), r.uniform(0.05, 0.45)
        shapes += [_shape(_ELLIPSE, x, y, 0.3, 0.3, 0.3, lamp, 0.35), _shape(_ELLIPSE, x, y, 0.05, 0.06, 0.03, lamp)]
    return shapes


def _window(r: np.random.Generator) -> list[Shape]:
    shapes = _wall(r)
    for x in (r.uniform(0.0, 0.3), r.uniform(0.7, 1.0))[: int(r.integers(1, 3))]:
        shapes += _pane(r, x, r.uniform(0.25, 0.45), r.uniform(0.12, 0.25), r.uniform(0.25, 0.4))
    return shapes + _furniture(r, int(r.integers(1, 4)))


def _office(r: np.random.Generator) -> list[Shape]:
    shapes = _wall(r)
    for k in range(int(r.integers(2, 5))):
        light = np.array([1.2, 1.25, 1.3]) * r.uniform(0.7, 1.1)
        shapes.append(_shape(_RECT, (k + r.uniform(0.2, 0.8)) / 4, r.uniform(0.02, 0.14), 0.1, 0.018, 0.015, light))
    for _ in range(int(r.integers(2, 5))):
        screen = _muted(r, 0.05, 0.5, 0.3) * np.array([0.8, 1.0, 1.25])
        shapes.append(_shape(_RECT, r.uniform(0, 1), r.uniform(0.55, 0.8), 0.09, 0.06, 0.015, screen))
    return shapes + _furniture(r, int(r.integers(1, 4)))


def _shelves(r: np.random.Generator) -> list[Shape]:
    wood = _muted(r, 0.05, 0.3, 0.15) * np.array([1.25, 0.95, 0.65])
    shapes = [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, wood * 0.5)]
    rows = int(r.integers(3, 6))
    for row in range(rows):
        bottom, x = (row + 1) / rows, -0.05
        while x < 1.05:
            w, h = r.uniform(0.012, 0.045), r.uniform(0.5, 0.85) / rows
            if r.random() < 0.88:
                shapes.append(_shape(_RECT, x + w, bottom - h / 2, w, h / 2, 0.008, _muted(r, 0.04, 0.5, 0.5)))
            x += 2 * w
        shapes.append(_shape(_RECT, 0.5, bottom, 9, 0.012, 0.01, wood))
    return shapes


def _street(r: np.random.Generator) -> list[Shape]:
    sky = np.array([0.65, 0.8, 1.0]) * r.uniform(0.5, 1.2)
    shapes = [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, sky)]
    x = -0.1
    while x < 1.1:
        w, top = r.uniform(0.08, 0.2), r.uniform(-0.1, 0.4)
        facade = _muted(r, 0.1, 0.5, 0.18)
        shapes.append(_shape(_RECT, x + w, (top + 0.85) / 2, w, (0.85 - top) / 2, 0.012, facade))
        pane = facade * r.uniform(0.3, 0.6) if r.random() < 0.7 else np.array([1.0, 0.85, 0.5])
        for wx in np.arange(x + 0.04, x + 2 * w - 0.03, 0.075):
            for wy in np.arange(top + 0.06, 0.75, 0.11):
                shapes.append(
                    _shape(_RECT, float(wx), float(wy), 0.02, 0.032, 0.012, pane * np.exp(r.normal(0, 0.2)), 0.85)
                )
        x += 2 * w
    road = _muted(r, 0.08, 0.25, 0.05)
    shapes.append(_shape(_RECT, 0.5, 1.0, 9, 0.17, 0.02, road))
    for _ in range(int(r.integers(0, 4))):
        shapes.append(
            _shape(_ELLIPSE, r.uniform(0, 1), r.uniform(0.78, 0.88), 0.11, 0.05, 0.02, _muted(r, 0.03, 0.5, 0.5))
        )
    return shapes


def _leaves(r: np.random.Generator, count: int, low: float, high: float, light: float) -> list[Shape]:
    shapes = []
    for _ in range(count):
        green = np.array([0.22, 0.36, 0.09]) * light * np.exp(r.normal(0, 0.45)) * np.exp(r.normal(0, 0.15, 3))
        size = r.uniform(0.03, 0.11)
        shapes.append(
            _shape(_ELLIPSE, r.uniform(-0.05, 1.05), r.uniform(low, high), size, size, size * 0.6, green, 0.75)
        )
    return shapes


def _park(r: np.random.Generator) -> list[Shape]:
    sky = np.array([0.75, 0.9, 1.05]) * r.uniform(0.6, 1.2)
    horizon, light = r.uniform(0.5, 0.8), r.uniform(0.4, 1.1)
    grass = np.array([0.25, 0.38, 0.10]) * light
    shapes = [
        _shape(_RECT, 0.5, 0.5, 9, 9, 0.1, sky),
        *_leaves(r, 45, -0.1 if r.random() < 0.6 else 0.25, horizon, light),
    ]
    shapes.append(_shape(_RECT, 0.5, 0.5 + horizon, 9, 0.5, 0.03, grass))
    for _ in range(int(r.integers(0, 4))):
        shapes.append(
            _shape(
                _RECT, r.uniform(0, 1), horizon - 0.3, r.uniform(0.012, 0.04), 0.4, 0.012, _muted(r, 0.03, 0.15, 0.1)
            )
        )
    for _ in range(int(r.integers(0, 14))):
        size = r.uniform(0.015, 0.035)
        shapes.append(_shape(_ELLIPSE, r.uniform(0, 1), r.uniform(0, horizon), size, size, 0.006, sky * 1.3, 0.5))
    return shapes


def _sky(r: np.random.Generator) -> list[Shape]:
    zenith = np.array([0.25, 0.45, 0.85]) * r.uniform(0.5, 1.2)
    haze = np.array([0.95, 0.92, 0.9]) * r.uniform(0.6, 1.2) * np.exp(r.normal(0, 0.1, 3))
    horizon = r.uniform(0.6, 0.95)
    shapes = [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, zenith), _shape(_RAMP, 0, horizon * 0.6, 0, horizon * 0.5, 0.1, haze)]
    for _ in range(int(r.integers(0, 7))):
        shapes.append(
            _shape(
                _ELLIPSE,
                r.uniform(0, 1),
                r.uniform(0, 0.6),
                r.uniform(0.1, 0.35),
                r.uniform(0.03, 0.09),
                0.05,
                haze * 1.15,
                0.6,
            )
        )
    ground = _muted(r, 0.08, 0.4, 0.2)
    return [*shapes, _shape(_RECT, 0.5, 0.5 + horizon, 9, 0.5, 0.02, ground)]


def _night(r: np.random.Generator) -> list[Shape]:
    shapes = [_shape(_RECT, 0.5, 0.5, 9, 9, 0.1, _muted(r, 0.01, 0.05, 0.3))]
    shapes += _furniture(r, 3)
    lamps = np.array([[1.6, 1.1, 0.45], [1.5, 1.4, 1.1], [0.5, 0.8, 1.5], [1.5, 0.3, 0.2], [0.3, 1.2, 0.5]])
    for _ in range(int(r.integers(8, 26))):
        size = r.uniform(0.012, 0.06)
        lamp = lamps[int(r.choice(5, p=[0.4, 0.3, 0.12, 0.12, 0.06]))] * r.uniform(0.2, 0.8)
        shapes.append(_shape(_ELLIPSE, r.uniform(0, 1), r.uniform(0.05, 0.8), size, size, 0.008, lamp, 0.7))
    return shapes


SCENES = {
    "wall": _wall,
    "studio": _studio,
    "room": _room,
    "window": _window,
    "office": _office,
    "shelves": _shelves,
    "street": _street,
    "park": _park,
    "sky": _sky,
    "night": _night,
}


def background(name: str, seed: int) -> np.ndarray:
    """A scene's picture, float32 linear RGB [SIZE, SIZE, 3]."""
    shapes = SCENES[name](generator("heads", "background", name, seed))
    out = np.zeros((SIZE, SIZE, 3), np.float32)
    paint_shapes(np.array(shapes), out)
    return out
