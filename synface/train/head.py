"""The classification head that a recognizer is trained with, and the module that is trained as one."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from synface.train import margins
from synface.train.config import Margin

#: AdaFace's published start of the norms' moving statistics
START_MEAN, START_STD = 20.0, 100.0


class MarginHead(nn.Module):
    """Class centres on the sphere; features and labels to logits.

    Args:
        classes: number of classes.
        dim: of the features.
        margin: which margin and how large.
    """

    norm_mean: torch.Tensor
    norm_std: torch.Tensor

    def __init__(self, classes: int, dim: int, margin: Margin):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim) * 0.01)
        self.margin = margin
        self.register_buffer("norm_mean", torch.tensor(START_MEAN))
        self.register_buffer("norm_std", torch.tensor(START_STD))

    def forward(
        self, features_nd: torch.Tensor, labels_n: torch.Tensor, share: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits with margin and plain cosines, both float32 [n, classes].

        Args:
            features_nd: raw features.
            labels_n: int64.
            share: of the full margin (its warm-up).
        """
        with torch.autocast(features_nd.device.type, enabled=False):
            x_nd = features_nd.float()
            cos_nc = functional.normalize(x_nd) @ functional.normalize(self.weight).T
            return self._logits(cos_nc, labels_n, x_nd.norm(dim=1), share), cos_nc

    def _logits(
        self, cos_nc: torch.Tensor, labels_n: torch.Tensor, norm_n: torch.Tensor, share: float
    ) -> torch.Tensor:
        name = self.margin.name
        settings: dict[str, Any] = {"s": self.margin.s, "straight_through": self.margin.straight_through}
        if name == "combined":
            m1 = 1 + share * (self.margin.m1 - 1)
            settings |= {"m1": m1, "m2": share * self.margin.m2, "m3": share * self.margin.m3}
        elif name != "softmax":
            settings["m"] = share * self.margin.m
        if name == "adaface":
            if self.training:
                mean, std = margins.adaface_statistics(norm_n, self.norm_mean, self.norm_std, self.margin.t_alpha)
                self.norm_mean.copy_(mean)
                self.norm_std.copy_(std)
            # the statistics change in place: autograd gets its own copy
            settings |= {"mean": self.norm_mean.clone(), "std": self.norm_std.clone(), "h": self.margin.h}
        return margins.MARGINS[name](cos_nc, labels_n, norm_n, **settings)


class Trainee(nn.Module):
    """Backbone and head, so that data parallelism wraps one module."""

    def __init__(self, backbone: nn.Module, head: MarginHead):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, x_nchw: torch.Tensor, labels_n: torch.Tensor, share: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross entropy, and how many of the images lie nearest to their own class centre."""
        logits_nc, cos_nc = self.head(self.backbone(x_nchw), labels_n, share)
        return functional.cross_entropy(logits_nc, labels_n), (cos_nc.argmax(1) == labels_n).sum()
