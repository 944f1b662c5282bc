"""The U-Net of IDiff-Face's release: every block that attends makes its own tokens of the context.

The structure and the names of the tensors are those of the released checkpoints (github.com/fdbtrs/IDiff-Face,
``models/diffusion/unet.py``), so that they load as they are; paper: Boutros et al., ICCV 2023, arXiv 2308.04995.
It differs from diffusers' networks in four things: scale and shift of a residual block each have a map behind the
time's own, levels narrow at the end of the way up, levels grow by transposed convolutions, and one normalisation
serves all three parts of an attention block.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from synface.models.denoisers.config import DenoiserConfig

#: groups of the normalisation of a context's tokens, and of the network's end
GROUPS = 32
MAX_PERIOD = 10000.0


class TimeEmbedding(nn.Module):
    """Sinusoids of the step (cosines, then sines), then an MLP: [n] to [n, 4 width]."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.lin1, self.lin2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)

    def forward(self, t_n: torch.Tensor) -> torch.Tensor:
        """Embedding of the steps."""
        half = self.width // 2
        period = torch.arange(half, dtype=torch.float32, device=t_n.device) / half
        angle = t_n.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * period)
        waves = torch.cat([angle.cos(), angle.sin()], 1).to(self.lin1.weight.dtype)
        return self.lin2(functional.silu(self.lin1(waves)))


class AdaptiveNorm(nn.Module):
    """``(1 + scale) GroupNorm(x) + shift``."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)

    def forward(self, x_nchw: torch.Tensor, scale_nk: torch.Tensor, shift_nk: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        return (1 + scale_nk[:, :, None, None]) * self.norm(x_nchw) + shift_nk[:, :, None, None]


class Residual(nn.Module):
    """Two convolutions; the time scales and shifts between them."""

    def __init__(self, width_in: int, width: int, time_dim: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, width))
        self.scale_emb, self.shift_emb = nn.Linear(width, width), nn.Linear(width, width)
        self.norm2 = AdaptiveNorm(width, groups)
        self.conv2 = _zero(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x_nchw: torch.Tensor, time_nk: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h, w]."""
        time = self.time_emb(time_nk)
        h = self.conv1(functional.silu(self.norm1(x_nchw)))
        h = self.norm2(h, self.scale_emb(time), self.shift_emb(time))
        return self.conv2(functional.silu(h)) + self.shortcut(x_nchw)


class Attention(nn.Module):
    """Multi-head attention of [n, channels, positions] to itself or to tokens [n, channels, tokens]."""

    def __init__(self, width: int, source: int, head_channels: int):
        super().__init__()
        self.heads = width // head_channels
        self.to_q = nn.Conv1d(width, width, 1)
        self.to_k, self.to_v = nn.Conv1d(source, width, 1), nn.Conv1d(source, width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x_ncl: torch.Tensor, source_nct: torch.Tensor | None = None) -> torch.Tensor:
        """[n, width, positions]."""
        source = x_ncl if source_nct is None else source_nct

        def split(y_ncl: torch.Tensor) -> torch.Tensor:
            return y_ncl.unflatten(1, (self.heads, -1)).mT

        q, k, v = split(self.to_q(x_ncl)), split(self.to_k(source)), split(self.to_v(source))
        return self.proj_out(functional.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2))


class ContextAttention(nn.Module):
    """Attention to itself, to the context's tokens, and a small feed-forward network, in sequence, each added."""

    def __init__(self, width: int, context_dim: int, tokens: int, head_channels: int, groups: int):
        super().__init__()
        self.tokens = tokens
        self.x_proj_in = nn.Conv2d(width, width, 1)
        self.x_proj_out = _zero(nn.Conv2d(width, width, 1))
        self.self_attention = Attention(width, width, head_channels)
        self.c_proj_in = nn.Linear(context_dim, context_dim * tokens)
        self.cross_attention = Attention(width, context_dim, head_channels)
        self.x_norm = nn.GroupNorm(groups, width)
        self.c_norm = nn.GroupNorm(GROUPS, context_dim)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_nchw: torch.Tensor, context_nk: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        h = self.x_proj_in(x_nchw).flatten(2)
        tokens = self.c_norm(self.c_proj_in(context_nk).unflatten(1, (-1, self.tokens)))
        h = h + self.self_attention(self.x_norm(h))
        h = h + self.cross_attention(self.x_norm(h), tokens)
        h = h + self.ff(self.x_norm(h).mT).mT
        return x_nchw + self.x_proj_out(h.unflatten(2, x_nchw.shape[2:]))


class Block(nn.Module):
    """A residual block and, where its level attends, an attention block."""

    def __init__(self, width_in: int, width: int, attends: bool, config: DenoiserConfig):
        super().__init__()
        self.res = Residual(width_in, width, 4 * config.widths[0], config.norm_groups)
        self.attn = _attention(width, config) if attends else None

    def forward(self, x_nchw: torch.Tensor, time_nk: torch.Tensor, context_nk: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h, w]."""
        x = self.res(x_nchw, time_nk)
        return x if self.attn is None else self.attn(x, context_nk)


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, width: int, config: DenoiserConfig):
        super().__init__()
        self.res1 = Residual(width, width, 4 * config.widths[0], config.norm_groups)
        self.attn = _attention(width, config)
        self.res2 = Residual(width, width, 4 * config.widths[0], config.norm_groups)

    def forward(self, x_nchw: torch.Tensor, time_nk: torch.Tensor, context_nk: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        return self.res2(self.attn(self.res1(x_nchw, time_nk), context_nk), time_nk)


class Resampling(nn.Module):
    """Half the side by a strided convolution, or twice the side by a transposed one."""

    def __init__(self, width: int, up: bool):
        super().__init__()
        self.conv = nn.ConvTranspose2d(width, width, 4, 2, 1) if up else nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width, h, w] to half or twice h and w."""
        return self.conv(x_nchw)


class BlockContextUNet(nn.Module):
    """Noise of x_t given the step and a context [n, condition_dim]."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        widths, layers = config.widths, config.layers_per_block
        self.image_proj = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.time_emb = TimeEmbedding(widths[0])
        down: list[nn.Module] = []
        width = widths[0]
        for level, wider in enumerate(widths):
            for _ in range(layers):
                down.append(Block(width, wider, config.attention[level], config))
                width = wider
            if level + 1 < len(widths):
                down.append(Resampling(width, up=False))
        self.down = nn.ModuleList(down)
        self.middle = Middle(width, config)
        up: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            narrower = widths[max(level - 1, 0)]
            for wanted in (*[width] * layers, narrower):
                # what comes from the way down is as wide as what comes out
                up.append(Block(width + wanted, wanted, config.attention[level], config))
            width = narrower
            if level:
                up.append(Resampling(width, up=True))
        self.up = nn.ModuleList(up)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.final = _zero(nn.Conv2d(width, config.channels, 3, padding=1))

    def forward(self, x_nchw: torch.Tensor, t_n: torch.Tensor, context_nk: torch.Tensor) -> torch.Tensor:
        """[n, channels, s, s] of x_t [n, channels, s, s] at steps [n]."""
        time, x = self.time_emb(t_n), self.image_proj(x_nchw)
        kept = [x]
        for part in self.down:
            x = part(x) if isinstance(part, Resampling) else part(x, time, context_nk)
            kept.append(x)
        x = self.middle(x, time, context_nk)
        for part in self.up:
            x = part(x) if isinstance(part, Resampling) else part(torch.cat([x, kept.pop()], 1), time, context_nk)
        return self.final(functional.silu(self.norm(x)))


def _attention(width: int, config: DenoiserConfig) -> ContextAttention:
    return ContextAttention(
        width, config.condition_dim, config.context_tokens, config.head_channels, config.norm_groups
    )


def _zero(module: nn.Module) -> nn.Module:
    """With parameters that are 0 at first, as in the release: each block begins as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
