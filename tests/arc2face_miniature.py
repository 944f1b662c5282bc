"""Random weights in the published layouts of Arc2Face, Stable Diffusion 1.5 and the LCM-LoRA, a few megabytes small.

The U-Net has SD 1.5's kinds of blocks, the text encoder its width (768) and causal prompt of 77 tokens, the tokenizer
its form (vocabulary and merges) with the words of Arc2Face's prompt alone.
"""

import json
from pathlib import Path

import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

WORDS = ("photo", "of", "a", "id", "person")
START, END = "<|startoftext|>", "<|endoftext|>"
#: Stable Diffusion 1.5's
SCHEDULE = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "clip_sample": False,
}  # fmt: skip
RANK, ALPHA = 4, 2.0


def build(folder: Path, with_embedder: bool = True) -> dict[str, str]:
    """Write the three parts; option -> folder."""
    torch.manual_seed(7)
    base, own, lcm = folder / "base", folder / "weights", folder / "lcm"
    size = _tokenizer(base / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32, 32, 32), layers_per_block=1, cross_attention_dim=768,
        attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "attn2.to_v" in name or "attn2.to_out.0.weight" in name:
                value *= 24  # so that the face is seen in the pictures of random weights
    unet.save_pretrained(own / "arc2face")
    _encoder(own / "encoder", size)
    if with_embedder:
        (own / "arcface.onnx").write_bytes(b"a recognizer")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 16, 16), latent_channels=4, norm_num_groups=8, sample_size=64,
    )  # fmt: skip
    vae.save_pretrained(base / "vae")
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))
    lcm.mkdir()
    safetensors.torch.save_file(lora_of(unet), lcm / "pytorch_lora_weights.safetensors")
    return {"weights": str(own), "base": str(base), "lcm_lora": str(lcm)}


def controlnet(folder: Path, places: dict[str, str]) -> str:
    """Folder of a ControlNet that moves the miniature's U-Net (no convolution is zero) and sees its pictures."""
    torch.manual_seed(8)
    unet = UNet2DConditionModel.from_pretrained(Path(places["weights"]) / "arc2face")
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 16, 16, 16))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "controlnet" in name and not value.any():
                value.copy_(0.5 * torch.randn_like(value))
            elif "controlnet_cond_embedding" in name and name.endswith("weight"):
                value *= 3  # random convolutions halve what they see, one after the other
    made.save_pretrained(folder / "controlnet")
    return str(folder)


def lora_of(unet) -> dict[str, torch.Tensor]:
    """A pair for every attention projection and every first convolution of a block, in the LCM-LoRA's own layout."""
    state = {}
    for name, layer in unet.named_modules():
        if not name.endswith((".to_q", ".to_v", ".conv1", ".proj_in")):
            continue
        key = "lora_unet_" + name.replace(".", "_")
        out, into, *kernel = layer.weight.shape
        state[f"{key}.lora_down.weight"] = torch.randn(RANK, into, *kernel) * 0.1
        state[f"{key}.lora_up.weight"] = torch.randn(out, RANK, *[1] * len(kernel)) * 0.1
        state[f"{key}.alpha"] = torch.tensor(ALPHA)
    return state


def _encoder(folder: Path, vocabulary: int) -> None:
    """As published: ``pytorch_model.bin``, its keys below ``text_model``."""
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=768, intermediate_size=32, num_hidden_layers=1, num_attention_heads=12,
        projection_dim=768, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    model = CLIPTextModel(config)
    config.save_pretrained(folder)
    state = {"text_model." + k.removeprefix("text_model."): v for k, v in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")


def _tokenizer(folder: Path) -> int:
    """Byte-pair files in which each word of the prompt is one token; the size of the vocabulary."""
    letters = sorted(set("".join(WORDS)))
    tokens, merges = [*letters, *(letter + "</w>" for letter in letters)], []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
            tokens.append(parts[0])
    tokens = [*dict.fromkeys(tokens), START, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return len(tokens)
