"""Arc2Face on one device: embeddings in, pictures out, many at once.

The original (github foivospar/Arc2Face) takes one embedding at a time. Here a micro-batch is padded to a fixed size
and an image's noise depends on ``(seed, *key)`` alone: its bytes depend on its own embedding and key, the weights, the
settings and the device, never on the images beside it. There is no safety checker: it would black pictures out.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from torch import Tensor, nn

from synface.core import crops, rng
from synface.core.errors import InputError, SynfaceError
from synface.models import sampling
from synface.models.arc2face import files, lora
from synface.models.weights import STORED_DTYPES

PROMPT, FACE_TOKEN = "photo of a id person", "id"
#: of the ArcFace recognizer; padded with zeros to the text encoder's width
EMBEDDING_DIM = 512
#: of a picture, by the sizes of Stable Diffusion 1.5 at 64x64 latents (torch.utils.flop_counter, 2 a multiply-add)
UNET_TERAFLOP = 0.803
DECODE_TERAFLOP = 2.515
CONTROL_TERAFLOP = 0.283
#: numbers in U-Net, text encoder and VAE of Stable Diffusion 1.5
PARAMETERS = 859_520_964 + 123_060_480 + 83_653_863
CONTROL_PARAMETERS = 361_279_120
#: time steps of the process that the LCM-LoRA was distilled from; it takes some of them
LCM_TEACHER_STEPS = 50


@dataclass(frozen=True)
class Arc2faceSettings:
    """How it is sampled.

    Attributes:
        steps: network evaluations, doubled by guidance (Arc2Face: 25 of DPM-Solver++; LCM: 2 to 4).
        guidance: w of ``null + w (conditional - null)``, null being the empty prompt; 1 is none (Arc2Face: 3).
        lcm: the U-Net holds the LCM-LoRA and is sampled by the consistency model's own scheduler.
        dtype: of the networks; noise, guidance and solver are float32.
        micro_batch: pictures a forward pass, padded. Decides the last bits.
        decode_batch: pictures that the VAE decodes at once, padded.
        control_scale: factor on what a ControlNet adds to the U-Net; None: there is none.
    """

    steps: int = 25
    guidance: float = 3.0
    lcm: bool = False
    dtype: str = "float32"
    micro_batch: int = 16
    decode_batch: int = 1
    control_scale: float | None = None

    def __post_init__(self) -> None:
        most = LCM_TEACHER_STEPS if self.lcm else 1000
        if not 1 <= self.steps <= most:
            raise InputError(f"arc2face.steps = {self.steps}: from 1 to {most}{' with lcm_lora' if self.lcm else ''}")

    @classmethod
    def of(cls, lcm: bool, steps: int | None = None, guidance: float | None = None, **more: Any) -> "Arc2faceSettings":
        """With the published steps and guidance where none are given: 25 and 3, with the LCM-LoRA 4 and 1."""
        usual = cls(steps=4, guidance=1.0, lcm=True) if lcm else cls()
        given = {k: v for k, v in {"steps": steps, "guidance": guidance, **more}.items() if v is not None}
        return dataclasses.replace(usual, **given)

    @property
    def teraflop(self) -> float:
        """Of one picture, at Stable Diffusion 1.5's size."""
        step = UNET_TERAFLOP + (0 if self.control_scale is None else CONTROL_TERAFLOP)
        return self.steps * (1 if self.guidance == 1 else 2) * step + DECODE_TERAFLOP

    @property
    def network_gb(self) -> float:
        """Memory of the networks at that size; what they compute comes on top."""
        count = PARAMETERS + (0 if self.control_scale is None else CONTROL_PARAMETERS)
        return count * STORED_DTYPES[self.dtype].itemsize / 1e9


class Arc2Face:
    """Loaded weights.

    Attributes:
        image_size: side of the pictures, 512 for the published weights.
    """

    def __init__(
        self,
        found: dict[str, files.Found],
        settings: Arc2faceSettings,
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        from transformers import CLIPTextModel  # an extra

        base, own = found["base"].folder, found["weights"].folder
        self.settings, self._device, self._dtype = settings, device, STORED_DTYPES[settings.dtype]
        with _quiet():
            unet = _whole(UNet2DConditionModel, own / "arc2face")
            self._encoder = self._ready(_whole(CLIPTextModel, own / "encoder"))
            self._vae = self._ready(_whole(AutoencoderKL, base / "vae"))
            if "lcm_lora" in found:
                place = found["lcm_lora"].folder / files.LORA
                lora.merge_(unet, safetensors.torch.load_file(place), str(place))
            self._unet: Any = self._ready(unet)
            self._control = None
            if "controlnet" in found:
                self._control = self._ready(_controlnet(found["controlnet"], unet))
        size = unet.config["sample_size"]
        self._shape = (unet.config["in_channels"], size, size)
        self.image_size = files.image_size(found)
        self._width = self._encoder.config.hidden_size
        if self._width != unet.config["cross_attention_dim"] or self._width < EMBEDDING_DIM:
            raise InputError(
                f"{own}: the text encoder has width {self._width}, the U-Net attends to "
                f"{unet.config['cross_attention_dim']}: not the two parts of one Arc2Face"
            )
        self._schedule = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
        self._ids, self._place, empty = _tokens(base / "tokenizer", self._encoder.config.max_position_embeddings)
        with torch.inference_mode():
            self._null = self._encoder(input_ids=empty.to(device)).last_hidden_state
        if compiled:
            self._unet = torch.compile(self._unet)

    def _ready(self, module: nn.Module) -> Any:
        module = module.to(self._device, self._dtype).eval()
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def scheduler(self) -> DPMSolverMultistepScheduler | LCMScheduler:
        """A fresh scheduler over Stable Diffusion's noise schedule, its time steps set."""
        kind: Any = LCMScheduler if self.settings.lcm else DPMSolverMultistepScheduler
        scheduler = kind.from_config(self._schedule)
        scheduler.set_timesteps(self.settings.steps)
        return scheduler

    def encode(self, embedding_nd: Tensor) -> Tensor:
        """The prompt of each face, [n, 77, 768]: "photo of a id person", its "id" being the embedding.

        Args:
            embedding_nd: unit ArcFace embeddings [n, 512], written with zeros behind them where the table of token
                embeddings has put "id"; positions are added and the encoder runs as over any prompt.
        """
        face = torch.nn.functional.pad(embedding_nd, (0, self._width - embedding_nd.shape[1])).to(self._dtype)

        def write(module: nn.Module, given: Any, tokens: Tensor) -> Tensor:
            out = tokens.clone()
            out[:, self._place] = face
            return out

        hook = self._encoder.get_input_embeddings().register_forward_hook(write)
        try:
            ids = self._ids.to(self._device).expand(len(face), -1)
            return self._encoder(input_ids=ids).last_hidden_state
        finally:
            hook.remove()

    def sample(
        self, embedding_nd: np.ndarray, seed: int, keys: Sequence[sampling.Key], control_nhwc: np.ndarray | None = None
    ) -> np.ndarray:
        """Pictures, uint8 RGB [n, size, size, 3].

        Args:
            embedding_nd: unit embeddings float32 [n, 512].
            seed: of all noise.
            keys: one per picture, e.g. ``(identity_id, sample)``.
            control_nhwc: each picture's condition, uint8 RGB [n, size, size, 3]; with a ControlNet, and only then.

        Raises:
            InputError: embeddings or conditions of another size, conditions without a ControlNet or none with one.
            SynfaceError: the networks gave numbers that are not finite (float16 may).
        """
        n, x = len(keys), np.asarray(embedding_nd, np.float32)
        if x.shape != (n, EMBEDDING_DIM):
            raise InputError(f"embeddings {list(x.shape)} for {n} pictures: Arc2Face takes [{n}, {EMBEDDING_DIM}]")
        out = np.empty((n, self.image_size, self.image_size, 3), np.uint8)
        if (control_nhwc is None) != (self._control is None):
            raise InputError("a ControlNet and pictures for it belong together")
        if control_nhwc is not None and control_nhwc.shape != out.shape:
            raise InputError(f"conditions {list(control_nhwc.shape)}: the ControlNet takes {list(out.shape)}")
        for start in range(0, n, self.settings.micro_batch):
            rows = slice(start, min(start + self.settings.micro_batch, n))
            control = None if control_nhwc is None else control_nhwc[rows].transpose(0, 3, 1, 2) / np.float32(255)
            with torch.inference_mode():
                out[rows] = self._micro_batch(x[rows], seed, list(keys[rows]), control)
        return out

    def _micro_batch(
        self, embedding: np.ndarray, seed: int, keys: list[sampling.Key], control: np.ndarray | None
    ) -> np.ndarray:
        settings, used, size = self.settings, len(keys), self.settings.micro_batch

        def padded(rows: np.ndarray) -> Tensor:
            full = np.zeros((size, *rows.shape[1:]), np.float32)
            full[:used] = rows
            return torch.from_numpy(full).to(self._device)

        def noise(stream: str, *more: rng.KeyPart) -> Tensor:
            return padded(rng.normal_rows(seed, [(*key, stream, *more) for key in keys], self._shape))

        guided = settings.guidance != 1
        prompt = self.encode(padded(embedding))
        if guided:
            prompt = torch.cat([self._null.expand(size, -1, -1), prompt])
        condition = None
        if control is not None:
            condition = padded(control).to(self._dtype)
            condition = torch.cat([condition, condition]) if guided else condition
        scheduler: Any = self.scheduler()
        unused = torch.Generator().manual_seed(0)  # the LCM's step draws noise of its own, which is not taken
        x = noise(sampling.NOISE_STREAM) * scheduler.init_noise_sigma
        for step, t in enumerate(scheduler.timesteps):
            given = torch.cat([x, x]) if guided else x
            given = given.to(self._dtype, memory_format=torch.channels_last)
            prediction = self._predict(given, t.to(self._device), prompt, condition).float()
            if guided:
                null, conditional = prediction.chunk(2)
                prediction = null + settings.guidance * (conditional - null)
            if settings.lcm:
                _, x = scheduler.step(prediction, t, x, generator=unused, return_dict=False)
                if step + 1 < len(scheduler.timesteps):
                    after = scheduler.timesteps[step + 1].expand(size)
                    x = scheduler.add_noise(x, noise(sampling.STEP_STREAM, step), after)
            else:
                x = scheduler.step(prediction, t, x, return_dict=False)[0]
        return self._decode(x[:used], keys)

    def _predict(self, x_nchw: Tensor, t: Tensor, prompt: Tensor, condition: Tensor | None) -> Tensor:
        """The U-Net's noise, its skip connections moved by the ControlNet where there is one."""
        more = {}
        if self._control is not None:
            down, middle = self._control(
                x_nchw, t, encoder_hidden_states=prompt, controlnet_cond=condition,
                conditioning_scale=self.settings.control_scale, return_dict=False,
            )  # fmt: skip
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self._unet(x_nchw, t, encoder_hidden_states=prompt, return_dict=False, **more)[0]

    def _decode(self, x_nchw: Tensor, keys: list[sampling.Key]) -> np.ndarray:
        size = self.settings.decode_batch
        parts = []
        for start in range(0, len(x_nchw), size):
            rows = x_nchw[start : start + size] / self._vae.config.scaling_factor
            missing = size - len(rows)
            whole = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows
            whole = whole.to(self._dtype, memory_format=torch.channels_last)
            pictures = self._vae.decode(whole, return_dict=False)[0][: len(rows)].float().cpu().numpy()
            bad = np.flatnonzero(~np.isfinite(pictures).all((1, 2, 3)))
            if len(bad):
                raise SynfaceError(
                    f"arc2face gave pixels that are not finite for {keys[start + bad[0]]} in {self.settings.dtype}; "
                    "try bfloat16 or float32"
                )
            parts.append(crops.from_network(pictures))
        return np.concatenate(parts)


def _controlnet(found: files.Found, unet: UNet2DConditionModel) -> ControlNetModel:
    """A part's ControlNet. InputError where it is not one for this U-Net."""
    place = (found.folder / found.names[0]).parent
    control = _whole(ControlNetModel, place)
    for name in ("block_out_channels", "layers_per_block", "cross_attention_dim", "in_channels"):
        if control.config[name] != unet.config[name]:
            raise InputError(
                f"arc2face.controlnet {place}: {name} is {control.config[name]} there, {unet.config[name]} in the "
                "U-Net: not a ControlNet for it"
            )
    return control


def _whole(kind: Any, folder: Path) -> Any:
    """A network of diffusers or transformers in a local folder, float32; every tensor of it must be in the file."""
    try:
        module, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: cannot be loaded as {kind.__name__} ({error})") from error
    faults = [f"{k}: missing" for k in sorted(info["missing_keys"])] + [
        f"{k}: of another shape" for k in sorted(map(str, info["mismatched_keys"]))
    ]
    if faults:
        raise InputError(f"{folder}: weights of another architecture; {'; '.join(faults[:5])}")
    return module


def _tokens(folder: Path, length: int) -> tuple[Tensor, int, Tensor]:
    """Ids [1, length] of the prompt, the place of "id" in it, and the ids of the empty prompt."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def ids(text: str) -> Tensor:
        found = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return found.input_ids

    prompt = ids(PROMPT)
    face = tokenizer.encode(FACE_TOKEN, add_special_tokens=False)
    places = torch.nonzero(prompt[0] == face[0]).flatten().tolist() if len(face) == 1 else []
    if len(places) != 1:
        raise InputError(f"{folder}: {PROMPT!r} has no single token {FACE_TOKEN!r}; not Stable Diffusion's tokenizer")
    return prompt, places[0], ids("")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' advice on other ways to load, and without a bar for every file."""
    from transformers.utils import logging as bars

    log, shown = logging.getLogger("diffusers"), bars.is_progress_bar_enabled()
    before = log.level
    log.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(before)
        if shown:
            bars.enable_progress_bar()
