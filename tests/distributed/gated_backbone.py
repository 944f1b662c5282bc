"""A recognizer whose training steps take their time until a file appears, so that nodes can come and go meanwhile."""

import os
import time
from pathlib import Path

import torch

from synface.models.recognizers.tiny import TinyResNet

STEP_SECONDS = 0.3


class Gated(TinyResNet):
    """`TinyResNet`; slow while the file of the environment's ``GATE`` is not there."""

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        if self.training and not Path(os.environ["GATE"]).exists():
            time.sleep(STEP_SECONDS)
        return super().forward(x_nchw)
