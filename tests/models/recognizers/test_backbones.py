import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import recognizers
from synface.models.recognizers.ir import SqueezeExcitation


@pytest.mark.parametrize(
    ("name", "count", "keys"),
    [
        ("r18", 24_025_600, 187),
        ("r34", 34_139_328, 331),
        ("r50", 43_590_848, 475),
        ("r100", 65_156_160, 925),
        ("r200", 118_833_920, 1807),
        ("mobilefacenet", 2_059_520, 333),
    ],
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


@pytest.mark.parametrize(("name", "other"), [("ir_18", "r18"), ("ir_34", "r34"), ("ir_50", "r50"), ("ir_101", "r100")])
def test_ir_is_the_improved_network_less_what_it_leaves_out(name: str, other: str):
    """One projected shortcut (64 -> 64 and its normalisation) and the last scale and shift."""
    with torch.device("meta"):
        count, of_other = (recognizers.parameter_count(recognizers.build(n)) for n in (name, other))
    assert count == of_other - (64 * 64 + 2 * 64) - 2 * 512


def test_squeeze_and_excitation_adds_two_matrices_a_block():
    with torch.device("meta"):
        plain, squeezed = recognizers.build("ir_50"), recognizers.build("ir_se50")
    blocks = ((64, 3), (128, 4), (256, 14), (512, 3))
    more = sum(depth * 2 * width * (width // 16) for width, depth in blocks)
    assert recognizers.parameter_count(squeezed) == recognizers.parameter_count(plain) + more == 43_808_320
    assert set(squeezed.state_dict()) - set(plain.state_dict()) == {
        f"body.{i}.res_layer.se_block.fc{k}.weight" for i in range(24) for k in (1, 2)
    }


def test_ir_has_adaface_names():
    with torch.device("meta"):
        keys = set(recognizers.build("ir_50").state_dict())
    assert {
        *("input_layer.0.weight", "input_layer.1.running_var", "input_layer.2.weight"),
        *("body.0.res_layer.0.weight", "body.0.res_layer.3.weight", "body.0.res_layer.5.running_mean"),
        *("body.3.shortcut_layer.0.weight", "body.3.shortcut_layer.1.bias", "body.23.res_layer.4.weight"),
        *("output_layer.0.bias", "output_layer.3.bias", "output_layer.4.running_var"),
    } <= keys
    assert not keys & {"body.0.shortcut_layer.0.weight", "output_layer.4.weight"}


def test_ir_computes_what_the_improved_network_does_with_its_weights():
    """r18 whose one extra projection passes every second pixel on is ir_18."""
    torch.manual_seed(0)
    ours, other = recognizers.build("ir_18", 24, 32), recognizers.build("r18", 24, 32)
    ours.train()(torch.randn(8, 3, 32, 32))  # running statistics that are not the defaults
    names = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu"}
    names |= {"output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}
    for i in range(8):
        block = f"layer{i // 2 + 1}.{i % 2}"
        parts = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")
        names |= {f"body.{i}.res_layer.{k}": f"{block}.{part}" for k, part in enumerate(parts)}
        names |= {f"body.{i}.shortcut_layer.{k}": f"{block}.downsample.{k}" for k in (0, 1)}
    moved = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in ours.state_dict().items()}
    state = other.state_dict() | moved
    state["layer1.0.downsample.0.weight"] = torch.eye(64)[:, :, None, None]
    state["layer1.0.downsample.1.running_var"] = torch.full((64,), 1 - 1e-5)
    assert set(moved) < set(state)
    other.load_state_dict(state)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), other.eval()(x), atol=1e-4, rtol=1e-4)


def test_squeeze_and_excitation_weights_channels():
    torch.manual_seed(0)
    module, x = SqueezeExcitation(32), torch.randn(2, 32, 5, 5)
    with torch.no_grad():
        got = module(x).numpy()
        first, second = module.fc1.weight[:, :, 0, 0].numpy(), module.fc2.weight[:, :, 0, 0].numpy()
    for image, result in zip(x.numpy(), got, strict=True):
        gate = 1 / (1 + np.exp(-second @ np.maximum(first @ image.mean((1, 2)), 0)))
        np.testing.assert_allclose(result, image * gate[:, None, None], rtol=1e-5, atol=1e-6)


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


def test_other_peoples_backbones_by_their_import_path():
    module = recognizers.build("synface.models.recognizers.tiny:TinyResNet", 8, 32)
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 8)
    with pytest.raises(InputError, match="cannot be imported"):
        recognizers.build("synface.models.recognizers.tiny:Nothing")
