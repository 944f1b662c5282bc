import pytest
import torch

from synface.core.errors import InputError
from synface.models import recognizers


@pytest.mark.parametrize(
    ("name", "count", "keys"),
    [("r18", 24_025_600, 187), ("r50", 43_590_848, 475), ("r100", 65_156_160, 925), ("mobilefacenet", 2_059_520, 333)],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int, keys: int):
    with torch.device("meta"):
        module = recognizers.build(name, 512, 112)
    assert recognizers.parameter_count(module) == count
    assert len(module.state_dict()) == keys


def test_iresnet_has_insightface_names():
    with torch.device("meta"):
        keys = list(recognizers.build("r18").state_dict())
    assert {"conv1.weight", "bn1.weight", "prelu.weight", "bn2.running_var", "fc.bias", "features.weight"} <= set(keys)
    assert {
        "layer1.0.bn1.weight",
        "layer1.0.conv2.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.running_mean",
        "layer4.1.prelu.weight",
        "layer4.1.bn3.bias",
    } <= set(keys)


@pytest.mark.parametrize("name", ["r18", "mobilefacenet", "tiny"])
@pytest.mark.parametrize("size", [64, 112])
def test_raw_features_of_any_size(name: str, size: int):
    torch.manual_seed(0)
    module = recognizers.build(name, 48, size)
    features = module(torch.randn(3, 3, size, size))
    assert features.shape == (3, 48)
    assert torch.isfinite(features).all()
    assert not torch.allclose(features.norm(dim=1), torch.ones(3), atol=0.05)  # not normalised


def test_tiny_is_small():
    module = recognizers.build("tiny", 256, 64)
    assert 1.6e6 < recognizers.parameter_count(module) < 1.8e6


def test_every_parameter_that_trains_gets_a_gradient():
    for name in ("tiny", "mobilefacenet"):
        module = recognizers.build(name, 16, 64)
        module(torch.randn(4, 3, 64, 64)).square().sum().backward()
        assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown backbone 'r51'; known: .*mobilefacenet.*r18"):
        recognizers.build("r51")


@pytest.mark.parametrize("size", [0, 16, 100, 113])
def test_wrong_input_size_is_refused(size: int):
    with pytest.raises(InputError, match="multiple of 16"):
        recognizers.build("tiny", 256, size)
