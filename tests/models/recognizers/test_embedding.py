import numpy as np
import pytest
import torch

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.models import recognizers
from synface.models.embedding import Embedder
from synface.models.weights import WeightsConfig

SIZE, DIM = 64, 24


def embedder(micro_batch: int = 8) -> Embedder:
    torch.manual_seed(2)
    module = recognizers.build("tiny", DIM, SIZE)
    module(torch.randn(16, 3, SIZE, SIZE))
    config = WeightsConfig("tiny", DIM, SIZE, licence="none", training_data="none", sha256="0" * 64)
    return Embedder(module, config, "test", threads=1, micro_batch=micro_batch)


def images(count: int) -> np.ndarray:
    return rng.generator(0, "images").integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def test_features_are_those_of_the_bare_network():
    model, x = embedder(), images(11)
    with torch.no_grad():
        expected = model._module(torch.from_numpy(crops.to_network(x))).numpy()
    np.testing.assert_allclose(model.features(x), expected, atol=2e-5)


def test_an_embedding_is_bitwise_independent_of_its_neighbours():
    model, x = embedder(), images(21)
    together = model.features(x)
    for i in (0, 7, 8, 13, 20):
        assert np.array_equal(model.features(x[i : i + 1])[0], together[i])
    order = rng.permutation(len(x), 5)
    assert np.array_equal(model.features(x[order]), together[order])


def test_unit_norm_and_mirror_rule():
    model, x = embedder(), images(5)
    plain = model.embed(x)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-6)
    total = model.features(x) + model.features(np.ascontiguousarray(x[:, :, ::-1]))
    np.testing.assert_allclose(
        model.embed(x, flip=True), total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-6
    )
    mirrored = model.embed(np.ascontiguousarray(x[:, :, ::-1]), flip=True)
    np.testing.assert_allclose(model.embed(x, flip=True), mirrored, atol=1e-6)


def test_attributes_and_empty_input():
    model = embedder()
    assert (model.name, model.dim, model.size, model.sha256) == ("test", DIM, SIZE, "0" * 64)
    assert model.embed(np.zeros((0, SIZE, SIZE, 3), np.uint8)).shape == (0, DIM)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 112, 112, 3), np.uint8),
        np.zeros((2, SIZE, SIZE, 3), np.float32),
        np.zeros((2, 3, SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
    ],
)
def test_images_of_another_size_or_type_are_refused(bad):
    with pytest.raises(InputError, match=r"expected uint8 RGB \[n, 64, 64, 3\]"):
        embedder().features(bad)
