"""The denoisers of CemiFace, DCFace and IDiff-Face on diffusers' U-Nets.

CemiFace (Sun et al., NeurIPS 2024, arXiv 2409.18876) takes DCFace's ADM network, feeds
``C_att = F2(cat(E_id(x), F1(m)))`` as one more key and value into its attention,
``softmax(Q Wq ([K, Kc] Wk)^T / sqrt(d)) Wv [V, Vc]``, gives the time by AdaGN and removes the identity from the
residual blocks. diffusers' "simple cross-attention" blocks are that attention (extra key and value
projections beside the latent's own) and its ``scale_shift`` residual blocks are AdaGN.

IDiff-Face (Boutros et al., ICCV 2023, arXiv 2308.04995) attends to itself, then to the context, then applies a small
feed-forward network, at every level that attends: diffusers' "cross-attention" blocks. The network of its release is
`block_context`.
"""

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn
from torch.nn import functional

from synface.models.denoisers.block_context import BlockContextUNet
from synface.models.denoisers.conditioning import (
    Condition,
    Conditioner,
    Context,
    DualCondition,
    PoseCondition,
    PoseMean,
    RidgeMean,
    SharedContext,
)
from synface.models.denoisers.config import DenoiserConfig


def alphas_cumprod(config: DenoiserConfig) -> torch.Tensor:
    """abar_t of the forward process ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps``, float32 [T]."""
    return DDPMScheduler(**scheduler_arguments(config)).alphas_cumprod


def scheduler_arguments(config: DenoiserConfig) -> dict:
    """Constructor arguments of diffusers' schedulers that describe the forward process of `config`."""
    return {
        "num_train_timesteps": config.num_train_steps,
        "beta_schedule": config.schedule,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": config.prediction,
    }


def padding_of(config: DenoiserConfig) -> int:
    """Cells to add on each side so that every level halves evenly; 8 for 112x112 on six levels.

    Padding is ours: DCFace's released network takes 112x112 as they are and leaves out one of the five halvings (7x7
    stays 7x7).
    """
    step = 2 ** (len(config.widths) - 1)
    missing = -config.sample_size % step
    if missing % 2:
        raise ValueError(f"sample size {config.sample_size} cannot be padded evenly to a multiple of {step}")
    return missing // 2


def build_backbone(config: DenoiserConfig) -> nn.Module:
    """The U-Net of a configuration, freshly initialised from torch's global generator."""
    if config.conditioning == "block_context":
        return BlockContextUNet(config)
    shared = {
        "sample_size": config.sample_size + 2 * padding_of(config),
        "in_channels": config.channels * (2 if config.ridge else 1),
        "out_channels": config.channels * (2 if config.learned_range else 1),
        "block_out_channels": config.widths,
        "layers_per_block": config.layers_per_block,
        "attention_head_dim": config.head_channels,
        "norm_num_groups": config.norm_groups,
        "resnet_time_scale_shift": "scale_shift",
    }
    crossing = config.conditioning == "cross_attention"
    if config.conditioning == "context_attention":
        return UNet2DConditionModel(
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=config.condition_dim,
            # for these blocks diffusers takes the number of heads under this name
            **{**shared, "attention_head_dim": tuple(max(1, w // config.head_channels) for w in config.widths)},
        )
    attending = "SimpleCrossAttn" if crossing else "Attn"
    if config.resblock_sampling and crossing:
        plain_down, plain_up = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    else:
        plain_down, plain_up = "DownBlock2D", "UpBlock2D"
    down = tuple(f"{attending}DownBlock2D" if a else plain_down for a in config.attention)
    up = tuple(f"{attending}UpBlock2D" if a else plain_up for a in reversed(config.attention))
    if crossing:
        return UNet2DConditionModel(
            down_block_types=down,
            up_block_types=up,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            cross_attention_dim=config.condition_dim,
            class_embed_type="identity" if config.mode == "style" else None,  # what is added to the time embedding
            **shared,
        )
    sampling = "resnet" if config.resblock_sampling else "conv"
    return UNet2DModel(
        down_block_types=down,
        up_block_types=up,
        class_embed_type="identity",
        downsample_type=sampling,
        upsample_type=sampling,
        **shared,
    )


def build_conditioner(config: DenoiserConfig) -> Conditioner | Context | SharedContext | DualCondition:
    """What makes of an embedding (and m) the tensor that the network is conditioned on."""
    sizes = config.embedding_dim, config.condition_dim
    if config.conditioning == "block_context":
        return SharedContext(*sizes, config.context_dropout)
    if config.conditioning == "context_attention":
        return Context(*sizes, config.context_tokens, config.context_dropout)
    if config.mode == "style":
        return DualCondition(*sizes, config.context_tokens, config.channels, config.style_grid, 4 * config.widths[0])
    return Conditioner(*sizes, linear=config.conditioning == "cross_attention")


class Denoiser(nn.Module):
    """Predicts eps or v of x_t from t, an identity's embedding and, where it knows one, the similarity factor m.

    With ``config.ridge`` the network sees the residual around xbar, a closed-form mean of x_0, and xbar
    itself: ``x_t - sqrt(abar) xbar = sqrt(abar) (x_0 - xbar) + sqrt(1 - abar) eps`` is the same process on
    the residual, so its eps is the eps of x_t and its ``v = sqrt(abar) eps - sqrt(1 - abar) (x_0 - xbar)``
    lacks only ``- sqrt(1 - abar) xbar``. The outer process, and so every scheduler, is unchanged.
    """

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        self.config = config
        self.unet = build_backbone(config)
        if config.conditioning == "adagn" and config.condition_dim != 4 * config.widths[0]:
            raise ValueError(f"AdaGN adds C_att to the time embedding: condition_dim must be {4 * config.widths[0]}")
        self.conditioner = build_conditioner(config)
        self.mean = RidgeMean(config.embedding_dim, self.shape) if config.ridge else None
        self.pose = PoseCondition(len(config.pose), config.condition_dim) if config.pose else None
        self.pose_mean = PoseMean(len(config.pose), self.shape) if config.pose and config.ridge else None
        self.register_buffer("alphas_cumprod", alphas_cumprod(config), persistent=False)
        self.alphas_cumprod: torch.Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample."""
        return (self.config.channels, self.config.sample_size, self.config.sample_size)

    def condition(
        self,
        embedding_nd: torch.Tensor,
        m_n: torch.Tensor,
        kept_nk: torch.Tensor | None = None,
        style_nchw: torch.Tensor | None = None,
        pose_na: torch.Tensor | None = None,
    ) -> Condition:
        """The condition of unit embeddings [n, d] and similarity factors [n] (unused where the mode knows none).

        In training `kept_nk` says which components partial dropout keeps, bool [n, condition_dim]. Mode style needs
        `style_nchw`, whose style the samples take: clean samples of the denoiser's space. `pose_na` holds the angles
        of ``config.pose`` in degrees; None or rows of NaN: any pose.
        """
        mean = None
        if self.mean is not None:
            mean = self.mean(embedding_nd * m_n[:, None] if self.config.scale_follows_m else embedding_nd)
            if self.pose_mean is not None and pose_na is not None:
                mean = mean + self.pose_mean(pose_na)
        if isinstance(self.conditioner, Context | SharedContext):
            return Condition(self._posed(self.conditioner(embedding_nd, kept_nk), pose_na), mean)
        if isinstance(self.conditioner, DualCondition):
            tokens, time = self.conditioner(embedding_nd, style_nchw)
            return Condition(tokens, mean, time)
        return Condition(self._posed(self.conditioner(embedding_nd, m_n), pose_na), mean)

    def _posed(self, attention: torch.Tensor, pose_na: torch.Tensor | None) -> torch.Tensor:
        """C_att, or each of the context's tokens, with the pose added."""
        if self.pose is None or pose_na is None:
            return attention
        added = self.pose(pose_na)
        return attention + (added if attention.ndim == 2 else added[:, None])

    def null_condition(self, n: int) -> Condition:
        """The condition of "nobody", for classifier-free guidance."""
        mean = None if self.mean is None else self.mean.null(n)
        if isinstance(self.conditioner, Context):
            return Condition(self.conditioner.expand(self.conditioner.null[None]).expand(n, -1, -1), mean)
        if isinstance(self.conditioner, DualCondition):
            tokens, time = self.conditioner.nobody(n)
            return Condition(tokens, mean, time)
        return Condition(self.conditioner.null[None].expand(n, -1), mean)

    def forward(self, x_nchw: torch.Tensor, t_n: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Noise or velocity [n, c, h, w] of x_t [n, c, h, w] at steps [n] (int64, 0 ... T - 1)."""
        return self.with_range(x_nchw, t_n, condition)[0]

    def with_range(
        self, x_nchw: torch.Tensor, t_n: torch.Tensor, condition: Condition
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `forward`, with the raw variance channels where the range is learned, else None."""
        abar = self.alphas_cumprod[t_n].to(x_nchw.dtype)[:, None, None, None]
        mean = condition.mean_nchw
        if mean is None:
            out = self._network(x_nchw, t_n, condition)
        else:
            out = self._network(torch.cat([x_nchw - abar.sqrt() * mean, mean], 1), t_n, condition)
            if self.config.prediction == "v_prediction":
                out = out - (1 - abar).sqrt() * mean
        if self.config.learned_range:
            prediction, variance = out.chunk(2, 1)
            return prediction, variance
        return out, None

    def _network(self, x_nchw: torch.Tensor, t_n: torch.Tensor, condition: Condition) -> torch.Tensor:
        attention_nk = condition.attention_nk
        pad = padding_of(self.config)
        if pad:
            x_nchw = functional.pad(x_nchw, (pad, pad, pad, pad), mode="reflect")
        x_nchw = x_nchw.contiguous(memory_format=torch.channels_last)
        if self.config.conditioning == "block_context":
            out = self.unet(x_nchw, t_n, attention_nk)
        elif self.config.conditioning == "adagn":
            out = self.unet(x_nchw, t_n, class_labels=attention_nk).sample
        else:
            tokens = attention_nk if attention_nk.ndim == 3 else attention_nk[:, None]
            out = self.unet(x_nchw, t_n, encoder_hidden_states=tokens, class_labels=condition.time_nk).sample
        return out[:, :, pad : out.shape[2] - pad, pad : out.shape[3] - pad] if pad else out
