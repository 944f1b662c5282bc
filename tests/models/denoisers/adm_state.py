"""Random tensors under the released ADM names."""

import torch

from synface.models.denoisers import adm


def published_like(unet, description):
    """A published state whose shapes are found from our network by the table alone."""
    own, state = unet.state_dict(), {}
    for theirs, ours in adm.OUTSIDE.items():
        state |= {f"{theirs}.{part}": torch.randn_like(own[f"{ours}.{part}"]) for part in ("weight", "bias")}
    for theirs, ours, kind in adm.blocks(description):
        if kind == "residual":
            for a, b in adm.RESIDUAL.items():
                if f"{ours}.{b}.weight" in own:
                    state |= {
                        f"{theirs}.{a}.{p}": torch.randn_like(own[f"{ours}.{b}.{p}"]) for p in ("weight", "bias")
                    }
            continue
        width = len(own[f"{ours}.group_norm.weight"])
        shapes = {"norm": (width,), "qkv": (3 * width, width, 1), "proj_out": (width, width, 1)}
        for name, shape in shapes.items():
            state |= {f"{theirs}.{name}.weight": torch.randn(shape), f"{theirs}.{name}.bias": torch.randn(shape[0])}
    return state
