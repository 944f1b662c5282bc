"""PartialFC on 1, 2 and 3 workers (threads, each with its own gloo group) against a plain softmax head."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn import functional

from synface.train import partial_fc
from synface.train.config import Margin
from synface.train.head import MarginHead
from synface.train.partial_fc import ShardedHead, Workers

CLASSES, DIM, BATCH = 10, 8, 12
MARGINS = [
    Margin(name="cosface", s=16, m=0.3),
    Margin(name="arcface", s=16, m=0.4, straight_through=True),
    Margin(name="adaface", s=16, m=0.4, t_alpha=0.5),
]


def on_workers(world, work):
    """Run `work` as every worker of a group; the results in the order of ranks."""
    store = distributed.HashStore()

    def one(rank):
        group = distributed.ProcessGroupGloo(store, rank, world) if world > 1 else None
        return work(Workers(rank, world, group))

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


def batch(step=0):
    generator = torch.Generator().manual_seed(100 + step)
    features = torch.randn(BATCH, DIM, generator=generator) * 3
    return features, torch.randint(0, CLASSES, (BATCH,), generator=generator)


def plain(margin, share=1.0):
    """Loss, hits, gradients of features and centres of one head that holds everything."""
    head = MarginHead(CLASSES, DIM, margin)
    with torch.no_grad():
        head.weight.copy_(partial_fc.draw_centres(range(CLASSES), DIM, 5))
    features, labels = batch()
    features.requires_grad_()
    logits, cos = head(features, labels, share)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    return loss.detach(), int((cos.argmax(1) == labels).sum()), features.grad, head.weight.grad


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("margin", MARGINS, ids=lambda m: m.name)
def test_at_full_rate_it_is_the_plain_softmax_head(world, margin):
    def work(workers):
        head = ShardedHead(CLASSES, DIM, margin, 1.0, 5, workers)
        features, labels = (part.chunk(world)[workers.rank].clone() for part in batch())
        features.requires_grad_()
        loss, hits = head.loss(features, labels, 0.7)
        loss.backward()
        return loss.detach(), int(hits), features.grad, head.weight.grad

    results = on_workers(world, work)
    loss, hits, features, centres = plain(margin, 0.7)
    for r in results:
        torch.testing.assert_close(r[0], loss, rtol=1e-6, atol=1e-6)
    assert sum(r[1] for r in results) == hits
    # data parallelism averages over workers what the head multiplies by their number
    for got, expected in (
        (torch.cat([r[2] for r in results]) / world, features),
        (torch.cat([r[3] for r in results]), centres),
    ):
        scale = float(expected.abs().max())  # float32 sums of terms of this size
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=2e-6)


def test_sampled_softmax_is_the_full_one_over_the_chosen_classes():
    margin, step = MARGINS[0], 7
    features, labels = batch()
    chosen = partial_fc.sampled_classes(labels.numpy(), CLASSES, 0.5, 5, step)
    centres = partial_fc.draw_centres(range(CLASSES), DIM, 5)
    cos = functional.normalize(features) @ functional.normalize(centres[chosen]).T
    place = torch.from_numpy(np.cumsum(chosen) - 1)[labels]
    expected = functional.cross_entropy(
        margin.s * (cos - margin.m * functional.one_hot(place, int(chosen.sum()))), place
    )

    def work(workers):
        head = ShardedHead(CLASSES, DIM, margin, 0.5, 5, workers)
        head.step = step
        x, y = (part.chunk(workers.world)[workers.rank] for part in (features, labels))
        loss, _ = head.loss(x, y)
        loss.backward()
        rows = torch.nonzero(head.weight.grad.abs().sum(1)).squeeze(1) + head.own.start
        return loss.detach(), rows.tolist()

    for world in (1, 2, 3):
        results = on_workers(world, work)
        for loss, _ in results:
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        assert [row for _, rows in results for row in rows] == np.flatnonzero(chosen).tolist()


def test_samples_hold_the_batch_and_the_asked_share():
    labels = np.array([3, 3, 900, 17])
    seen = np.zeros(1000)
    for step in range(200):
        chosen = partial_fc.sampled_classes(labels, 1000, 0.1, 0, step)
        assert chosen[labels].all() and chosen.sum() == 100
        seen += chosen
    others = np.delete(seen, np.unique(labels))
    # 97 of 997 others each time: binomial, mean 19.5 of 200, five deviations
    assert abs(others.mean() - 200 * 97 / 997) < 1e-9
    assert others.max() < 19.5 + 5 * math.sqrt(19.5) and others.min() > 19.5 - 4.5 * math.sqrt(19.5)
    many = partial_fc.sampled_classes(np.arange(50), 100, 0.1, 0, 0)
    assert np.flatnonzero(many).tolist() == list(range(50))  # more classes in the batch than asked


def test_classes_are_divided_whatever_the_number_of_workers():
    for world in (1, 3, 7):
        ranges = [partial_fc.class_range(23, rank, world) for rank in range(world)]
        assert [c for r in ranges for c in r] == list(range(23))
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    whole = partial_fc.draw_centres(range(9000), 2, 1)
    parts = [partial_fc.draw_centres(partial_fc.class_range(9000, r, 4), 2, 1) for r in range(4)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.std() == pytest.approx(0.01, rel=0.02)


class Training:
    """A worker's few steps of SGD or AdamW on the head and a shared linear backbone, gradients averaged by hand."""

    def __init__(self, workers, optimizer):
        torch.manual_seed(0)
        self.workers = workers
        self.backbone = torch.nn.Linear(DIM, DIM)
        with torch.no_grad():
            self.backbone.weight.copy_(torch.eye(DIM))
            self.backbone.bias.fill_(0.1)
        self.head = ShardedHead(CLASSES, DIM, MARGINS[0], 0.6, 5, workers)
        groups = [{"params": list(self.backbone.parameters())}, {"params": list(self.head.parameters())}]
        self.optimizer = (
            torch.optim.AdamW(groups, lr=0.01)
            if optimizer == "adamw"
            else torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        )

    def steps(self, first, last):
        for step in range(first, last):
            self.head.step = step
            x, y = (part.chunk(self.workers.world)[self.workers.rank] for part in batch(step))
            self.optimizer.zero_grad()
            loss, _ = self.head.loss(self.backbone(x), y)
            loss.backward()
            for p in self.backbone.parameters():
                self.workers.reduce(p.grad)
                p.grad /= self.workers.world
            partial_fc.clip_gradients(self.backbone, self.head, 0.5)
            self.optimizer.step()
        return self

    def parts(self):
        model = {"head.weight": self.head.weight.detach(), "backbone": self.backbone.state_dict()}
        return self.head.merged({"model": model, "optimizer": self.optimizer.state_dict()})

    def restore(self, saved):
        saved = self.head.split(torch.load(io.BytesIO(saved), weights_only=True))
        with torch.no_grad():
            self.head.weight.copy_(saved["model"]["head.weight"])
        self.backbone.load_state_dict(saved["model"]["backbone"])
        self.optimizer.load_state_dict(saved["optimizer"])
        return self


def packed(parts):
    sink = io.BytesIO()
    torch.save(parts, sink)
    return sink.getvalue()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_goes_on_on_another_number_of_workers(optimizer):
    whole = on_workers(1, lambda w: Training(w, optimizer).steps(0, 6).parts())[0]
    for first, second in ((1, 3), (3, 2), (2, 1)):
        saved = packed(on_workers(first, lambda w: Training(w, optimizer).steps(0, 3).parts())[0])

        def rest(workers, saved=saved):
            return Training(workers, optimizer).restore(saved).steps(3, 6).parts()

        ended = on_workers(second, rest)[0]
        torch.testing.assert_close(ended["model"], whole["model"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ended["optimizer"]["state"], whole["optimizer"]["state"], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_of_other_classes_is_refused():
    head = ShardedHead(CLASSES, DIM, MARGINS[0], 1.0, 5, Workers())
    with pytest.raises(ValueError, match="has 4 classes, this training 10"):
        head.split({"model": {"head.weight": torch.zeros(4, DIM)}, "optimizer": {}})


def test_clipping_uses_the_norm_of_the_whole_gradient():
    def gradients(workers):
        training = Training(workers, "sgd")
        training.steps(0, 1)
        return training.head.weight.grad, training.backbone.weight.grad, training.backbone.bias.grad

    for world in (1, 2, 3):
        results = on_workers(world, gradients)
        square = sum(float(head.square().sum()) for head, *_ in results)
        square += sum(float(g.square().sum()) for g in results[0][1:])
        assert math.sqrt(square) == pytest.approx(0.5, rel=1e-4)
