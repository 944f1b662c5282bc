"""The asset pack in memory: the base head, morph targets and the linear algebra on them.

Units are MakeHuman's: decimetres, y up, z towards the viewer, x towards the person's left. A neutral head
reaches from the chin (y about 6.3) to the crown (y about 8.4).
"""

import functools
import hashlib
import io
import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

from synface.models.heads import raster
from synface.models.heads.kernel import kernel

DELTA_UNIT = 5e-4
AGES = ("young", "old")
SEXES = ("male", "female")
ANCESTRIES = ("african", "asian", "caucasian")


@dataclass(frozen=True)
class Modifier:
    """A bipolar morph: target numbers that are blended in for negative and for positive values."""

    name: str
    minus: tuple[int, ...]
    plus: tuple[int, ...]

    @property
    def region(self) -> str:
        """The part of the face it belongs to: head, eyes, mouth, nose, ..."""
        return self.name.split("/")[0]


@dataclass(frozen=True)
class Assets:
    """Everything in the pack (see `build_assets`), arrays read-only by convention.

    Attributes:
        base: float32 [V, 3] vertices (dm) of the base head.
        triangles: int32 [T, 3]; skin triangles come first.
        material: int8 [T], constants of `raster`.
        lip: float32 [V], 1 on the lips.
        occlusion: float32 [V], 1 where all of the sky is seen.
        target_start, target_vertex, target_move: morph targets as one sparse table (moves in DELTA_UNIT).
        target: target name -> number.
        modifiers: the identity's bipolar modifiers, in a fixed order.
        asymmetries, units: target numbers of one-sided morphs; expression unit name -> target number.
        landmark: vertex numbers of nose, mouth_left, mouth_right, ear_left, ear_right (the person's sides).
        eyes: vertex numbers of the left and right eyeball.
        probes: face vertices used to measure distances between identities.
    """

    base: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    lip: np.ndarray
    occlusion: np.ndarray
    target_start: np.ndarray
    target_vertex: np.ndarray
    target_move: np.ndarray
    target: dict[str, int]
    modifiers: tuple[Modifier, ...]
    asymmetries: tuple[int, ...]
    units: dict[str, int]
    landmark: dict[str, int]
    eyes: tuple[np.ndarray, np.ndarray]
    probes: np.ndarray

    @functools.cached_property
    def eye_centres(self) -> np.ndarray:
        """Centres of the left and right eyeball of the base head, float64 [2, 3], dm."""
        return np.stack([self.base[e].astype(np.float64).mean(0) for e in self.eyes])


@kernel
def blend(vertices_v3, weights_n, start_n, vertex_k, move_k3, unit):
    """Add every weighted target to the vertices, in place: v += sum_i weights[i] * target_i."""
    for t in range(weights_n.shape[0]):
        w = weights_n[t] * unit
        if w == 0.0:
            continue
        for k in range(start_n[t], start_n[t + 1]):
            i = vertex_k[k]
            vertices_v3[i, 0] += w * move_k3[k, 0]
            vertices_v3[i, 1] += w * move_k3[k, 1]
            vertices_v3[i, 2] += w * move_k3[k, 2]


def morph(assets: Assets, vertices_v3: np.ndarray, weights: dict[int, float]) -> np.ndarray:
    """A float32 copy of the vertices with the weighted targets added."""
    dense = np.zeros(len(assets.target), np.float64)
    for number, weight in weights.items():
        dense[number] += weight
    out = vertices_v3.astype(np.float32, copy=True)
    blend(out, dense, assets.target_start, assets.target_vertex, assets.target_move, DELTA_UNIT)
    return out


def _pack() -> bytes:
    return resources.files("synface.models.heads").joinpath("assets/heads.npz").read_bytes()


@functools.cache
def asset_digest() -> str:
    """The sha256 (hex) of the shipped asset pack."""
    return hashlib.sha256(_pack()).hexdigest()


@functools.cache
def load_assets() -> Assets:
    """The shipped pack, read once per process."""
    with np.load(io.BytesIO(_pack()), allow_pickle=False) as pack:
        arrays = {name: pack[name] for name in pack.files}
    meta = json.loads(arrays["meta"].tobytes())
    target = {name: i for i, name in enumerate(meta["targets"])}
    order = np.argsort(arrays["material"] != raster.SKIN, kind="stable")
    triangles = arrays["triangles"][order].astype(np.int32)
    material = arrays["material"][order]
    base = arrays["base"]
    eyeballs = np.unique(triangles[material == raster.EYE])
    skin = np.unique(triangles[material == raster.SKIN])
    x, y, z = base[skin].T
    face = skin[(z > 0.75) & (y > 6.3) & (y < 7.9) & (abs(x) < 0.75)]
    return Assets(
        base=base,
        triangles=triangles,
        material=material,
        lip=arrays["lip"].astype(np.float32) / 255,
        occlusion=arrays["occlusion"].astype(np.float32) / 255,
        target_start=arrays["target_start"],
        target_vertex=arrays["target_vertex"],
        target_move=arrays["target_move"],
        target=target,
        modifiers=tuple(
            Modifier(m["name"], tuple(target[t] for t in m["minus"]), tuple(target[t] for t in m["plus"]))
            for m in meta["modifiers"]
        ),
        asymmetries=tuple(i for name, i in target.items() if name.startswith("asym/")),
        units={name[5:]: i for name, i in target.items() if name.startswith("unit/")},
        landmark=meta["landmarks"],
        eyes=(eyeballs[base[eyeballs, 0] > 0], eyeballs[base[eyeballs, 0] < 0]),
        probes=face[:: max(1, len(face) // 400)],
    )
