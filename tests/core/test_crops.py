import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.core import crops


@given(st.floats(-3, 3), st.floats(0.1, 9), st.floats(-50, 50), st.floats(-50, 50))
def test_a_similarity_is_recovered(angle, scale, dx, dy):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    source = crops.ARCFACE_TEMPLATE
    target = source @ np.array([[c, -s], [s, c]]).T + [dx, dy]
    got = crops.similarity_transform(source, target)
    np.testing.assert_allclose(source @ got[:, :2].T + got[:, 2], target, atol=1e-8)


def test_least_squares_beats_every_small_change():
    gen = np.random.default_rng(0)
    source, target = gen.normal(size=(5, 2)), gen.normal(size=(5, 2))

    def loss(a, b, x, y):
        return ((source @ np.array([[a, -b], [b, a]]).T + [x, y] - target) ** 2).sum()

    m = crops.similarity_transform(source, target)
    best = (m[0, 0], m[1, 0], m[0, 2], m[1, 2])
    for i in range(4):
        for step in (-1e-3, 1e-3):
            moved = list(best)
            moved[i] += step
            assert loss(*moved) > loss(*best)


def test_the_inverse_leads_back():
    gen = np.random.default_rng(1)
    forward = crops.similarity_transform(gen.normal(size=(5, 2)), gen.normal(size=(5, 2)))
    back = crops.inverse(forward)
    points = gen.normal(size=(7, 2))
    np.testing.assert_allclose(
        (points @ forward[:, :2].T + forward[:, 2]) @ back[:, :2].T + back[:, 2], points, atol=1e-10
    )


def test_coinciding_points_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        crops.similarity_transform(np.ones((5, 2)), crops.ARCFACE_TEMPLATE)


def test_pixels_survive_the_round_trip_and_hit_the_range():
    u8 = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = crops.to_network(u8)
    assert x.min() == -1 and x.max() == 1 and x.shape == (1, 3, 16, 16)
    assert np.array_equal(crops.from_network(x), u8)


def test_template_scales_with_the_crop():
    np.testing.assert_allclose(crops.template(56), crops.ARCFACE_TEMPLATE / 2)
