"""PartialFC: the classes of the softmax divided over the workers, with sampled negatives.

An et al., "Killing two birds with one stone", CVPR 2022. Every worker holds a run of the class centres and sees the
features of the whole global batch. The loss is the cross entropy over all classes, or over the batch's own classes
and a random share of the others; its value and gradients are those of one head that holds everything.

Centres, negatives and the merged checkpoint depend on class numbers, never on the number of workers: a training
continues on another number of workers with the same state (up to the last bits of sums).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from synface.core import rng
from synface.train.config import Margin
from synface.train.head import MarginHead

#: rows of class centres that are drawn, or sent for a checkpoint, at a time
BLOCK = 4096
CENTRE_STD = 0.01
WEIGHT = "head.weight"


@dataclass(frozen=True)
class Workers:
    """This worker's place, and what all workers know together through a process group (None: it is alone)."""

    rank: int = 0
    world: int = 1
    group: Any = None

    def reduce(self, x: torch.Tensor, op: Any = distributed.ReduceOp.SUM) -> torch.Tensor:
        """The sum (or another reduction) over all workers, in place."""
        if self.group is not None:
            options = distributed.AllreduceOptions()
            options.reduceOp = op
            self.group.allreduce([x], options).wait()
        return x

    def gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Every worker's tensor of this shape, in the order of ranks."""
        if self.group is None:
            return [x]
        parts = [torch.empty_like(x) for _ in range(self.world)]
        self.group.allgather([parts], [x.contiguous()]).wait()
        return parts


def class_range(classes: int, rank: int, world: int) -> range:
    """The classes of one worker: consecutive runs, the first ``classes % world`` hold one more."""
    least, more = divmod(classes, world)
    start = rank * least + min(rank, more)
    return range(start, start + least + (rank < more))


def draw_centres(classes: range, dim: int, seed: int) -> torch.Tensor:
    """Normal class centres, float32 [len(classes), dim]; each a function of the seed and its class number."""
    parts = []
    for block in range(classes.start // BLOCK, -(-classes.stop // BLOCK)):
        generator = torch.Generator().manual_seed(rng.derived_seed(seed, "centres", block))
        rows = torch.randn(BLOCK, dim, generator=generator)
        first = block * BLOCK
        parts.append(rows[max(classes.start - first, 0) : classes.stop - first])
    return torch.cat(parts) * CENTRE_STD


def sampled_classes(labels_n: np.ndarray, classes: int, rate: float, seed: int, step: int) -> np.ndarray:
    """Which classes take part in a step, bool [classes]: the batch's own, and others up to a share `rate` of all."""
    score_c = rng.generator(seed, "negatives", step).random(classes)
    present = np.unique(labels_n)
    score_c[present] = -1.0
    count = max(math.ceil(rate * classes), len(present))
    return score_c <= np.partition(score_c, count - 1)[count - 1]


class _GatherFeatures(torch.autograd.Function):
    """Features of all workers, [world b, d]; the gradient sums what all workers' classes say of the own rows.

    Times the number of workers, because data parallelism averages the backbone's gradients over them.
    """

    @staticmethod
    def forward(ctx: Any, x_bd: torch.Tensor, workers: Workers) -> torch.Tensor:
        ctx.workers, ctx.rows = workers, len(x_bd)
        return torch.cat(workers.gather(x_bd))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        whole = ctx.workers.reduce(grads[0].clone().contiguous())
        own = whole[ctx.workers.rank * ctx.rows : (ctx.workers.rank + 1) * ctx.rows]
        return own * ctx.workers.world, None


class _CrossEntropy(torch.autograd.Function):
    """Mean cross entropy of logits whose columns lie on all workers; a label of -1: the class is elsewhere."""

    @staticmethod
    def forward(ctx: Any, logits_nc: torch.Tensor, labels_n: torch.Tensor, workers: Workers) -> torch.Tensor:
        peak_n = workers.reduce(largest(logits_nc), distributed.ReduceOp.MAX)
        exp_nc = (logits_nc - peak_n[:, None]).exp()
        total_n = workers.reduce(exp_nc.sum(1))
        rows = torch.nonzero(labels_n >= 0).squeeze(1)
        target_n = torch.zeros_like(peak_n)
        target_n[rows] = logits_nc[rows, labels_n[rows]]
        workers.reduce(target_n)  # each class is on one worker
        ctx.save_for_backward(exp_nc, total_n, rows, labels_n)
        return (total_n.log() + peak_n - target_n).mean()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        exp_nc, total_n, rows, labels_n = ctx.saved_tensors
        grad_nc = exp_nc / total_n[:, None]
        grad_nc[rows, labels_n[rows]] -= 1
        return grad_nc * (grads[0] / len(labels_n)), None, None


def largest(x_nc: torch.Tensor) -> torch.Tensor:
    """Each row's largest value; -inf where a worker has no column."""
    return x_nc.amax(1) if x_nc.shape[1] else x_nc.new_full((len(x_nc),), -math.inf)


class ShardedHead(MarginHead):
    """The part of the class centres that one worker holds.

    Args:
        classes: of all workers.
        dim: of the features.
        margin: which margin and how large.
        rate: share of the classes that take part in a step.
        seed: of the training.
        workers: this worker and the others.
    """

    def __init__(self, classes: int, dim: int, margin: Margin, rate: float, seed: int, workers: Workers):
        own = class_range(classes, workers.rank, workers.world)
        super().__init__(len(own), dim, margin)
        with torch.no_grad():
            self.weight.copy_(draw_centres(own, dim, seed))
        self.classes, self.own, self.rate, self.seed, self.workers = classes, own, rate, seed, workers
        #: of the training; the loop sets it
        self.step = 0

    def loss(
        self, features_bd: torch.Tensor, labels_b: torch.Tensor, share: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross entropy over all workers' images, and how many of the own lie nearest to their class centre.

        Args:
            features_bd: raw features of this worker's images.
            labels_b: their classes, int64.
            share: of the full margin (its warm-up).
        """
        with torch.autocast(features_bd.device.type, enabled=False):
            x_nd = _GatherFeatures.apply(features_bd.float(), self.workers)
            labels_n = torch.cat(self.workers.gather(labels_b))
            weight_cd, local_n = self._chosen(labels_n)
            cos_nc = functional.normalize(x_nd) @ functional.normalize(weight_cd).T
            logits_nc = self._logits(cos_nc, local_n, x_nd.norm(dim=1), share)
            loss = _CrossEntropy.apply(logits_nc, local_n, self.workers)
            hits_n = self._hits(cos_nc.detach(), local_n)
        first = self.workers.rank * len(labels_b)
        return loss, hits_n[first : first + len(labels_b)].sum()

    def _chosen(self, labels_n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The own centres that take part, and each label's place among them (-1: none)."""
        local_n = labels_n - self.own.start
        local_n = torch.where((local_n >= 0) & (local_n < len(self.own)), local_n, -1)
        if self.rate == 1 or not self.training:
            return self.weight, local_n
        chosen = sampled_classes(labels_n.cpu().numpy(), self.classes, self.rate, self.seed, self.step)
        rows = torch.from_numpy(np.flatnonzero(chosen[self.own.start : self.own.stop])).to(labels_n.device)
        return self.weight[rows], torch.where(local_n >= 0, torch.searchsorted(rows, local_n), -1)

    def _hits(self, cos_nc: torch.Tensor, local_n: torch.Tensor) -> torch.Tensor:
        best_n = self.workers.reduce(largest(cos_nc), distributed.ReduceOp.MAX)
        target_n = torch.full_like(best_n, -math.inf)
        rows = torch.nonzero(local_n >= 0).squeeze(1)
        target_n[rows] = cos_nc[rows, local_n[rows]]
        return self.workers.reduce(target_n, distributed.ReduceOp.MAX) >= best_n

    def merged(self, parts: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint's parts with the rows of all workers; every worker takes part, the result counts on rank 0."""
        model = {**parts["model"], WEIGHT: self._merge(parts["model"][WEIGHT])}
        return {**parts, "model": model, "optimizer": self._with_rows(parts["optimizer"], len(self.own), self._merge)}

    def split(self, parts: dict[str, Any]) -> dict[str, Any]:
        """The own rows of a merged checkpoint's parts.

        Raises:
            ValueError: the checkpoint is of another number of classes.
        """
        count = len(parts["model"][WEIGHT])
        if count != self.classes:
            raise ValueError(f"the checkpoint has {count} classes, this training {self.classes}")

        def own(rows: torch.Tensor) -> torch.Tensor:
            return rows[self.own.start : self.own.stop].clone()

        model = {**parts["model"], WEIGHT: own(parts["model"][WEIGHT])}
        return {**parts, "model": model, "optimizer": self._with_rows(parts["optimizer"], count, own)}

    def _with_rows(self, optimizer: dict[str, Any], count: int, change: Any) -> dict[str, Any]:
        """An optimizer's state dict with `change` applied to what it keeps of each row of centres."""
        number = optimizer["param_groups"][-1]["params"][0]  # the head's own group is the last
        kept = optimizer["state"].get(number, {})
        changed = {
            name: change(value)
            if isinstance(value, torch.Tensor) and value.ndim == 2 and len(value) == count
            else value
            for name, value in kept.items()
        }
        return {**optimizer, "state": {**optimizer["state"], **({number: changed} if kept else {})}}

    def _merge(self, own_rd: torch.Tensor) -> torch.Tensor:
        """The rows of all workers on rank 0's CPU, a block at a time; elsewhere an empty tensor."""
        ranges = [class_range(self.classes, rank, self.workers.world) for rank in range(self.workers.world)]
        first_worker = self.workers.rank == 0
        whole = torch.empty((self.classes if first_worker else 0, *own_rd.shape[1:]), dtype=own_rd.dtype)
        for first in range(0, len(ranges[0]), BLOCK):
            rows = own_rd[first : first + BLOCK]
            block = own_rd.new_zeros((BLOCK, *own_rd.shape[1:]))
            block[: len(rows)] = rows
            parts = self.workers.gather(block)
            if first_worker:
                for classes, part in zip(ranges, parts, strict=True):
                    own = classes[first : first + BLOCK]
                    whole[own.start : own.stop] = part[: len(own)].cpu()
        return whole


class ShardedForward(nn.Module):
    """Backbone (data-parallel where there are several workers) and the own part of the head."""

    def __init__(self, backbone: nn.Module, head: ShardedHead):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, x_nchw: torch.Tensor, labels_n: torch.Tensor, share: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `head.Trainee`: mean cross entropy (over all workers), hits of the own images."""
        return self.head.loss(self.backbone(x_nchw), labels_n, share)


def clip_gradients(backbone: nn.Module, head: ShardedHead, largest_norm: float) -> None:
    """Clip by the norm of the whole gradient, of which every worker holds the backbone's part and its own rows."""
    shared = [p.grad for p in backbone.parameters() if p.grad is not None]
    own = [p.grad for p in head.parameters() if p.grad is not None]
    square = head.workers.reduce(nn.utils.get_total_norm(own).square().reshape(1))[0]
    total = (nn.utils.get_total_norm(shared).square() + square).sqrt()
    nn.utils.clip_grads_with_norm_([*backbone.parameters(), *head.parameters()], largest_norm, total)
