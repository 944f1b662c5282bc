"""The released ADM layout (guided diffusion's U-Net, which DCFace's checkpoints and their FFHQ start have) and ours.

Names as in github.com/mk-minchul/dcface, ``src/models/unet.py``: ``input_blocks.N.M``, ``middle_block.M``,
``output_blocks.N.M``, ``time_embed.M``, ``out.M``, in a Lightning checkpoint behind ``model.``. The networks
compute the same, part by part, but the release halves 112 pixels one time less (its 7x7 stays 7x7 at the
fifth step), where ours pads them to 128: the tensors are a start for training, not a network to sample.

Further keys and values of the attention come in the release from one map for all blocks,
``external_mapping.cross_attn_adapter``; here each block has its own, which all start as that one. DCFace's other parts
(a trainable recognizer for the identity's tokens, batch-normalised style statistics of a frozen one) have no
counterpart and are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from synface.core.errors import InputError
from synface.models.denoisers.config import DenoiserConfig

#: a Lightning checkpoint keeps its tensors here, the network behind the prefix
STATE_KEY, PREFIX = "state_dict", "model."
ADAPTER = "external_mapping.cross_attn_adapter"
#: parts of a residual block and of an attention block; a convolution over positions is a linear map here
RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip


def blocks(config: DenoiserConfig) -> Iterator[tuple[str, str, str]]:
    """(published name, our name, kind) of every block; kinds: residual, attention."""
    count, levels = 0, range(len(config.widths))
    for level in levels:
        for layer in range(config.layers_per_block):
            count += 1
            yield f"input_blocks.{count}.0", f"down_blocks.{level}.resnets.{layer}", "residual"
            if config.attention[level]:
                yield f"input_blocks.{count}.1", f"down_blocks.{level}.attentions.{layer}", "attention"
        if level != levels[-1]:
            count += 1
            yield f"input_blocks.{count}.0", f"down_blocks.{level}.downsamplers.0", "residual"
    yield "middle_block.0", "mid_block.resnets.0", "residual"
    yield "middle_block.1", "mid_block.attentions.0", "attention"
    yield "middle_block.2", "mid_block.resnets.1", "residual"
    for place, level in enumerate(reversed(levels)):
        for layer in range(config.layers_per_block + 1):
            name, part = f"output_blocks.{place * (config.layers_per_block + 1) + layer}", 1
            yield f"{name}.0", f"up_blocks.{place}.resnets.{layer}", "residual"
            if config.attention[level]:
                yield f"{name}.1", f"up_blocks.{place}.attentions.{layer}", "attention"
                part = 2
            if level and layer == config.layers_per_block:
                yield f"{name}.{part}", f"up_blocks.{place}.upsamplers.0", "residual"


def trunk(saved: Any, where: str) -> dict[str, torch.Tensor]:
    """The network's tensors (and the adapter's) of what a file holds: a plain state dict, or a Lightning checkpoint.

    Raises:
        InputError: neither.
    """
    state = saved[STATE_KEY] if isinstance(saved, Mapping) and STATE_KEY in saved else saved
    if not isinstance(state, Mapping):
        raise InputError(f"{where}: holds no state dict")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    network = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)} or tensors
    if "input_blocks.0.0.weight" not in network:
        shown = ", ".join(list(tensors)[:3]) or "none"
        raise InputError(f"{where}: no ADM network (input_blocks.0.0.weight); its first names: {shown}")
    return network | {k: v for k, v in tensors.items() if k.startswith(ADAPTER)}


def converted(state: Mapping[str, torch.Tensor], config: DenoiserConfig, where: str) -> dict[str, torch.Tensor]:
    """Tensors of `trunk` by the names and in the shapes of ``Denoiser(config).unet``, float32.

    Without an adapter (the FFHQ start) the attention's further keys and values are not among them.

    Raises:
        InputError: a tensor is missing, as where the network has other levels than `config`.
    """
    head = config.head_channels

    def take(name: str) -> torch.Tensor:
        if name not in state:
            raise InputError(f"{where}: no tensor {name!r}; is it a network of levels {list(config.widths)}?")
        return state[name].float()

    def pair(theirs: str, ours: str) -> dict[str, torch.Tensor]:
        return {f"{ours}.{part}": take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def split(theirs: str, parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Rows stand head by head, within a head part by part."""
        found = {}
        for part in ("weight", "bias"):
            rows = take(f"{theirs}.{part}")
            rows = rows.squeeze(-1) if part == "weight" else rows
            cut = rows.reshape(-1, len(parts), head, *rows.shape[1:])
            found |= {f"{name}.{part}": cut[:, i].flatten(0, 1) for i, name in enumerate(parts)}
        return found

    out: dict[str, torch.Tensor] = {}
    for theirs, ours in OUTSIDE.items():
        out |= pair(theirs, ours)
    for theirs, ours, kind in blocks(config):
        if kind == "residual":
            for a, b in RESIDUAL.items():
                if a != "skip_connection" or f"{theirs}.{a}.weight" in state:
                    out |= pair(f"{theirs}.{a}", f"{ours}.{b}")
            continue
        out |= pair(f"{theirs}.norm", f"{ours}.group_norm")
        out |= {f"{ours}.{k}": v for k, v in split(f"{theirs}.qkv", ("to_q", "to_k", "to_v")).items()}
        out |= {k: v.squeeze(-1) for k, v in pair(f"{theirs}.proj_out", f"{ours}.to_out.0").items()}
        if f"{ADAPTER}.weight" in state:
            out |= {f"{ours}.{k}": v for k, v in split(ADAPTER, ("add_k_proj", "add_v_proj")).items()}
    return out


def start(unet: torch.nn.Module, saved: Any, config: DenoiserConfig, where: str) -> None:
    """Put a released network's tensors in place, as `fitted` says."""
    unet.load_state_dict(fitted(unet.state_dict(), saved, config, where))


def fitted(own: Mapping[str, torch.Tensor], saved: Any, config: DenoiserConfig, where: str) -> dict[str, torch.Tensor]:
    """`own` with a released network's tensors; what that has not (further keys and values) stays as it is.

    Raises:
        InputError: not such a network, or tensors of other shapes; the first one is shown.
    """
    if not (config.resblock_sampling and config.conditioning == "cross_attention"):
        raise InputError(f"{where}: starts the denoiser 'cemiface' and its like (resblock_sampling, cross_attention)")
    found = converted(trunk(saved, where), config, where)
    for name, value in found.items():
        if name not in own or own[name].shape != value.shape:
            shape = list(own[name].shape) if name in own else "not there"
            raise InputError(f"{where}: {name} is {list(value.shape)} there, {shape} in the denoiser")
    missing = [name for name in own if name not in found and "add_k_proj" not in name and "add_v_proj" not in name]
    if missing:
        raise InputError(f"{where}: says nothing of {missing[0]}")
    return {**own, **found}
