"""The rasteriser and the picture filters against naive references."""

import io

import numpy as np
from PIL import Image

from synface.models.heads import degrade, raster


def naive(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and depth of one triangle by solving for barycentric weights at each pixel centre."""
    matrix = np.vstack([points[:, :2].T, np.ones(3)])
    inside, depth = np.zeros((size, size), bool), np.full((size, size), -1e9)
    for y in range(size):
        for x in range(size):
            w = np.linalg.solve(matrix, [x + 0.5, y + 0.5, 1])
            if (w >= 0).all():
                inside[y, x], depth[y, x] = True, w @ points[:, 2]
    return inside, depth


def test_one_triangle_against_the_naive_reference():
    size = 24
    r = np.random.default_rng(0)
    for _ in range(20):
        points = np.column_stack([r.uniform(-6, 30, (3, 2)), r.normal(size=3)]).astype(np.float32)
        depth, triangle, weights = raster.empty_buffers(size, size)
        args = (
            points,
            np.array([[0, 1, 2]], np.int32),
            np.array([raster.TEETH], np.int8),
            np.ones(3, np.float32),
            points,
        )
        raster.rasterize(*args, depth, triangle, weights)
        inside, reference = naive(points.astype(np.float64), size)
        assert ((triangle >= 0) != inside).sum() <= 1  # a centre exactly on an edge
        both = (triangle >= 0) & inside
        np.testing.assert_allclose(depth[both], reference[both], atol=1e-5)
        np.testing.assert_allclose(weights[both] @ points[:, 2], reference[both], atol=1e-5)
        only = raster.empty_depth(size)
        raster.rasterize_depth(points, args[1], np.array([raster.PLAIN], np.int8), args[3], points, only)
        np.testing.assert_array_equal(only, depth)


def test_cards_behind_a_head_are_skipped_without_a_trace():
    """Skin first lets whole tiles reject cards; cards first leaves no tile to look at: the same depth either way."""
    r = np.random.default_rng(3)
    size, cards = 40, 60
    sheet = np.array([[4, 4, 0], [36, 4, 0.5], [4, 36, 0.2], [36, 36, -0.3]])
    corners = r.uniform(0, size, (cards, 1, 2)) + r.normal(0, 6, (cards, 3, 2))
    points = np.concatenate([sheet, np.dstack([corners, r.normal(0, 0.6, (cards, 3))]).reshape(-1, 3)])
    points = points.astype(np.float32)
    skin = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    skin = np.concatenate([skin, skin[:, ::-1]])  # one of the two windings faces the camera
    hair = np.arange(4, 4 + 3 * cards, dtype=np.int32).reshape(-1, 3)
    surface = np.column_stack([r.uniform(-1, 1, len(points)), r.random(len(points)), np.arange(len(points)) // 3])
    surface = surface.astype(np.float32)

    def depth_of(parts):
        depth, triangle, weights = raster.empty_buffers(size, size)
        material = np.concatenate([np.full(len(t), m, np.int8) for t, m in parts])
        triangles = np.concatenate([t for t, _ in parts])
        alpha = np.ones(len(points), np.float32)
        raster.rasterize(points, triangles, material, alpha, surface, depth, triangle, weights)
        return depth, (material[triangle] == raster.HAIR) & (triangle >= 0)

    solid = (skin, raster.SKIN)
    first, seen = depth_of([solid, (hair, raster.HAIR)])
    last, _ = depth_of([(hair, raster.HAIR), solid])
    np.testing.assert_array_equal(first, last)
    assert seen.any() and not seen.all()


def test_nearest_wins_back_faces_and_cut_shells_vanish():
    near = np.array([[0, 0, 1], [8, 0, 1], [0, 8, 1]], np.float32)
    points = np.concatenate([near, near - [0, 0, 1]]).astype(np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    alpha = np.ones(6, np.float32)

    def top(order, materials, alpha=alpha):
        depth, triangle, weights = raster.empty_buffers(8, 8)
        raster.rasterize(
            points, triangles[order], np.array(materials, np.int8), alpha, points, depth, triangle, weights
        )
        return depth[1, 1]

    teeth = raster.TEETH
    assert top([0, 1], [teeth, teeth]) == 1 and top([1, 0], [teeth, teeth]) == 1
    assert top([0, 1], [raster.SKIN, teeth]) == 0  # y points down: this order faces away
    cut = np.array([-1, -1, -1, 1, 1, 1], np.float32)
    assert top([0, 1], [raster.PLAIN, raster.PLAIN], cut) == 0


def test_normals_of_an_octahedron_point_outwards():
    v = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
    t = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], np.int32)
    normals = np.empty_like(v)
    raster.vertex_normals(v, t, normals)
    np.testing.assert_allclose(normals, v, atol=1e-6)


def test_block_compression_is_close_to_jpeg():
    yy, xx = np.mgrid[:64, :64]
    grey = 128 + 50 * np.sin(xx / 7) + 40 * np.cos(yy / 3) + 20 * np.sin(xx * yy / 90)
    image = np.repeat(grey[..., None], 3, -1).astype(np.float32)
    for quality in (20, 60, 90):
        ours = image.copy()
        degrade.block_compress(ours, *degrade.quantisation(quality), degrade._DCT)
        buffer = io.BytesIO()
        Image.fromarray(np.rint(image).astype(np.uint8)).save(buffer, "JPEG", quality=quality, subsampling=2)
        theirs = np.asarray(Image.open(buffer), np.float32)
        loss = np.abs(theirs - image).mean()
        assert 0.8 * loss < np.abs(ours - image).mean() < 1.2 * loss + 0.3


def test_blur_keeps_the_mean_and_resize_is_the_identity_at_equal_size():
    image = np.random.default_rng(1).random((32, 32, 3)).astype(np.float32)
    out = np.empty_like(image)
    degrade.gaussian_blur(image, 1.5, out)
    assert abs(out.mean() - image.mean()) < 0.01 and out.std() < 0.5 * image.std()
    degrade.resize(image, out)
    np.testing.assert_allclose(out, image, atol=1e-6)
    flat = np.full((20, 20, 3), 0.3, np.float32)
    degrade.gaussian_blur(flat, 2.0, out[:20, :20].copy())
    small = np.empty((7, 7, 3), np.float32)
    degrade.resize(flat, small)
    np.testing.assert_allclose(small, 0.3, atol=1e-6)
