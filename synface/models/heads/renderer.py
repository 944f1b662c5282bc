"""From (identity, variation) to an aligned crop: mesh, camera, rasterisation, shading, damage."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from synface.core.crops import similarity_transform, template
from synface.models.heads import raster
from synface.models.heads.accessories import dress, hidden_hair
from synface.models.heads.assets import ANCESTRIES, load_assets, morph
from synface.models.heads.background import background
from synface.models.heads.degrade import finish
from synface.models.heads.domains import check_size
from synface.models.heads.hair import HairMesh, build_hair, changed_identity
from synface.models.heads.identity import Identity, aged, grey, morph_weights
from synface.models.heads.noise import noise_table
from synface.models.heads.shading import SHADOW_EXTENT, Lamp, Look, blend_lens, shade
from synface.models.heads.skin import bake_skin, texture_coordinates
from synface.models.heads.variation import EYEWEAR, HEADWEAR, Light, Variation

Attributes = dict[str, float | int | str | bool]
T = TypeVar("T")
#: how far the camera-space origin lies behind the nose tip, dm
_PIVOT_DEPTH = 1.0
_SHADOW_LIFT = np.array([0.0, 0.15, 0.0])


@dataclass
class Render:
    """A picture: uint8 RGB [size, size, 3], five landmarks [5, 2] (pixels, ArcFace order), flat facts."""

    image: np.ndarray
    landmarks: np.ndarray
    attributes: Attributes


@dataclass
class _Scene:
    """Vertex and triangle arrays of a whole picture in head space; `lens` triangles are drawn last."""

    vertices: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray
    surface: np.ndarray
    alpha: np.ndarray
    lip: np.ndarray
    occlusion: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    lens: np.ndarray
    palette: np.ndarray


class _Cache:
    """The last few values of a function of a hashable key."""

    def __init__(self, size: int):
        self._size = size
        self._items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._items:
            self._items[key] = make()
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        return self._items[key]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head to camera, float64 [3, 3]; degrees. Positive yaw turns the face to the image's right, positive
    pitch looks down, positive roll leans the head clockwise in the image.
    """
    y, p, r = np.radians([yaw, pitch, roll])
    cy, sy, cp, sp, cr, sr = np.cos(y), np.sin(y), np.cos(p), np.sin(p), np.cos(r), np.sin(r)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    a, e = math.radians(azimuth), math.radians(elevation)
    return math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)


def _lamp(light: Light, shadows: bool) -> Lamp:
    x, y, z = _direction(light.azimuth, light.elevation)
    fill_x, fill_y, fill_z = _direction(light.fill_azimuth, 15)
    across = math.hypot(x, z)
    right = z / across, 0.0, -x / across  # the vertical cross the light, a unit vector

    def scaled(colour: tuple[float, float, float], amount: float) -> tuple[float, float, float]:
        return colour[0] * amount, colour[1] * amount, colour[2] * amount

    return Lamp(
        x,
        y,
        z,
        key=scaled(light.key_colour, light.key * 1.1),
        sky=scaled(light.sky_colour, light.ambient * 1.15),
        ground=scaled(light.ground_colour, light.ambient * 0.55),
        fill_x=fill_x,
        fill_y=fill_y,
        fill_z=fill_z,
        fill=float(light.fill),
        softness=float(light.softness),
        right=right,
        up=(y * right[2], z * right[0] - x * right[2], -y * right[0]),
        shadows=shadows,
    )


def _turned(points: np.ndarray, rotation_33: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
    out = np.empty(points.shape, np.float32)
    raster.turn(points, np.zeros(3) if shift is None else shift, rotation_33, out)
    return out


class HeadRenderer:
    """Renders heads at one size; keeps the last few people's meshes.

    Not thread-safe: use one renderer per thread.

    Args:
        size: side of the crop in pixels, at least 16.
        supersampling: samples per pixel and axis.
        shadows: cast shadows (about a fifth of the time).
        full: frame the whole head instead of the ArcFace crop (for figures).
    """

    def __init__(self, size: int = 112, supersampling: int = 2, shadows: bool = True, full: bool = False):
        self.size = check_size(size)
        self.supersampling = int(supersampling)
        self.shadows = shadows
        self.full = full
        self._assets = load_assets()
        self._texture_size = 256 if self.size <= 72 else 384 if self.size <= 160 and not full else 768
        self._shadow_size = 128 if self.size <= 72 else 176 if self.size <= 160 else 320
        self._faces, self._skins, self._hairs = _Cache(6), _Cache(6), _Cache(12)
        self._backdrops = _Cache(4)
        base = self._assets.base
        surface = np.empty((len(base), 3), np.float32)
        surface[:, :2] = texture_coordinates(base)
        surface[:, 2] = base[:, 2]
        others = np.unique(self._assets.triangles[self._assets.material != raster.SKIN])
        surface[others] = base[others]
        self._surface = surface
        self._ones = np.ones(len(base), np.float32)

    def _face(self, identity: Identity) -> np.ndarray:
        return self._faces.get(identity, lambda: morph(self._assets, self._assets.base, morph_weights(identity)))

    def _scene(self, identity: Identity, styled: Identity, variation: Variation) -> _Scene:
        assets = self._assets
        neutral = self._face(identity)
        units = {assets.units[name]: weight for name, weight in variation.units}
        face = morph(assets, neutral, units)
        normals = np.empty_like(face)
        raster.vertex_normals(face, assets.triangles, normals)
        hair: HairMesh = self._hairs.get(styled, lambda: build_hair(styled, neutral))
        worn = dress(assets, face, variation.accessories, variation.occluder, identity.skin.colour, variation.seed)
        hair_triangles, hair_material = hair.triangles, hair.material
        if worn.hides_hair or worn.hat_line is not None:
            seen = ~hidden_hair(worn, hair.vertices)
            kept = seen[hair.triangles[:, 0]] & seen[hair.triangles[:, 1]] & seen[hair.triangles[:, 2]]
            hair_triangles, hair_material = hair.triangles[kept], hair.material[kept]
        start = len(face) + len(hair.vertices)
        vertices, all_normals = [face, hair.vertices], [normals, hair.normals]
        surface, alpha = [self._surface, hair.surface], [self._ones, hair.alpha]
        triangles = [assets.triangles, hair_triangles + np.int32(len(face))]
        material, lens = [assets.material, hair_material], [np.zeros((0, 3), np.int32)]
        for row, (part, glass) in enumerate(zip(worn.parts, worn.lens, strict=True)):
            part_normals = np.empty_like(part.vertices)
            raster.vertex_normals(part.vertices, part.triangles, part_normals)
            vertices.append(part.vertices)
            all_normals.append(part_normals)
            surface.append(np.column_stack([np.full(len(part.vertices), row, np.float32), part.pattern]))
            alpha.append(part.alpha)
            (lens if glass else triangles).append(part.triangles + np.int32(start))
            if not glass:
                material.append(np.full(len(part.triangles), raster.PLAIN, np.int8))
            start += len(part.vertices)
        tangents = np.zeros((start, 3), np.float32)
        tangents[len(face) : len(face) + len(hair.tangents)] = hair.tangents
        lip, occlusion = np.zeros(start, np.float32), np.ones(start, np.float32)
        lip[: len(face)], occlusion[: len(face)] = assets.lip, assets.occlusion
        return _Scene(
            vertices=np.concatenate(vertices),
            normals=np.concatenate(all_normals),
            tangents=tangents,
            surface=np.concatenate(surface),
            alpha=np.concatenate(alpha),
            lip=lip,
            occlusion=occlusion,
            triangles=np.concatenate(triangles),
            material=np.concatenate(material),
            lens=np.concatenate(lens),
            palette=np.array([*worn.palette, (0.0,) * 5], np.float64),
        )

    def _landmarks(self, points: np.ndarray) -> np.ndarray:
        """ArcFace order: image-left eye (the person's right), image-right eye, nose, mouth corners."""
        left, right = self._assets.eyes
        mark = self._assets.landmark
        rows = [points[right].mean(0), points[left].mean(0)]
        rows += [points[mark[n]] for n in ("nose", "mouth_right", "mouth_left")]
        return np.array(rows, np.float64)

    def _frame(self, marks: np.ndarray, variation: Variation) -> np.ndarray:
        """Similarity [2, 3] from the projection plane to crop pixels."""
        target = template(self.size)
        if self.full:
            target = (target - self.size / 2) * 0.50 + self.size * np.array([0.5, 0.52])
        a = similarity_transform(marks, target)
        centre = target.mean(0)
        a[:, 2] += np.array(variation.jitter) * self.size / 112
        a[:, 2] = centre + (a[:, 2] - centre) * variation.zoom
        a[:, :2] *= variation.zoom
        return a

    def _look(self, identity: Identity, styled: Identity, variation: Variation) -> Look:
        skin = np.array(identity.skin.colour)
        lip = np.array(identity.skin.lip)
        stain = skin * np.array([1.0, 0.34, 0.40])
        lip = lip + (stain - lip) * min(0.9, variation.makeup if not identity.male else 0.0)
        return Look(
            lip=(float(lip[0]), float(lip[1]), float(lip[2])),
            hair=styled.hair.colour,
            iris=identity.eyes.iris,
            cloth=variation.cloth,
            iris_radius=identity.eyes.radius,
            rim=identity.eyes.rim,
            bloodshot=identity.eyes.bloodshot,
            gaze_x=variation.gaze[0],
            gaze_y=variation.gaze[1],
            grey=grey(identity),
            beard=variation.beard,
            collar=5.95,
            noise_x=float(identity.seed % 200),
        )

    def render(self, identity: Identity, variation: Variation) -> Render:
        """One picture of the person under the circumstances."""
        person = aged(identity, variation.age_shift) if variation.age_shift else identity
        styled = changed_identity(person, variation.hair)
        scene = self._scene(person, styled, variation)
        texture = self._skins.get(person, lambda: bake_skin(person, self._texture_size))
        turn = rotation(variation.yaw, variation.pitch, variation.roll)
        nose = self._assets.landmark["nose"]
        pivot = scene.vertices[nose].astype(np.float64) * [0, 1, 1] - [0, -0.15, _PIVOT_DEPTH]
        position = _turned(scene.vertices, turn, pivot)
        plane = np.empty((len(position), 2), np.float32)
        raster.perspective(position, variation.distance, plane)
        marks = self._landmarks(plane)
        frame = self._frame(marks, variation)
        samples = self.size * self.supersampling
        points = np.empty_like(position)
        raster.to_pixels(plane, position, frame * self.supersampling, points)
        depth, triangle, weights = raster.empty_buffers(samples, samples)
        raster.rasterize(points, scene.triangles, scene.material, scene.alpha, scene.surface, depth, triangle, weights)
        lamp = _lamp(variation.light, self.shadows)
        shadow = self._shadow(scene, position, lamp)
        normals = _turned(scene.normals, turn)
        linear = np.empty((samples, samples, 3), np.float32)
        backdrop = self._backdrops.get(
            (variation.background, variation.seed), lambda: background(variation.background, variation.seed)
        )
        shade(
            triangle, weights, scene.triangles, scene.material, scene.surface,
            normals, _turned(scene.tangents, turn), position, scene.lip, scene.occlusion, texture,
            scene.palette, self._assets.eye_centres, self._look(person, styled, variation), lamp, shadow,
            noise_table(), backdrop, self._backdrop_frame(variation), linear,
        )  # fmt: skip
        if len(scene.lens):
            glass = np.full((samples, samples), -1, np.int32)
            material = np.full(len(scene.lens), raster.TEETH, np.int8)
            raster.rasterize(points, scene.lens, material, scene.alpha, scene.surface, depth, glass, weights)
            blend_lens(glass, weights, scene.lens, scene.surface, normals, scene.palette, lamp, linear)
        image = finish(linear, self.supersampling, variation.quality, variation.seed)
        landmarks = marks[:, :1] * frame[:, 0] + marks[:, 1:] * frame[:, 1] + frame[:, 2]
        return Render(image, landmarks.astype(np.float32), attributes(person, styled, variation))

    def _shadow(self, scene: _Scene, position: np.ndarray, lamp: Lamp) -> np.ndarray:
        # y points up here, so that culling leaves the faces that look away from the lamp: no skin shadows itself
        depth = raster.empty_depth(self._shadow_size if self.shadows else 1)
        if self.shadows:
            axes = np.array([lamp.right, lamp.up, (lamp.x, lamp.y, lamp.z)])
            points = _turned(position, axes)
            points[:, :2] = points[:, :2] * (self._shadow_size / SHADOW_EXTENT) + self._shadow_size / 2
            raster.rasterize_depth(points, scene.triangles, scene.material, scene.alpha, scene.surface, depth)
        return depth

    def _backdrop_frame(self, variation: Variation) -> np.ndarray:
        """Crop sample -> scene coordinates: the camera's frame, turned against the aligned roll."""
        samples = self.size * self.supersampling
        scale = (0.75 if not self.full else 1.0) / samples
        angle = np.radians(-variation.roll)
        c, s = np.cos(angle) * scale, np.sin(angle) * scale
        middle = np.array([0.5, 0.5]) - np.array([[c, -s], [s, c]]) @ np.full(2, samples / 2)
        return np.array([[c, -s, middle[0]], [s, c, middle[1]]])


def attributes(person: Identity, styled: Identity, variation: Variation) -> Attributes:
    """The flat facts of a picture: a fixed set of keys and types; `styled` is the person after a hair change."""
    v, q = variation, variation.quality
    worn = {name: name in v.accessories for name in (*EYEWEAR, *HEADWEAR, "mask", "earrings")}
    return {
        "domain": v.domain,
        "stress": v.stress,
        "yaw": round(v.yaw, 3),
        "pitch": round(v.pitch, 3),
        "roll": round(v.roll, 3),
        "distance": round(v.distance, 3),
        "expression": v.expression,
        "light": v.light.name,
        "light_azimuth": round(v.light.azimuth, 2),
        "light_elevation": round(v.light.elevation, 2),
        "background": v.background,
        "age": round(person.age, 2),
        "age_shift": round(v.age_shift, 2),
        "sex": "male" if person.male else "female",
        "ancestry": ANCESTRIES[int(np.argmax(person.ancestry))],
        "skin_tone": round(person.skin.tone, 4),
        "hair_style": styled.hair.style,
        "hair_changed": bool(v.hair.style_seed is not None or v.hair.dye is not None),
        "beard": bool(v.beard > 0 and max(person.beard.jaw, person.beard.moustache, person.beard.chin) > 0.1),
        **worn,
        "occluder": v.occluder,
        "blur": round(q.blur, 3),
        "resolution": round(q.resolution, 3),
        "noise": round(q.noise, 3),
        "jpeg": int(q.jpeg),
        "exposure": round(q.exposure, 3),
        "monochrome": bool(q.saturation < 0.05),
    }
