"""IR and IR-SE networks with AdaFace's and CVLface's state_dict names (``input_layer``, ``body``, ``output_layer``).

The residual unit is that of ``iresnet`` (BN-conv-BN-PReLU-conv-BN); these networks differ from it in three places: a
block of unchanged width has a strided max pooling as its shortcut, SE variants weight the channels of the residual
(Hu et al., "Squeeze-and-excitation networks", CVPR 2018, reduction 16), and the last batch normalisation has no
scale and shift. Released AdaFace weights take BGR: ``colour_order`` of their config.json says so.
"""

import torch
from torch import nn

from synface.models.recognizers.iresnet import DEPTHS as IRESNET_DEPTHS
from synface.models.recognizers.iresnet import STRIDE, WIDTHS

#: name -> (blocks per stage, squeeze and excitation); `ir_101` has the depths of r100
VARIANTS = {
    "ir_18": (IRESNET_DEPTHS["r18"], False),
    "ir_34": (IRESNET_DEPTHS["r34"], False),
    "ir_50": (IRESNET_DEPTHS["r50"], False),
    "ir_101": (IRESNET_DEPTHS["r100"], False),
    "ir_se50": (IRESNET_DEPTHS["r50"], True),
}
SE_REDUCTION = 16
DROPOUT = 0.4


class SqueezeExcitation(nn.Module):
    """x * sigmoid(fc2(relu(fc1(mean over places of x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // SE_REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(width // SE_REDUCTION, width, 1, bias=False)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        squeezed = x_nchw.mean((2, 3), keepdim=True)
        return x_nchw * torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))


class IRBlock(nn.Module):
    """Shortcut plus residual; the second convolution carries the stride."""

    def __init__(self, width_in: int, width: int, stride: int, excitation: bool):
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if width_in == width
            else nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        if excitation:
            self.res_layer.add_module("se_block", SqueezeExcitation(width))

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """[n, width_in, h, w] to [n, width, h / stride, w / stride]."""
        return self.shortcut_layer(x_nchw) + self.res_layer(x_nchw)


class IRNet(nn.Module):
    """Images [n, 3, s, s] in [-1, 1] to raw features [n, embedding_dim] (not normalised).

    Args:
        name: one of `VARIANTS`.
        embedding_dim: size of the feature.
        input_size: s, a multiple of 16 (the published networks: 112).
    """

    def __init__(self, name: str, embedding_dim: int, input_size: int):
        super().__init__()
        depths, excitation = VARIANTS[name]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        blocks, width_in = [], WIDTHS[0]
        for width, depth in zip(WIDTHS, depths, strict=True):
            for block in range(depth):
                blocks.append(IRBlock(width_in, width, 2 if block == 0 else 1, excitation))
                width_in = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Dropout(DROPOUT),
            nn.Flatten(),
            nn.Linear(width_in * (input_size // STRIDE) ** 2, embedding_dim),
            nn.BatchNorm1d(embedding_dim, affine=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        return self.output_layer(self.body(self.input_layer(x_nchw)))
