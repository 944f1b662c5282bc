import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.models import recognizers
from synface.models.recognizers.ir import SqueezeExcitation
from synface.models.recognizers.vit import Variant, VisionTransformer


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


@pytest.mark.parametrize(("name", "width", "depth"), [("vit_t", 256, 12), ("vit_s", 512, 12), ("vit_b", 512, 24)])
def test_vision_transformers_have_insightface_names_and_dimensions(name: str, width: int, depth: int):
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in recognizers.build(name, 512, 112).state_dict().items()}
    block = {
        **{f"norm{k}.{part}": (width,) for k in (1, 2) for part in ("weight", "bias")},
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    parts = ("weight", "bias", "running_mean", "running_var")
    expected = {
        "patch_embed.proj.weight": (width, 3, 9, 9),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, 144, width),
        "mask_token": (1, 1, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
        **{f"blocks.{i}.{k}": shape for i in range(depth) for k, shape in block.items()},
        "feature.0.weight": (width, 144 * width),
        "feature.2.weight": (512, width),
        **{f"feature.{i}.{part}": (size,) for i, size in ((1, width), (3, 512)) for part in parts},
        **{f"feature.{i}.num_batches_tracked": () for i in (1, 3)},
    }
    assert shapes == expected


def small_transformer(drop_path: float = 0.0, masked: float = 0.0) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(Variant(16, 2, drop_path, masked), embedding_dim=5, input_size=32, heads=2)


def test_a_vision_transformer_is_its_formula():
    module = small_transformer().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # no weight at its default
            parameter.normal_(std=0.3)
    w = {k: v.numpy().astype(np.float64) for k, v in module.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)

    def norm(t, name):
        scaled = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def softmax(t):
        e = np.exp(t - t.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    for image, got in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        patches = [image[:, 9 * i : 9 * i + 9, 9 * j : 9 * j + 9].ravel() for i in range(3) for j in range(3)]
        t = np.stack(patches) @ w["patch_embed.proj.weight"].reshape(16, -1).T + w["patch_embed.proj.bias"]
        t = t + w["pos_embed"][0]
        for i in range(2):
            query, key, value = np.split(norm(t, f"blocks.{i}.norm1") @ w[f"blocks.{i}.attn.qkv.weight"].T, 3, 1)
            heads = [
                softmax(query[:, h] @ key[:, h].T / np.sqrt(8)) @ value[:, h] for h in (slice(0, 8), slice(8, 16))
            ]
            t = t + np.hstack(heads) @ w[f"blocks.{i}.attn.proj.weight"].T + w[f"blocks.{i}.attn.proj.bias"]
            hidden = norm(t, f"blocks.{i}.norm2") @ w[f"blocks.{i}.mlp.fc1.weight"].T + w[f"blocks.{i}.mlp.fc1.bias"]
            t = t + np.clip(hidden, 0, 6) @ w[f"blocks.{i}.mlp.fc2.weight"].T + w[f"blocks.{i}.mlp.fc2.bias"]
        f = norm(t, "norm").ravel()
        for i in (1, 3):  # running statistics of an untrained normalisation: mean 0, variance 1
            f = (
                f @ w[f"feature.{i - 1}.weight"].T / np.sqrt(1 + 2e-5) * w[f"feature.{i}.weight"]
                + w[f"feature.{i}.bias"]
            )
        np.testing.assert_allclose(got, f, rtol=1e-4, atol=1e-4)


def test_training_masks_places_and_skips_branches():
    seen: list[torch.Tensor] = []
    module = small_transformer(masked=0.34).train()
    module.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.feature.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 3, 32, 32)
    module(x)
    assert seen[0].shape == (4, 5, 16)  # 9 places, int(9 * 0.66) are kept
    masked = (seen[1].reshape(4, 9, 16) == module.mask_token).all(2)
    assert (masked.sum(1) == 4).all() and len(masked.unique(dim=0)) > 1  # other places of other images
    module.eval()(x)
    assert seen[2].shape == (4, 9, 16)
    block = small_transformer(drop_path=0.5).blocks[1].train()
    branch = block._some(torch.ones(2000, 1, 1))
    assert set(branch.flatten().tolist()) == {0.0, 2.0} and abs(branch.mean() - 1) < 0.1
    assert (block.eval()._some(torch.ones(3, 1, 1)) == 1).all()


def test_tiny_is_small():
    module = recognizers.build("tiny", 256, 64)
    assert 1.6e6 < recognizers.parameter_count(module) < 1.8e6


def test_every_parameter_that_trains_gets_a_gradient():
    modules = [recognizers.build(name, 16, 64) for name in ("tiny", "mobilefacenet")]
    for module in [*modules, small_transformer(masked=0.2).train()]:
        size = 32 if isinstance(module, VisionTransformer) else 64
        module(torch.randn(4, 3, size, size)).square().sum().backward()
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
