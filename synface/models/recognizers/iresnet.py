"""Improved residual networks for face recognition, with insightface's state_dict names.

Duta et al., "Improved residual networks for image and video recognition", ICPR 2020, in the form of
ArcFace (Deng et al., CVPR 2019): stride 1 in the stem, a BN-conv-BN-PReLU-conv-BN block, a linear embedding
with batch normalisation whose scale is fixed to one. Public weights of that family load strictly.
"""

import torch
from torch import nn

WIDTHS = (64, 128, 256, 512)
#: residual blocks per stage
DEPTHS = {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 14, 3),
    "r100": (3, 13, 30, 3),
    "r200": (6, 26, 60, 6),
}
STRIDE = 16


class IResidualBlock(nn.Module):
    """x + BN(conv(PReLU(BN(conv(BN(x)))))); the second convolution carries the stride."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            if stride != 1 or width_in != width
            else None
        )

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to [n, width, h / stride, w / stride]."""
        out = self.conv1(self.bn1(x_nchw))
        out = self.bn3(self.conv2(self.prelu(self.bn2(out))))
        return out + (x_nchw if self.downsample is None else self.downsample(x_nchw))


class IResNet(nn.Module):
    """Images [n, 3, s, s] in [-1, 1], RGB, to raw features [n, embedding_dim] (not normalised).

    Args:
        depths: residual blocks of the four stages.
        embedding_dim: size of the feature.
        input_size: s, a multiple of 16 (the published networks: 112).
        dropout: probability before the linear embedding.
    """

    def __init__(self, depths: tuple[int, ...], embedding_dim: int, input_size: int, dropout: float = 0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        width_in = WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
            blocks = [IResidualBlock(width_in if b == 0 else width, width, 2 if b == 0 else 1) for b in range(depth)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            width_in = width
        self.bn2 = nn.BatchNorm2d(width_in)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width_in * (input_size // STRIDE) ** 2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        x = self.prelu(self.bn1(self.conv1(x_nchw)))
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.features(self.fc(self.dropout(self.bn2(x).flatten(1))))
