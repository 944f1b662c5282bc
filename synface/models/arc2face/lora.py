"""LoRA weights added into a network once, so that sampling costs nothing more and needs no adapter library."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from synface.core.errors import InputError

#: (how a key of the file ends, which of the pair it is), in the two layouts that LoRAs of Stable Diffusion come in
ENDINGS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
}
PREFIXES = ("lora_unet_", "unet.")


def merge_(module: nn.Module, state: Mapping[str, Tensor], where: str) -> int:
    """In place: ``W += (alpha / rank) up down`` for every pair of the file; the number of layers changed.

    Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022), equation 3. Without an alpha in the
    file it is the rank. A convolution's `down` has the kernel, its `up` is 1x1, so that the product of the flattened
    matrices is the kernel of both after each other.

    Args:
        module: the U-Net, in float32.
        state: keys ``lora_unet_<name with underscores>.lora_down.weight`` or ``unet.<name>.lora_A.weight``.
        where: the file, for messages.

    Raises:
        InputError: an unknown key, a layer that the network does not have or of another shape, half a pair.
    """
    layers = {name.replace(".", "_"): layer for name, layer in module.named_modules()}
    pairs = _pairs(state, where)
    with torch.no_grad():
        for name, pair in pairs.items():
            layer = layers.get(name.replace(".", "_"))
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                raise InputError(f"{where}: {name}: the U-Net has no such layer; it needs a LoRA for its own kind")
            if not {"down", "up"} <= set(pair):
                raise InputError(f"{where}: {name}: down and up belong together")
            down, up = pair["down"].float().flatten(1), pair["up"].float().flatten(1)
            fits = (up.shape[0], down.shape[1]) == (len(layer.weight), layer.weight[0].numel())
            if not fits or up.shape[1] != down.shape[0]:
                raise InputError(
                    f"{where}: {name}: {list(pair['up'].shape)} by {list(pair['down'].shape)} does not fit "
                    f"{list(layer.weight.shape)}"
                )
            scale = float(pair["alpha"]) / len(down) if "alpha" in pair else 1.0
            layer.weight += (scale * (up @ down)).reshape(layer.weight.shape).to(layer.weight)
    return len(pairs)


def _pairs(state: Mapping[str, Tensor], where: str) -> dict[str, dict[str, Tensor]]:
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        ending = next((e for e in ENDINGS if key.endswith(e)), None)
        prefix = next((p for p in PREFIXES if key.startswith(p)), None)
        if ending is None or prefix is None:
            raise InputError(f"{where}: {key}: not a key of a U-Net's LoRA; known layouts: lora_unet_*, unet.*.lora_A")
        pairs.setdefault(key.removeprefix(prefix).removesuffix(ending), {})[ENDINGS[ending]] = value
    if not pairs:
        raise InputError(f"{where}: holds no LoRA")
    return pairs
