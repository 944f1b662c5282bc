"""The files of Arc2Face that users bring: where they are looked for, what they are, and their digests."""

import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from synface.core.errors import InputError
from synface.settings import canonical_json
from synface.store.artifact import sha256_hex

HUB = "hf://"
#: files that share a name's place, the first that is found is read
UNET = "arc2face/diffusion_pytorch_model.safetensors"
ENCODER = ("encoder/model.safetensors", "encoder/pytorch_model.bin")
VAE = "vae/diffusion_pytorch_model.safetensors"
LORA = "pytorch_lora_weights.safetensors"
EMBEDDER = "arcface.onnx"
#: in Arc2Face's repository, or any ControlNet's own folder
CONTROL_CONFIG = ("controlnet/config.json", "config.json")
CONTROLNET = ("controlnet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors")
RESEARCH = "non-commercial research"


@dataclass(frozen=True)
class Expected:
    """One file of a part: its name (or one of several), about how large it is, whether nothing works without it."""

    names: tuple[str, ...]
    size: str
    needed: bool = True


@dataclass(frozen=True)
class Part:
    """One download: what is looked for at an option, from where, under which licence (as its authors state it)."""

    option: str
    title: str
    hub: str
    licence: str
    files: tuple[Expected, ...]
    optional: bool = False


#: sizes: millions of parameters (859.5, 123.1, 83.7, 65.2, 67.5 and 361.3) by the 4, or for the LoRA 2, bytes of each
PARTS = (
    Part(
        "weights",
        "Arc2Face U-Net and face encoder",
        "FoivosPar/Arc2Face",
        f"MIT by its model card; trained on WebFace42M, which is for {RESEARCH}",
        (
            Expected(("arc2face/config.json",), "2 kB"),
            Expected((UNET,), "3.44 GB"),
            Expected(("encoder/config.json",), "1 kB"),
            Expected(ENCODER, "0.49 GB"),
            Expected((EMBEDDER,), "0.26 GB; only to know its embeddings by", needed=False),
        ),
    ),
    Part(
        "base",
        "Stable Diffusion 1.5 (VAE, tokenizer, noise schedule)",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "CreativeML Open RAIL-M",
        (
            Expected(("vae/config.json",), "1 kB"),
            Expected((VAE,), "0.33 GB"),
            Expected(("tokenizer/vocab.json",), "1 MB"),
            Expected(("tokenizer/merges.txt",), "0.5 MB"),
            Expected(("scheduler/scheduler_config.json",), "1 kB"),
        ),
    ),
    Part(
        "lcm_lora",
        "LCM-LoRA for Stable Diffusion 1.5",
        "latent-consistency/lcm-lora-sdv1-5",
        "OpenRAIL++",
        (Expected((LORA,), "0.14 GB"),),
        optional=True,
    ),
    Part(
        "controlnet",
        "ControlNet on top of Arc2Face (head pose, as rendered by EMOCA), or another of Stable Diffusion 1.5",
        "FoivosPar/Arc2Face",
        f"MIT by its model card; its conditions are made with EMOCA and FLAME, which are for {RESEARCH}",
        (Expected(CONTROL_CONFIG, "1 kB"), Expected(CONTROLNET, "1.45 GB")),
        optional=True,
    ),
)


@dataclass(frozen=True)
class Found:
    """A part that is there: its folder, its files by name, and one digest of what decides pixels."""

    part: Part
    folder: Path
    names: tuple[str, ...]
    sha256: str


def check_installed() -> None:
    """InputError without ``transformers``, which has the text encoder."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError('generator arc2face needs the text encoder of transformers: pip install "synface[arc2face]"')


def find(places: dict[str, str | None]) -> dict[str, Found]:
    """Option -> the part that stands at its place. A hub id is downloaded into the hub's own cache first.

    Args:
        places: option -> folder or ``hf://`` id; those of optional parts may be None.

    Raises:
        InputError: anything is missing: every expected file is listed, with its size, source and licence.
    """
    parts = [p for p in PARTS if not p.optional or places.get(p.option) is not None]
    folders = {p.option: _folder(p, places.get(p.option)) for p in parts}
    missing = [p for p in parts if _missing(p, folders[p.option])]
    if missing:
        lines = [line for p in missing for line in _explain(p, places.get(p.option), folders[p.option])]
        raise InputError("\n".join(["generator arc2face: files are missing; synface ships none of them", *lines]))
    return {p.option: _found(p, folder) for p in parts if (folder := folders[p.option]) is not None}


def _folder(part: Part, place: str | None) -> Path | None:
    """The local folder of a place, whether it holds anything or not."""
    if place is None or not place.startswith(HUB):
        return None if place is None else Path(place.removeprefix("file://")).expanduser().absolute()
    import huggingface_hub  # slow, and not needed for local folders

    name, _, revision = place.removeprefix(HUB).partition("@")
    patterns = [n for e in part.files for n in e.names] + ["tokenizer/*.json"] * (part.option == "base")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # whatever network, hub and cache may raise
        raise InputError(
            f"arc2face.{part.option} {place}: cannot be fetched ({type(error).__name__}: {error}); download "
            f"{part.hub} yourself and give the folder"
        ) from error


def _missing(part: Part, folder: Path | None) -> bool:
    return folder is None or any(e.needed and _name(folder, e) is None for e in part.files)


def _name(folder: Path, expected: Expected) -> str | None:
    return next((name for name in expected.names if (folder / name).is_file()), None)


def _explain(part: Part, place: str | None, folder: Path | None) -> list[str]:
    where = f"at {folder}" if folder is not None else f"give a folder, or {HUB}{part.hub} to fetch it"
    lines = [f"  arc2face.{part.option}: {part.title}; {where}"]
    if folder is not None and place is not None and not folder.is_dir():
        lines[0] += f" (no such folder; the hub's are written {HUB}owner/name)"
    for expected in part.files:
        state = "there" if folder is not None and _name(folder, expected) else "missing"
        lines.append(f"    {' or '.join(expected.names)} ({expected.size}): {state}")
    return [*lines, f"    from https://huggingface.co/{part.hub}; licence: {part.licence}"]


def _found(part: Part, folder: Path) -> Found:
    names = tuple(name for e in part.files if (name := _name(folder, e)) is not None)
    deciding = {name: file_digest(folder / name) for name in names if name != EMBEDDER}
    return Found(part, folder, names, sha256_hex(canonical_json(deciding).encode()))


def image_size(found: dict[str, Found]) -> int:
    """Side of the pictures, pixels, by the networks' configurations.

    Raises:
        InputError: they are not configurations of diffusers.
    """
    unet, vae = found["weights"].folder / "arc2face" / "config.json", found["base"].folder / "vae" / "config.json"
    try:
        levels = len(json.loads(vae.read_text())["block_out_channels"])
        return int(json.loads(unet.read_text())["sample_size"]) * 2 ** (levels - 1)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{unet}, {vae}: not the configurations of a U-Net and its VAE ({error!r})") from error


def file_digest(path: Path) -> str:
    """sha256 of a file, read once for as long as its size and time stay."""
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(64)
def _digest(path: str, size: int, time_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
