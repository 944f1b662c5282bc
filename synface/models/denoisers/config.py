"""What a denoiser is made of: one frozen description that travels with its weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from synface.core.errors import InputError

Conditioning = Literal["cross_attention", "adagn", "context_attention", "block_context"]
Prediction = Literal["epsilon", "v_prediction"]
Schedule = Literal["linear", "squaredcos_cap_v2"]
#: what m meant in training: see `DenoiserConfig.mode`
Mode = Literal["paper", "relation", "hybrid", "identity", "style"]
#: angles of the head that a denoiser may be conditioned on, degrees
POSES = ("yaw", "pitch", "roll")
CHOICES: dict[str, tuple[str, ...]] = {
    "conditioning": get_args(Conditioning),
    "prediction": get_args(Prediction),
    "schedule": get_args(Schedule),
    "mode": get_args(Mode),
}


@dataclass(frozen=True)
class DenoiserConfig:
    """Architecture, diffusion process and training meaning of m.

    Attributes:
        sample_size: side of the square input, pixels or latent cells.
        channels: of the input: 3 for images, more for latents.
        widths: channels of the levels, finest first; each level but the first halves the side.
        attention: per level, whether its blocks attend (the middle block always does).
        layers_per_block: residual blocks a level.
        head_channels: width of one attention head.
        norm_groups: groups of the group normalisations.
        resblock_sampling: levels change size inside residual blocks (ADM) instead of by a plain convolution.
        embedding_dim: of E_id.
        condition_dim: size of C_att.
        conditioning: ``cross_attention``: C_att is one more key and value of every attention (the paper's);
            ``adagn``: C_att is added to the time embedding, which scales and shifts every residual block;
            ``context_attention``: self-attention, then attention to tokens of the context (IDiff-Face's);
            ``block_context``: the network of IDiff-Face's release, whose blocks make their own tokens.
        ridge: the network works on the residual around a closed-form mean of x_0 given the embedding.
        learned_range: twice the output channels, the second half for a learned variance, as in DCFace.
        prediction: what the network predicts.
        schedule: betas of the forward process, by diffusers' names.
        num_train_steps: T.
        mode: ``paper``: the target is the inquiry itself, m is a free number and works through L_SimMat;
            ``relation``: the target is another image and m its measured cosine to the inquiry; ``hybrid``:
            the relation's pairs and L_SimMat; ``identity``: there is no m, the target is the inquiry itself, and
            nothing but the squared error is learned (IDiff-Face); ``style``: the target is another image of the
            inquiry's identity, and its style is given too (DCFace).
        context_tokens: that the embedding becomes (modes identity and style).
        context_dropout: contextual partial dropout: share of the context's components dropped in training.
        style_grid: patches a side whose statistics are the style (mode style).
        pose: which angles of the head it is conditioned on besides, of `POSES`; none by default (ours).
    """

    sample_size: int
    channels: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    embedding_dim: int
    condition_dim: int
    conditioning: Conditioning
    layers_per_block: int = 1
    head_channels: int = 64
    norm_groups: int = 32
    resblock_sampling: bool = False
    ridge: bool = False
    learned_range: bool = False
    prediction: Prediction = "epsilon"
    schedule: Schedule = "linear"
    num_train_steps: int = 1000
    mode: Mode = "paper"
    context_tokens: int = 0
    context_dropout: float = 0.0
    style_grid: int = 0
    pose: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise InputError(f"denoiser {field} = {getattr(self, field)!r}; known: {', '.join(known)}")
        if len(self.attention) != len(self.widths):
            raise InputError(f"denoiser attention has {len(self.attention)} entries for {len(self.widths)} levels")
        for width, attends in zip(self.widths, (*self.attention[:-1], True), strict=True):
            if width % self.norm_groups or (attends and width % self.head_channels):
                raise InputError(
                    f"denoiser width {width}: must divide into {self.norm_groups} groups and, where it attends, "
                    f"into heads of {self.head_channels} channels"
                )
        if (self.conditioning in ("context_attention", "block_context")) != (self.mode == "identity"):
            raise InputError(
                f"denoiser conditioning = {self.conditioning!r} in mode {self.mode!r}: context_attention or "
                "block_context and mode identity belong together"
            )
        if (self.context_tokens > 0) != (self.mode in ("identity", "style")):
            raise InputError(
                f"denoiser context_tokens = {self.context_tokens}: at least 1 in modes identity and style, else 0"
            )
        if (self.style_grid > 0) != (self.mode == "style") or (self.style_grid and self.sample_size % self.style_grid):
            raise InputError(
                f"denoiser style_grid = {self.style_grid}: in mode style a divisor of the sample size "
                f"{self.sample_size}, else 0"
            )
        if self.mode == "style" and self.conditioning != "cross_attention":
            raise InputError(f"denoiser conditioning = {self.conditioning!r}: mode style works by cross_attention")
        if not 0 <= self.context_dropout < 1 or (self.context_dropout and self.mode != "identity"):
            raise InputError(
                f"denoiser context_dropout = {self.context_dropout}: in [0, 1), and for mode identity (IDiff-Face)"
            )
        if not set(self.pose) <= set(POSES) or len(set(self.pose)) != len(self.pose):
            raise InputError(f"denoiser pose = {list(self.pose)}: each at most once of {', '.join(POSES)}")
        if self.pose and self.mode == "style":
            raise InputError(f"denoiser pose = {list(self.pose)}: in mode style the style image gives the pose")
        if self.ridge and self.learned_range:
            raise InputError("denoiser ridge = true excludes learned_range = true")
        if self.learned_range and self.channels != 3:
            raise InputError("denoiser learned_range = true: it learns from a bound of pixels, not of latents")

    @property
    def of_pixels(self) -> bool:
        """Whether it works on images; the release of IDiff-Face on latents that have three channels too."""
        return self.channels == 3 and self.conditioning != "block_context"

    @property
    def scale_follows_m(self) -> bool:
        """Whether the mean of x_0 is taken at m E(x): the mean embedding of an image at cosine m to x."""
        return self.mode in ("relation", "hybrid")

    @property
    def knows_m(self) -> bool:
        """Whether the network can be asked for a similarity."""
        return self.mode in ("paper", "relation", "hybrid")

    @property
    def matches(self) -> bool:
        """Whether the loss looks at the features of x0_hat."""
        return self.mode in ("paper", "hybrid", "style")

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` inverts it."""
        return dataclasses.asdict(self)


def from_dict(data: dict[str, Any]) -> DenoiserConfig:
    """The configuration that ``as_dict`` wrote.

    Raises:
        InputError: unknown, missing or senseless fields.
    """
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return DenoiserConfig(**values)
    except TypeError as error:
        raise InputError(f"not a denoiser configuration: {error}") from error


#: the paper's size: DCFace's ADM network (128 base channels, multipliers 1-1-2-2-4-4, attention at 1/16)
FULL = DenoiserConfig(
    sample_size=112,
    channels=3,
    widths=(128, 128, 256, 256, 512, 512),
    attention=(False, False, False, False, True, False),
    embedding_dim=512,
    condition_dim=512,
    conditioning="cross_attention",
    resblock_sampling=True,
    learned_range=True,
)

#: for two cores: 16x16x8 latents of 64x64 images, identity by AdaGN and by the ridge mean
TINY = DenoiserConfig(
    sample_size=16,
    channels=8,
    widths=(64, 128, 192),
    attention=(False, False, False),
    embedding_dim=256,
    condition_dim=256,
    conditioning="adagn",
    head_channels=32,
    norm_groups=16,
    ridge=True,
    prediction="v_prediction",
    schedule="squaredcos_cap_v2",
    mode="hybrid",
)

#: the paper's conditioning at the tiny size: identity and m by cross-attention alone, no ridge mean
TINY_PAPER = dataclasses.replace(
    TINY, attention=(False, True, True), conditioning="cross_attention", ridge=False, mode="paper"
)

#: IDiff-Face at the tiny size: identity by cross-attention to its context's tokens, 25 % partial dropout (CPD25)
IDIFFFACE_TINY = dataclasses.replace(
    TINY_PAPER, conditioning="context_attention", mode="identity", context_tokens=8, context_dropout=0.25
)

#: DCFace at the tiny size: tokens of identity and style as further keys and values, the identity with the time too
DCFACE_TINY = dataclasses.replace(TINY_PAPER, mode="style", context_tokens=8, style_grid=4)

#: IDiff-Face as it was released, 216.3 M parameters: 32x32x3 latents of 128x128 images by a VQ autoencoder
IDIFFFACE = DenoiserConfig(
    sample_size=32,
    channels=3,
    widths=(96, 192, 384, 768),
    attention=(False, True, True, True),
    layers_per_block=2,
    head_channels=32,
    embedding_dim=512,
    condition_dim=256,
    conditioning="block_context",
    mode="identity",
    context_tokens=32,
    context_dropout=0.25,
)

DENOISERS: dict[str, DenoiserConfig] = {
    "cemiface": FULL,
    "cemiface-tiny": TINY,
    "cemiface-tiny-relation": dataclasses.replace(TINY, mode="relation"),
    "cemiface-tiny-adagn-paper": dataclasses.replace(TINY, mode="paper"),
    "cemiface-tiny-paper": TINY_PAPER,
    "idiffface": IDIFFFACE,
    "idiffface-tiny": IDIFFFACE_TINY,
    "dcface-tiny": DCFACE_TINY,
}
