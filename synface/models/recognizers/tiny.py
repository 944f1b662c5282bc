"""A small recognizer for 64x64 crops on a CPU: a pre-activation residual network.

He et al., "Identity mappings in deep residual networks", ECCV 2016, in the BN-conv-BN-PReLU-conv-BN form
that face recognition uses. About 1.7 M parameters and 0.12 GFLOP an image at 64x64: made to be trained on
two cores in minutes.
"""

import torch
from torch import nn

WIDTHS = (24, 48, 96, 192)
DEPTHS = (1, 2, 2, 1)
STRIDE = 16


def shortcut(width_in: int, width: int, stride: int) -> nn.Module:
    """The identity, or average pooling and a 1x1 convolution where the shape changes (ResNet-D)."""
    if stride == 1 and width_in == width:
        return nn.Identity()
    pool = [nn.AvgPool2d(stride)] if stride > 1 else []
    return nn.Sequential(*pool, nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width))


class PreActivationBlock(nn.Module):
    """shortcut(x) + BN(conv(PReLU(BN(conv(BN(x)))))); the first convolution carries the stride."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = shortcut(width_in, width, stride)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h / stride, w / stride]."""
        return self.body(x_nchw) + self.shortcut(x_nchw)


class TinyResNet(nn.Module):
    """Images [n, 3, s, s] in [-1, 1], RGB, to raw features [n, embedding_dim] (not normalised).

    Args:
        embedding_dim: size of the feature (256 where the name `tiny` is used alone).
        input_size: s, a multiple of 16.
    """

    def __init__(self, embedding_dim: int, input_size: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        blocks, width_in = [], WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            for block in range(depth):
                blocks.append(PreActivationBlock(width_in, width, 2 if stage > 0 and block == 0 else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width_in)
        self.fc = nn.Linear(width_in * (input_size // STRIDE) ** 2, embedding_dim, bias=False)
        self.features = nn.BatchNorm1d(embedding_dim)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        x = self.norm(self.blocks(self.stem(x_nchw)))
        return self.features(self.fc(x.flatten(1)))
