import colorsys
import dataclasses

import numpy as np
import pytest

from synface.core import rng
from synface.train import augment
from synface.train.config import Augmentation

SIZE = 32
NOTHING = Augmentation(
    flip=0, crop_scale=(1, 1), brightness=0, contrast=0, saturation=0, hue=0, erasing=0, low_resolution=0, noise=0
)
EVERYTHING = Augmentation(shift=0.05, rotation=10, grey=0.2, erasing=0.7, low_resolution=0.5, noise=0.05)


def images(count: int = 6) -> np.ndarray:
    return rng.generator(1, "augment").integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def drawn(settings: Augmentation, count: int = 6, epoch: int = 0) -> augment.Draws:
    return augment.draw(settings, 3, epoch, np.arange(count), SIZE)


def to_pixels(x: np.ndarray) -> np.ndarray:
    return x * 127.5 + 127.5


def test_philox_gives_the_published_numbers():
    # Random123's known answers for philox4x32, 10 rounds
    ones = 0xFFFFFFFF
    answers = {
        (0, 0, 0, 0, 0, 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        (ones, ones, ones, ones, ones, ones): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): (
            0xD16CFE09,
            0x94FDCCEB,
            0x5001E420,
            0x24126EA1,
        ),
    }
    for (*counter, k0, k1), expected in answers.items():
        assert tuple(augment.philox(np.array([counter], np.uint32), (k0, k1))[0]) == expected


def test_uniforms_depend_on_seed_epoch_and_image_alone():
    together = augment.uniforms(3, 1, np.arange(50), 20)
    assert np.array_equal(augment.uniforms(3, 1, np.array([17]), 20)[0], together[17])
    assert np.array_equal(augment.uniforms(3, 1, np.array([40, 2]), 7), together[[40, 2], :7])
    assert not np.array_equal(augment.uniforms(3, 2, np.arange(50), 20), together)
    assert not np.array_equal(augment.uniforms(4, 1, np.arange(50), 20), together)
    assert augment.uniforms(0, 0, np.arange(5000), 4).mean() == pytest.approx(0.5, abs=0.01)
    large = np.array([2**32 + 1, 1])
    assert not np.array_equal(*augment.uniforms(0, 0, large, 4))


def test_an_augmented_image_does_not_depend_on_its_neighbours():
    x = images(6)
    together = augment.apply(x, drawn(EVERYTHING))
    order = np.array([4, 0, 5])
    again = augment.apply(x[order], augment.draw(EVERYTHING, 3, 0, order, SIZE))
    assert np.array_equal(again, together[order])


def test_nothing_asked_is_plain_scaling():
    x = images()
    np.testing.assert_allclose(augment.apply(x, drawn(NOTHING)), augment.plain(x), atol=1e-5)
    np.testing.assert_allclose(to_pixels(augment.plain(x)), x, atol=1e-4)


def test_flip_mirrors():
    x = images()
    out = augment.apply(x, drawn(NOTHING.model_copy(update={"flip": 1.0})))
    np.testing.assert_allclose(to_pixels(out), x[:, :, ::-1], atol=1e-3)


def test_crop_is_bilinear_resampling_inside_the_image():
    x = images(3)
    draws = drawn(NOTHING.model_copy(update={"crop_scale": (0.5, 0.9)}), 3)
    out = to_pixels(augment.apply(x, draws))
    corners = draws.affine @ np.array([[-0.5, -0.5, 1], [SIZE - 0.5, SIZE - 0.5, 1]]).T
    assert corners.min() >= -0.5 - 1e-9 and corners.max() <= SIZE - 0.5 + 1e-9
    for i, row, column in [(0, 5, 20), (1, 0, 31), (2, 16, 3)]:
        sx, sy = draws.affine[i] @ np.array([column, row, 1.0])
        sx, sy = np.clip([sx, sy], 0, SIZE - 1)
        x0, y0 = int(sx), int(sy)
        x1, y1 = min(x0 + 1, SIZE - 1), min(y0 + 1, SIZE - 1)
        fx, fy = sx - x0, sy - y0
        naive = (1 - fy) * ((1 - fx) * x[i, y0, x0] + fx * x[i, y0, x1])
        naive = naive + fy * ((1 - fx) * x[i, y1, x0] + fx * x[i, y1, x1])
        np.testing.assert_allclose(out[i, row, column], naive, atol=1e-2)


def test_a_warp_is_an_affine_map_about_the_centre():
    """Shear and stretch by hand; without them not a bit moves, and the other draws are what they were."""
    warped = NOTHING.model_copy(update={"shear": 10.0, "stretch": 0.2})
    found = drawn(warped, 200)
    u = dict(zip(augment.DRAWS, augment.uniforms(3, 0, np.arange(200), len(augment.DRAWS)).T, strict=True))
    x, y = (np.tan(np.deg2rad(10) * (2 * u[name] - 1)) for name in ("shear_x", "shear_y"))
    a = 1.2 ** (2 * u["stretch"] - 1)
    assert a.min() < 0.86 and a.max() > 1.17 and np.abs(x).max() > 0.16
    centre = np.full(2, (SIZE - 1) / 2)
    for row in range(200):
        linear = np.array([[a[row], a[row] * x[row]], [y[row] / a[row], 1 / a[row]]])
        np.testing.assert_allclose(found.affine[row, :, :2], linear, atol=1e-12)
        np.testing.assert_allclose(found.affine[row] @ [*centre, 1], centre, atol=1e-9)  # the centre stays
        assert np.linalg.det(linear) == pytest.approx(1 - x[row] * y[row])
    assert np.array_equal(augment.uniforms(3, 0, np.arange(9), 20), augment.uniforms(3, 0, np.arange(9), 23)[:, :20])
    turned = EVERYTHING.model_copy(update={"shear": 10.0})
    assert np.array_equal(drawn(turned).colour, drawn(EVERYTHING).colour)
    linear = drawn(turned).affine[:, :, :2] @ np.linalg.inv(drawn(EVERYTHING).affine[:, :, :2])
    assert np.abs(linear - np.eye(2)).max() > 0.01


def test_brightness_and_contrast_are_the_usual_formulas():
    x = images(4) // 2 + 60  # room on both sides: nothing is clipped
    u = dict(zip(augment.DRAWS, augment.uniforms(3, 0, np.arange(4), len(augment.DRAWS)).T, strict=True))
    settings = NOTHING.model_copy(update={"brightness": 0.1, "contrast": 0.2})
    out = to_pixels(augment.apply(x, drawn(settings, 4)))
    for i in range(4):
        b, c = 1 + 0.1 * (2 * u["brightness"][i] - 1), 1 + 0.2 * (2 * u["contrast"][i] - 1)
        bright = b * x[i].astype(float)
        mean = (bright @ augment.LUMA).mean()
        np.testing.assert_allclose(out[i], c * bright + (1 - c) * mean, atol=0.01)


def test_no_saturation_is_luma():
    x = images(3)
    out = to_pixels(augment.apply(x, drawn(NOTHING.model_copy(update={"grey": 1.0}), 3)))
    np.testing.assert_allclose(out, (x @ augment.LUMA)[..., None].repeat(3, -1), atol=0.01)


def test_hue_turns_colours_and_keeps_grey():
    turn = augment.rotation_about_grey(np.array([2 * np.pi / 3, 0.4]))
    np.testing.assert_allclose(turn[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)  # a third of the circle: red to green
    np.testing.assert_allclose(turn[1] @ [1, 1, 1], [1, 1, 1], atol=1e-12)
    shifted = turn[1] @ np.array([0.8, 0.3, 0.2])
    before, after = colorsys.rgb_to_hsv(0.8, 0.3, 0.2)[0], colorsys.rgb_to_hsv(*shifted)[0]
    assert after - before == pytest.approx(0.4 / (2 * np.pi), abs=0.02)


def test_erased_boxes_have_the_asked_area_and_are_grey():
    settings = NOTHING.model_copy(update={"erasing": 1.0, "erasing_area": (0.05, 0.2)})
    draws = drawn(settings, 200)
    height, width = draws.box[:, 1] - draws.box[:, 0], draws.box[:, 3] - draws.box[:, 2]
    area = height * width / SIZE**2
    assert area.min() > 0.03 and area.max() < 0.23
    assert draws.box.min() >= 0 and draws.box.max() <= SIZE
    out = augment.apply(images(6), drawn(settings))
    for i, (top, bottom, left, right) in enumerate(draws.box[:6]):
        assert (out[i, top:bottom, left:right] == 0).all()
        assert (out[i] == 0).all(-1).sum() == (bottom - top) * (right - left)


def test_erasing_happens_as_often_as_asked():
    boxes = drawn(NOTHING.model_copy(update={"erasing": 0.3}), 4000).box
    assert (boxes[:, 1] > boxes[:, 0]).mean() == pytest.approx(0.3, abs=0.03)


def test_noise_has_the_drawn_standard_deviation():
    x = np.full((4, SIZE, SIZE, 3), 128, np.uint8)
    draws = drawn(NOTHING.model_copy(update={"noise": 0.1}), 4)
    out = to_pixels(augment.apply(x, draws))
    for i in range(4):
        assert out[i].mean() == pytest.approx(128, abs=0.12 * draws.noise[i] + 1e-3)
        assert out[i].std() == pytest.approx(draws.noise[i], rel=0.05)


def test_lost_resolution_averages_blocks():
    x = images(1)
    draws = dataclasses.replace(drawn(NOTHING, 1), side=np.array([4]))
    out = to_pixels(augment.apply(x, draws))
    blocks = x[0].reshape(4, 8, 4, 8, 3).mean((1, 3))
    np.testing.assert_allclose(out[0, 0, 0], blocks[0, 0], atol=0.01)  # beyond the outer centres: the border
    middle = (out[0, 3, 3] + out[0, 3, 4] + out[0, 4, 3] + out[0, 4, 4]) / 4
    np.testing.assert_allclose(middle, blocks[0, 0], atol=np.ptp(blocks) / 16)
    assert out[0].std() < 0.5 * x[0].std()
