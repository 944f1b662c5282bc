"""Sampling a denoiser on one device: diffusers' schedulers, guidance, and noise keyed by image.

An image's noise depends on ``(seed, *key)`` alone and every forward pass has the same padded batch, so that
its bytes depend on its own key and condition, the weights, the settings, the threads and the device: never
on the images beside it, their number or their order. Under ``torch.autocast`` the network's products are
rounded; noise, guidance and the solver's steps stay float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from synface.core import crops, rng
from synface.core.errors import InputError, SynfaceError
from synface.models.autoencoder import Codec
from synface.models.denoisers.conditioning import Condition, concatenate
from synface.models.denoisers.config import DenoiserConfig
from synface.models.denoisers.unet import scheduler_arguments

Solver = Literal["ddim", "dpmsolver++"]
Key = tuple[rng.KeyPart, ...]
Scheduler = DDIMScheduler | DPMSolverMultistepScheduler
SOLVERS: tuple[str, ...] = get_args(Solver)
NOISE_STREAM = "noise"
STEP_STREAM = "step-noise"


@dataclass(frozen=True)
class SamplerSettings:
    """How a denoiser is sampled.

    Attributes:
        solver: ``ddim`` (the paper's, 20 steps) or ``dpmsolver++`` (second order; as good at half the steps).
        steps: network evaluations an image, doubled by guidance.
        guidance: w of ``null + w (conditional - null)``; 1 is none (the paper's).
        guidance_rescale: share in [0, 1] of the guided prediction brought back to the conditional one's
            standard deviation (Lin et al., "Common diffusion noise schedules and sample steps are flawed").
        guidance_interval: of t / T in which guidance works; outside it a step costs one evaluation, not two
            (Kynkaanniemi et al., "Applying guidance in a limited interval", NeurIPS 2024).
        eta: 0 is DDIM, 1 has the variance of ancestral sampling (DCFace); only with ``ddim``.
        clip: bound of the estimated x_0 at every step, for images 1; None for latents; only with ``ddim``.
        micro_batch: images a forward pass, padded. Decides the last bits.
    """

    solver: Solver = "dpmsolver++"
    steps: int = 10
    guidance: float = 1.0
    guidance_rescale: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    eta: float = 0.0
    clip: float | None = None
    micro_batch: int = 16

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise InputError(f"solver {self.solver!r}; known: {', '.join(SOLVERS)}")
        if self.steps < 1 or self.micro_batch < 1:
            raise InputError(f"steps = {self.steps}, micro_batch = {self.micro_batch}: both at least 1")
        if not (0 <= self.eta <= 1 and 0 <= self.guidance_rescale <= 1):
            raise InputError(f"eta = {self.eta}, guidance_rescale = {self.guidance_rescale}: both in [0, 1]")
        if not 0 <= self.guidance_interval[0] <= self.guidance_interval[1] <= 1:
            raise InputError(f"guidance_interval = {self.guidance_interval}: inside [0, 1], low before high")
        if self.solver != "ddim" and (self.eta or self.clip is not None):
            raise InputError("eta and clip belong to solver ddim")


class ConditionalModel(Protocol):
    """What sampling needs of a denoiser; `models.denoisers.Denoiser` is one."""

    config: DenoiserConfig

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample."""
        ...

    def condition(
        self,
        embedding_nd: torch.Tensor,
        m_n: torch.Tensor,
        kept_nk: torch.Tensor | None = None,
        style_nchw: torch.Tensor | None = None,
        pose_na: torch.Tensor | None = None,
    ) -> Condition:
        """The condition of n rows; styles and poses where `sample` is given them, `kept_nk` in training alone."""
        ...

    def null_condition(self, n: int) -> Condition:
        """The condition of nobody."""
        ...

    def __call__(self, x_nchw: torch.Tensor, t_n: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The prediction, eps or v."""
        ...


def build_scheduler(config: DenoiserConfig, settings: SamplerSettings) -> Scheduler:
    """The diffusers scheduler with its time steps set.

    Steps are spaced from the last training step backwards (``trailing``), so that sampling starts where the
    training process ended in noise; but an eps-prediction cannot start where abar is about 0 (its estimate
    of x_0 divides by sqrt(abar)), and takes DDIM's own ``leading`` spacing.
    """
    arguments: dict[str, Any] = scheduler_arguments(config)
    arguments["timestep_spacing"] = "trailing" if config.prediction == "v_prediction" else "leading"
    if settings.solver == "ddim":
        scheduler: Scheduler = DDIMScheduler(
            clip_sample=settings.clip is not None,
            clip_sample_range=1.0 if settings.clip is None else settings.clip,
            **arguments,
        )
    else:
        scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **arguments)
    if settings.steps > config.num_train_steps:
        raise InputError(f"steps = {settings.steps}: at most the {config.num_train_steps} of training")
    scheduler.set_timesteps(settings.steps)
    if settings.solver == "ddim" and config.num_train_steps % settings.steps and config.prediction == "v_prediction":
        raise InputError(
            f"steps = {settings.steps} with solver ddim: must divide {config.num_train_steps}, else diffusers' DDIM "
            "walks between time steps that are not its own and leaves noise; e.g. 10, 20, 25, 40 or 50"
        )
    return scheduler


def guided(
    conditional_nchw: torch.Tensor, null_nchw: torch.Tensor, weight_n: torch.Tensor, rescale: float = 0.0
) -> torch.Tensor:
    """Classifier-free guidance ``null + w (conditional - null)``, w per row, with Lin et al.'s rescaling.

    For negative guidance the second prediction is that of the other identity instead of nobody's.
    The rescaled prediction is multiplied by ``rescale std(conditional) / std(guided) + 1 - rescale``, the
    standard deviations over each row's c, h, w.
    """
    out = null_nchw + weight_n[:, None, None, None] * (conditional_nchw - null_nchw)
    if rescale:
        ratio = conditional_nchw.std((1, 2, 3), keepdim=True) / out.std((1, 2, 3), keepdim=True)
        out = out * (rescale * ratio + (1 - rescale))
    return out


def sample(
    model: ConditionalModel,
    embedding_nd: np.ndarray | None,
    m_n: np.ndarray,
    seed: int,
    keys: Sequence[Key],
    settings: SamplerSettings,
    guidance_n: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    negative_nd: np.ndarray | None = None,
    style_nchw: np.ndarray | None = None,
    pose_na: np.ndarray | None = None,
) -> np.ndarray:
    """Samples of the denoiser's space (images or latents), float32 [n, c, h, w].

    Args:
        model: in evaluation mode, on `device`.
        embedding_nd: unit embeddings of the inquiries; None: of nobody in particular, by the null condition.
        m_n: similarity factors in [-1, 1].
        seed: of all noise.
        keys: one per image, e.g. ``(identity_id, sample)``. Equal keys get equal noise: give all m of a row
            one key to draw the paper's figures.
        settings: solver, steps, guidance.
        guidance_n: guidance per image; None takes ``settings.guidance`` for all.
        device: a torch device.
        negative_nd: unit embeddings of whom each image shall not be: guidance is then
            ``negative + w (conditional - negative)``, with each image's own m on both sides (NegFaceDiff,
            arXiv 2508.09661, writes ``(1 + w') conditional - w' negative``: w = 1 + w'). None: the null condition.
        style_nchw: whose style each image takes, clean samples of the denoiser's space; for mode style alone.
        pose_na: angles of the head in degrees, those of the model's ``config.pose`` in its order; None, or NaN in a
            row: any pose.

    Raises:
        InputError: m outside [-1, 1] or not finite, embeddings of another size, lengths that differ; negatives
            without guidance; poses that the model does not know.
        SynfaceError: the network gave numbers that are not finite.
    """
    n = len(keys)
    embedding = None if embedding_nd is None else np.asarray(embedding_nd, np.float32)
    m = np.asarray(m_n, np.float32)
    negative = None if negative_nd is None else np.asarray(negative_nd, np.float32)
    for given in (embedding, negative):
        if given is not None and given.shape != (n, model.config.embedding_dim):
            raise InputError(
                f"embeddings {list(given.shape)} for {n} images: the generator takes [{n}, "
                f"{model.config.embedding_dim}]; embed the identities with the recognizer that it was trained with"
            )
    if m.shape != (n,) or not (np.abs(m) <= 1).all():
        raise InputError("m: one number in [-1, 1] per image")
    pose = None if pose_na is None else np.asarray(pose_na, np.float32)
    if pose is not None and (not model.config.pose or pose.shape != (n, len(model.config.pose))):
        raise InputError(f"poses {list(pose.shape)} for {n} images: the generator knows {list(model.config.pose)}")
    weight = None  # whether to guide must not depend on the images of a micro-batch
    if guidance_n is not None or settings.guidance != 1:
        weight = (
            np.full(n, settings.guidance, np.float32) if guidance_n is None else np.asarray(guidance_n, np.float32)
        )
    if negative is not None and weight is None:
        raise InputError("negative identities need guidance other than 1, e.g. 1.5")
    if embedding is None and weight is not None:
        raise InputError("images of nobody in particular cannot be guided: leave guidance at 1")
    out = np.empty((n, *model.shape), np.float32)
    for start in range(0, n, settings.micro_batch):
        rows = slice(start, min(start + settings.micro_batch, n))
        with torch.inference_mode():
            out[rows] = _micro_batch(
                model,
                None if embedding is None else embedding[rows],
                m[rows],
                None if weight is None else weight[rows],
                seed,
                list(keys[rows]),
                settings,
                torch.device(device),
                None if negative is None else negative[rows],
                None if style_nchw is None else style_nchw[rows],
                None if pose is None else pose[rows],
            )
    bad = np.flatnonzero(~np.isfinite(out).all((1, 2, 3)))
    if len(bad):
        raise SynfaceError(f"the generator gave non-finite pixels for {len(bad)} images, the first {keys[bad[0]]}")
    return out


def _micro_batch(
    model: ConditionalModel,
    embedding: np.ndarray | None,
    m: np.ndarray,
    weight: np.ndarray | None,
    seed: int,
    keys: list[Key],
    settings: SamplerSettings,
    device: torch.device,
    negative: np.ndarray | None,
    style: np.ndarray | None,
    pose: np.ndarray | None,
) -> np.ndarray:
    # a product of two or three rows may round each row its own way, by its place (seen: MKL, AMD EPYC, few columns)
    size, used = 4 if settings.micro_batch in (2, 3) else settings.micro_batch, len(keys)

    def padded(rows: np.ndarray) -> torch.Tensor:
        full = np.zeros((size, *rows.shape[1:]), np.float32)
        full[:used] = rows
        return torch.from_numpy(full).to(device)

    def noise(stream: str, *more: rng.KeyPart) -> torch.Tensor:
        return padded(rng.normal_rows(seed, [(*key, stream, *more) for key in keys], model.shape))

    scheduler = build_scheduler(model.config, settings)

    def conditioned(on: np.ndarray) -> Condition:
        more = {"style_nchw": style, "pose_na": pose}
        return model.condition(padded(on), padded(m), **{k: padded(v) for k, v in more.items() if v is not None})

    null = model.null_condition(size)
    condition = null if embedding is None else conditioned(embedding)
    weight_b = None if weight is None else padded(weight)
    other = null if negative is None else conditioned(negative)
    both_conditions = concatenate(condition, other)
    low, high = settings.guidance_interval
    x = noise(NOISE_STREAM) * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps):
        if weight_b is not None and low <= int(t) / model.config.num_train_steps <= high:
            both = model(torch.cat([x, x]), t.to(device).expand(2 * size), both_conditions).float()
            prediction = guided(both[:size], both[size:], weight_b, settings.guidance_rescale)
        else:
            prediction = model(x, t.to(device).expand(size), condition).float()
        if isinstance(scheduler, DDIMScheduler):
            extra = noise(STEP_STREAM, step) if settings.eta else None
            x = scheduler.step(prediction, int(t), x, eta=settings.eta, variance_noise=extra, return_dict=False)[0]
        else:
            x = scheduler.step(prediction, int(t), x, return_dict=False)[0]
    return x[:used].float().cpu().numpy()


def to_images(
    samples_nchw: np.ndarray, autoencoder: Codec | None, micro_batch: int = 16, device: str = "cpu"
) -> np.ndarray:
    """uint8 RGB images [n, s, s, 3] of samples: decoded by the autoencoder, or pixels already (None)."""
    if autoencoder is None:
        return crops.from_network(samples_nchw)
    size = autoencoder.config.image_size
    out = np.empty((len(samples_nchw), size, size, 3), np.uint8)
    batch = np.zeros((micro_batch, *samples_nchw.shape[1:]), np.float32)
    with torch.inference_mode():
        for start in range(0, len(samples_nchw), micro_batch):
            rows = samples_nchw[start : start + micro_batch]
            batch[: len(rows)] = rows
            z = torch.from_numpy(batch).to(device).contiguous(memory_format=torch.channels_last)
            x = autoencoder.decode(z)[: len(rows)]
            out[start : start + len(rows)] = crops.from_network(x.float().cpu().numpy())
    return out
