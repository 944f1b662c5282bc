"""The half ring in threads: the same code as over the network, with queues for links."""

import itertools
import queue
import threading

import pytest
import torch

from synface.pack import energy, exchange, gallery, solver, starts
from synface.pack.exchange import LocalExchange, RingExchange, row_ranges

WORKERS = [1, 2, 3, 7]


def start(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(starts.random_start(n, d, seed)).to(dtype)


class QueueLink:
    """Tensors through queues between threads; `floats` counts what was received."""

    def __init__(self, rank: int, size: int, queues: dict, barrier: threading.Barrier, slots: list):
        self.rank, self.size = rank, size
        self.queues, self.barrier, self.slots, self.floats = queues, barrier, slots, 0

    def post(self, sends, receives):
        for peer, tensor in sends:
            self.queues[self.rank, peer].put(tensor)  # not a copy: a sender that changed it would be found out

        def wait():
            for peer, tensor in receives:
                came = self.queues[peer, self.rank].get(timeout=60)
                assert came.shape == tensor.shape
                tensor.copy_(came)
                self.floats += tensor.numel()

        return wait

    def reduce(self, value, largest):
        self.slots[self.rank] = value
        self.barrier.wait(60)
        values = torch.stack(list(self.slots))
        self.barrier.wait(60)
        return values.max() if largest else values.sum()


def on_shards(n: int, k: int, work):
    """work(rank, rows, exchange) in k threads; its answers by rank, and the links."""
    queues = {pair: queue.Queue() for pair in itertools.product(range(k), repeat=2)}
    barrier, slots = threading.Barrier(k), [None] * k
    links = [QueueLink(r, k, queues, barrier, slots) for r in range(k)]
    ranges = row_ranges(n, k)
    answers, failures = [None] * k, []

    def body(rank):
        try:
            shards = RingExchange(links[rank], [len(r) for r in ranges])
            answers[rank] = work(rank, ranges[rank], shards)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=body, args=(r,)) for r in range(k)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failures:
        raise failures[0]
    return answers, links


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("n", [8, 23, 40])
def test_every_pair_is_computed_once(n, k):
    ranges = row_ranges(n, k)
    assert [i for r in ranges for i in r] == list(range(n))
    sizes = [len(r) for r in ranges]
    assert max(sizes) - min(sizes) <= 1
    met = []
    for rank, own in enumerate(ranges):
        met += itertools.combinations(own, 2)
        for owner, mine, theirs in exchange.meetings(rank, sizes):
            met += [tuple(sorted(p)) for p in itertools.product(own[mine], ranges[owner][theirs])]
    assert sorted(met) == list(itertools.combinations(range(n), 2))


@pytest.mark.parametrize(("n", "d", "k"), [(960, 16, k) for k in (1, 2, 3, 4, 7, 8, 16, 64)])
def test_work_falls_as_one_over_k_and_at_most_n_d_numbers_arrive(n, d, k):
    found = exchange.cost(n, d, k)
    assert n * (n - 1) / 2 / k <= found.pairs <= 1.04 * n * (n - 1) / 2 / k
    assert found.floats <= n * d
    assert found.floats >= 0.5 * n * d or k == 1


@pytest.mark.parametrize("k", WORKERS)
def test_a_pass_of_shards_is_that_of_one_device(k):
    n, d = 101, 12
    x_nd = start(n, d, dtype=torch.float64)
    task = solver.Task(solver.default_schedule(d, 10), tile=16)
    state = solver.begin(x_nd, task, LocalExchange())
    whole = solver.repulsion(state, task, LocalExchange(), 9.0)

    def work(rank, rows, shards):
        own = solver.begin(x_nd[rows.start : rows.stop], task, shards)
        assert own.largest == state.largest
        found = solver.repulsion(own, task, shards, 9.0)
        return found, own.pairs, shards.received

    answers, links = on_shards(n, k, work)
    torch.testing.assert_close(torch.cat([a[0].pull_nd for a in answers]), whole.pull_nd, atol=1e-12, rtol=1e-12)
    for found, _, _ in answers:
        assert float(found.mass) == pytest.approx(float(whole.mass), rel=1e-13)
        assert float(found.max_cosine) == pytest.approx(float(whole.max_cosine), abs=1e-14)
    cost = exchange.cost(n, d, k)
    assert max(a[1] for a in answers) == cost.pairs
    assert sum(a[1] for a in answers) == n * (n - 1) // 2
    # `begin` exchanges rows and their nearest cosines, the pass rows and pulls
    assert [a[2] for a in answers] == [link.floats for link in links]
    measured = max(a[2] for a in answers)
    assert cost.floats <= measured <= 2 * cost.floats


@pytest.mark.parametrize("with_gallery", [False, True])
@pytest.mark.parametrize("k", WORKERS)
def test_any_number_of_workers_ends_like_one(k, with_gallery):
    n, d = 203, 32
    x_nd, fixed_md = start(n, d), start(20, d, seed=5)
    near = gallery.Gallery(start(150, d, seed=9), 0.3, refresh=3, band=(0.2, 0.9)) if with_gallery else None
    one_pass = {"gallery": near, "fixed_md": fixed_md, "tile": 64}

    def solve(passes):
        return lambda rank, rows, shards: solver.solve(
            x_nd[rows.start : rows.stop], solver.default_schedule(d, passes), exchange=shards, **one_pass
        )

    for passes, closeness in ((1, 1e-6), (60, None)):
        whole = solver.solve(x_nd, solver.default_schedule(d, passes), **one_pass)
        answers, _ = on_shards(n, k, solve(passes))
        rows_nd = torch.cat([a.x_nd for a in answers])
        assert len({a.max_cosine for a in answers}) == 1
        assert answers[0].max_cosine == pytest.approx(whole.max_cosine, abs=closeness or 5e-4)
        both = torch.cat([rows_nd, fixed_md])
        among = energy.nearest_cosines(both)[0][:n].max()
        assert answers[0].max_cosine == pytest.approx(float(among), abs=1e-6)
        if closeness:
            torch.testing.assert_close(rows_nd, whole.x_nd, atol=closeness, rtol=0)


@pytest.mark.parametrize("k", [2, 3])
def test_target_and_time_end_all_shards_at_the_same_pass(k):
    n, d = 120, 16
    x_nd, schedule = start(n, d), solver.default_schedule(d, 200)
    for options, reason in (({"target_cosine": 0.45}, "target"), ({"max_seconds": 0.3}, "time")):
        answers, _ = on_shards(
            n,
            k,
            lambda rank, rows, shards, o=options: solver.solve(
                x_nd[rows.start : rows.stop], schedule, exchange=shards, **o
            ),
        )
        assert {a.reason for a in answers} <= {reason, "passes"}
        assert len({a.passes for a in answers}) == 1
        assert len({a.max_cosine for a in answers}) == 1


@pytest.mark.parametrize("k", [2, 3, 7])
def test_nearest_of_all_is_exact(k):
    x_nd = start(77, 9)
    answers, _ = on_shards(
        77, k, lambda rank, rows, shards: solver.nearest_of_all(x_nd[rows.start : rows.stop], None, shards, 16)
    )
    torch.testing.assert_close(torch.cat(answers), energy.nearest_cosines(x_nd)[0], atol=1e-6, rtol=0)
