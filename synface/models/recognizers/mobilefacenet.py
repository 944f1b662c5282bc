"""MobileFaceNet (Chen et al., CCBR 2018) with insightface's widths and state_dict names.

Inverted bottlenecks with PReLU and a global depthwise convolution in place of average pooling; widths are
twice the paper's, as in insightface's `mbf`.
"""

import torch
from torch import nn

STRIDE = 16


class ConvBlock(nn.Module):
    """Convolution, batch normalisation and (unless linear) PReLU."""

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ):
        super().__init__()
        parts: list[nn.Module] = [
            nn.Conv2d(width_in, width, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(width),
        ]
        self.layers = nn.Sequential(*parts, *([] if linear else [nn.PReLU(width)]))

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h', w']."""
        return self.layers(x_nchw)


class Bottleneck(nn.Module):
    """Expand by 1x1, filter depthwise by 3x3, project by a linear 1x1; plus the input where residual."""

    def __init__(self, width_in: int, width: int, hidden: int, stride: int = 1, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(width_in, hidden, 1),
            ConvBlock(hidden, hidden, 3, stride, 1, groups=hidden),
            ConvBlock(hidden, width, 1, linear=True),
        )

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h / stride, w / stride]."""
        out = self.layers(x_nchw)
        return x_nchw + out if self.residual else out


class Residuals(nn.Module):
    """A chain of residual bottlenecks of one width."""

    def __init__(self, width: int, depth: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(*[Bottleneck(width, width, hidden, residual=True) for _ in range(depth)])

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        return self.layers(x_nchw)


class GlobalDepthwise(nn.Module):
    """A learned weight per channel and place instead of average pooling, then the linear embedding."""

    def __init__(self, width: int, side: int, embedding_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(width, width, side, groups=width, linear=True),
            nn.Flatten(),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim),
        )

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width, side, side] to [n, embedding_dim]."""
        return self.layers(x_nchw)


class MobileFaceNet(nn.Module):
    """Images [n, 3, s, s] in [-1, 1], RGB, to raw features [n, embedding_dim] (not normalised).

    Args:
        embedding_dim: size of the feature.
        input_size: s, a multiple of 16 (the published network: 112).
        depths: residual bottlenecks after each of the three strides.
        scale: width factor over the paper's 64-64-128-128.
    """

    def __init__(self, embedding_dim: int, input_size: int, depths: tuple[int, int, int] = (4, 6, 2), scale: int = 2):
        super().__init__()
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, narrow, 3, stride=2, padding=1),
                ConvBlock(narrow, narrow, 3, padding=1, groups=64),
                Bottleneck(narrow, narrow, 128, stride=2),
                Residuals(narrow, depths[0], 128),
                Bottleneck(narrow, wide, 256, stride=2),
                Residuals(wide, depths[1], 256),
                Bottleneck(wide, wide, 512, stride=2),
                Residuals(wide, depths[2], 256),
            ]
        )
        self.conv_sep = ConvBlock(wide, 512, 1)
        self.features = GlobalDepthwise(512, input_size // STRIDE, embedding_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        x = x_nchw
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))
