"""Merged LoRA weights against the adapter run beside its layer."""

import pytest
import torch
from torch import nn

from synface.core.errors import InputError
from synface.models.arc2face import lora


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mid = nn.ModuleDict({"to_q": nn.Linear(6, 5), "conv_in": nn.Conv2d(3, 4, 3, padding=1)})


def pairs(net, alpha=None):
    """Name -> (down, up, the scale that alpha means)."""
    torch.manual_seed(1)
    linear = (torch.randn(2, 6), torch.randn(5, 2))
    conv = (torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1))
    return {"mid.to_q": linear, "mid.conv_in": conv}, 1.0 if alpha is None else alpha / 2


@pytest.mark.parametrize("alpha", [None, 8.0])
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_merged_is_the_adapter_beside_its_layer(alpha, layout):
    torch.manual_seed(0)
    net = Net()
    found, scale = pairs(net, alpha)
    x, y = torch.randn(3, 6), torch.randn(2, 3, 5, 5)
    (down_l, up_l), (down_c, up_c) = found["mid.to_q"], found["mid.conv_in"]
    linear = net.mid["to_q"](x) + scale * (x @ down_l.T @ up_l.T)
    adapter = nn.functional.conv2d(nn.functional.conv2d(y, down_c, padding=1), up_c)
    conv = net.mid["conv_in"](y) + scale * adapter
    state = {}
    for name, (down, up) in found.items():
        key = "lora_unet_" + name.replace(".", "_") if layout == "kohya" else f"unet.{name}"
        ends = (".lora_down.weight", ".lora_up.weight") if layout == "kohya" else (".lora_A.weight", ".lora_B.weight")
        state |= {key + ends[0]: down, key + ends[1]: up}
        if alpha is not None:
            state[key + ".alpha"] = torch.tensor(alpha)
    assert lora.merge_(net, state, "file") == 2
    torch.testing.assert_close(net.mid["to_q"](x), linear, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.mid["conv_in"](y), conv, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({}, "holds no LoRA"),
        ({"lora_te_x.alpha": torch.tensor(1.0)}, "not a key of a U-Net's LoRA"),
        ({"lora_unet_mid_gone.lora_up.weight": torch.ones(5, 2)}, "no such layer"),
        ({"lora_unet_mid_to_q.lora_up.weight": torch.ones(5, 2)}, "belong together"),
        (
            {
                "lora_unet_mid_to_q.lora_up.weight": torch.ones(5, 2),
                "lora_unet_mid_to_q.lora_down.weight": torch.ones(2, 7),
            },
            r"\[5, 2\] by \[2, 7\] does not fit \[5, 6\]",
        ),
    ],
)
def test_files_for_other_networks_are_refused(state, match):
    with pytest.raises(InputError, match=match):
        lora.merge_(Net(), state, "file")
