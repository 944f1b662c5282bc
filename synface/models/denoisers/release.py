"""IDiff-Face's released files as a weights folder (``synface convert --layout idiffface``).

A release is a checkpoint of the denoiser (``ema_averaged_model.ckpt``: tensors behind ``eps_model.``) and a VQ
autoencoder in two files (``first_stage_encoder_state_dict.pt``, ``first_stage_decoder_state_dict.pt``) or in one
checkpoint of latent diffusion. All sizes are read off the tensors, so that other trainings of the same code load too.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from synface.core.errors import InputError
from synface.models import checkpoints, recognizers, vq, weights
from synface.models.denoisers import generator as generators
from synface.models.denoisers.config import DENOISERS, DenoiserConfig
from synface.store import uri as uris
from synface.store.artifact import sha256_hex

LAYOUT = "idiffface"
PREFIX = "eps_model."
CONTEXT = "context_emb."
#: pixels of the pictures that the release was trained on, and how faces stand in them
IMAGE_SIZE, FRAMING = 128, "ffhq"
AUTOENCODER_FILES = ("first_stage_encoder_state_dict.pt", "first_stage_decoder_state_dict.pt")
#: of the files, as their authors state them; sizes are parameters (216.3 and 55.3 million) by 4 bytes
BRING = (
    "bring ema_averaged_model.ckpt (about 0.87 GB) of the IDiff-Face release (github.com/fdbtrs/IDiff-Face, on "
    "request, CC BY-NC-SA 4.0), and its autoencoder: a folder with first_stage_encoder_state_dict.pt and "
    "first_stage_decoder_state_dict.pt (0.22 GB), or the vq-f4 checkpoint of CompVis/latent-diffusion (MIT)"
)
#: ours: the release samples 1,000 ancestral steps
SAMPLER = {"solver": "dpmsolver++", "steps": 25}


def convert(
    uri: str,
    autoencoder: str,
    embedder: str,
    licence: str,
    training_data: str,
    output: str,
    image_size: int = IMAGE_SIZE,
) -> dict[str, Any]:
    """Make a weights folder that ``generate --generator idiffface`` draws with.

    Args:
        uri: of the denoiser's checkpoint.
        autoencoder: folder of `AUTOENCODER_FILES`, or one checkpoint of latent diffusion.
        embedder: weights folder of the recognizer whose embeddings are its contexts (ElasticFace, converted).
        licence: of the released weights.
        training_data: one sentence: what they were trained on.
        output: URI of the new folder.
        image_size: pixels.

    Returns:
        uri, architecture, parameters, sha256 of the new file and of the source.

    Raises:
        InputError: missing files (with what to bring), unsafe ones, tensors of another network, or a recognizer whose
            embeddings have another size.
    """
    data = _read(uri)
    source = sha256_hex(data)
    checkpoints.check_output(output, source)
    saved = network(checkpoints.read_tensors(data, uri), uri)
    inner = autoencoder_tensors(autoencoder)
    codec = vq_config(inner, image_size, autoencoder)
    config = denoiser_config(saved, codec.latent_size, uri)
    stated = weights.read_config(embedder)
    if stated.embedding_dim != config.embedding_dim:
        raise InputError(
            f"embedder {embedder}: gives {stated.embedding_dim} numbers, {uri} takes {config.embedding_dim}: give the "
            "recognizer that it was trained with (ElasticFace)"
        )
    with torch.random.fork_rng(devices=[]):
        module = generators.build(config, codec)
    assert isinstance(module.autoencoder, vq.VQAutoencoder)
    weights.load_state(module.denoiser, renamed(saved), uri)
    weights.load_state(module.autoencoder.model, vq.from_published(inner, codec, autoencoder), autoencoder)
    provenance = generators.Provenance(embedder.rstrip("/").split("/")[-1], stated.sha256, licence, training_data)
    described = generators.weights_config(
        module, LAYOUT, provenance, layout=LAYOUT, source_sha256=source, framing=FRAMING, sampler=SAMPLER,
        drop=0.0,
    )  # fmt: skip
    try:
        weights.save_pretrained(output, module, described)
    except ValueError as error:
        raise InputError(f"{uri}: {error}") from error
    return {
        "uri": output,
        "architecture": LAYOUT,
        "parameters": recognizers.parameter_count(module),
        "sha256": weights.read_config(output, generators.GENERATOR_KIND).sha256,
        "source_sha256": source,
    }


def _read(uri: str) -> bytes:
    if not uris.is_file(uri):
        raise InputError(f"{uri}: no such file; {BRING}")
    return uris.read_bytes(uri)


def network(saved: Any, where: str) -> dict[str, torch.Tensor]:
    """The denoiser's tensors by the release's names, without the process's constants.

    Raises:
        InputError: no such network, or one without context, or with a learned empty context.
    """
    tensors = saved if isinstance(saved, Mapping) else {}
    found = {str(k).removeprefix(PREFIX): v for k, v in tensors.items() if str(k).startswith(PREFIX)}
    if f"{CONTEXT}weight" not in found or "image_proj.weight" not in found:
        shown = ", ".join(list(map(str, tensors))[:3]) or "none"
        raise InputError(f"{where}: no denoiser of IDiff-Face ({PREFIX}{CONTEXT}weight); its first names: {shown}")
    if "empty_context_embedding" in found:
        raise InputError(f"{where}: has a learned empty context, which the release has not; not supported")
    return found


def renamed(saved: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names of a `Denoiser`: the context's map is its conditioner's."""
    return {
        f"conditioner.linear.{k.removeprefix(CONTEXT)}" if k.startswith(CONTEXT) else f"unet.{k}": v.float()
        for k, v in saved.items()
    }


def denoiser_config(saved: Mapping[str, torch.Tensor], latent_size: int, where: str) -> DenoiserConfig:
    """The description of a release's network, read off its tensors.

    Raises:
        InputError: levels of unequal depth, or no attention by context (the release's AdaGN variant).
    """
    widths: list[int] = []
    attention: list[bool] = []
    layers: list[int] = [0]
    numbers = sorted({int(k.split(".")[1]) for k in saved if k.startswith("down.")})
    for n in numbers:
        if f"down.{n}.conv.weight" in saved:
            layers.append(0)
            continue
        if layers[-1] == 0:
            widths.append(saved[f"down.{n}.res.conv1.weight"].shape[0])
            attention.append(f"down.{n}.attn.c_proj_in.weight" in saved)
        layers[-1] += 1
    tokens = saved.get("middle.attn.c_proj_in.weight")
    if tokens is None or len(set(layers)) != 1:
        raise InputError(f"{where}: no network whose blocks attend to a context (condition_type CA), level by level")
    condition_dim, embedding_dim = saved[f"{CONTEXT}weight"].shape
    count = tokens.shape[0] // condition_dim  # the release makes as many tokens as a head has channels
    named = DENOISERS[LAYOUT].as_dict()
    return DenoiserConfig(
        **{
            **named,
            "sample_size": latent_size,
            "channels": saved["image_proj.weight"].shape[1],
            "widths": tuple(widths),
            "attention": tuple(attention),
            "layers_per_block": layers[0],
            "embedding_dim": embedding_dim,
            "condition_dim": condition_dim,
            "head_channels": count,
            "context_tokens": count,
        }
    )


def autoencoder_tensors(place: str) -> dict[str, torch.Tensor]:
    """The autoencoder's tensors by the published names, from its two files or from one checkpoint.

    Raises:
        InputError: neither stands there; what to bring.
    """
    files = [place] if uris.is_file(place) else [uris.join(place, name) for name in AUTOENCODER_FILES]
    found: dict[str, torch.Tensor] = {}
    for file in files:
        saved = checkpoints.read_tensors(_read(file), file)
        state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else {}
        found |= {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    return {k: v for k, v in found.items() if re.match(r"(encoder|decoder|quantize|quant_conv|post_quant_conv)\.", k)}


def vq_config(state: Mapping[str, torch.Tensor], image_size: int, where: str) -> vq.VQConfig:
    """The description of a published autoencoder, read off its tensors.

    Raises:
        InputError: no codebook, or no encoder.
    """
    if "quantize.embedding.weight" not in state or "encoder.down.0.block.0.conv1.weight" not in state:
        shown = ", ".join(list(state)[:3]) or "none"
        raise InputError(f"{where}: no VQ autoencoder with encoder and codebook; its first names: {shown}; {BRING}")
    levels = len({k.split(".")[2] for k in state if k.startswith("encoder.down.")})
    codes, channels = state["quantize.embedding.weight"].shape
    return vq.VQConfig(
        image_size=image_size,
        widths=tuple(state[f"encoder.down.{n}.block.0.conv1.weight"].shape[0] for n in range(levels)),
        layers=len({k.split(".")[4] for k in state if k.startswith("encoder.down.0.block.")}),
        channels=channels,
        codes=codes,
    )
