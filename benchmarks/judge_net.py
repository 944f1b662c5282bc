"""The architecture of the judge: a plain convolutional network, unlike any that the generators were trained with.

No residual, batch normalisation after the convolutions, maximum pooling, a mean over all positions in the end
(Simonyan & Zisserman, arXiv 1409.1556, in small): where the scorer (`models/recognizers/tiny.py`) has a weakness that
a generator could have learned to please, this one has others.
"""

from torch import nn

WIDTHS = (32, 64, 128, 256)


def plain(embedding_dim: int, input_size: int) -> nn.Module:
    """Images [n, 3, s, s] in [-1, 1], RGB, to raw features [n, embedding_dim]; s a multiple of 16."""
    if input_size % 16:
        raise ValueError(f"input_size {input_size}: a multiple of 16")
    layers: list[nn.Module] = []
    before = 3
    for number, width in enumerate(WIDTHS):
        layers += [*_convolution(before, width, 2 if number == 0 else 1), *_convolution(width, width, 1)]
        layers.append(nn.MaxPool2d(2))
        before = width
    layers[-1] = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, embedding_dim), nn.BatchNorm1d(embedding_dim))


def _convolution(before: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
