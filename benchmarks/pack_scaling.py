"""Work and traffic of a worker, counted, and a model of the time of a pass on 1 to 64 GPUs.

    python benchmarks/pack_scaling.py [--counted 4096x64] [--modelled 1000000x512]

Counted: a pass of every k is made, all shards in this process one after the other over an exchange of queues, and
the pairs and numbers that each shard computes and receives are counted, not timed. Modelled: rates that are named.
"""

import argparse
import queue
import threading

import torch

from common import write_result
from synface.pack import exchange, solver, starts

#: of one accelerator and of one link in each direction; assumptions, not measurements
FLOPS = {
    "fp32, as computed now": 50e12,
    "TF32 products, not switched on": 150e12,
    "bf16 products, not written": 400e12,
}
BYTES_PER_SECOND = {"100 GbE": 12.5e9, "400G InfiniBand": 50e9, "NVLink": 400e9}


class QueueLink:
    """Shards as threads of one process: tensors through queues."""

    def __init__(self, rank: int, size: int, queues: dict, barrier: threading.Barrier, slots: list):
        self.rank, self.size, self.queues, self.barrier, self.slots = rank, size, queues, barrier, slots

    def post(self, sends: list, receives: list) -> exchange.Wait:
        for peer, tensor in sends:
            self.queues[self.rank, peer].put(tensor)

        def wait() -> None:
            for peer, tensor in receives:
                tensor.copy_(self.queues[peer, self.rank].get(timeout=600))

        return wait

    def reduce(self, value: torch.Tensor, largest: bool) -> torch.Tensor:
        self.slots[self.rank] = value
        self.barrier.wait(600)
        values = torch.stack(self.slots)
        self.barrier.wait(600)
        return values.amax() if largest else values.sum()


def counted(n: int, d: int, k: int) -> dict:
    """Pairs and floats of the busiest worker in one pass, by what it did; and the max cosine that all agree on."""
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    ranges = exchange.row_ranges(n, k)
    queues = {(a, b): queue.Queue() for a in range(k) for b in range(k)}
    barrier, slots, found = threading.Barrier(k), [None] * k, [None] * k
    task = solver.Task(solver.default_schedule(d, 1))

    def body(rank: int) -> None:
        link = QueueLink(rank, k, queues, barrier, slots)
        shards = exchange.RingExchange(link, [len(r) for r in ranges])
        state = solver.begin(x_nd[ranges[rank].start : ranges[rank].stop], task, shards)
        before = shards.received
        solver.advance(state, task, shards, 1)
        found[rank] = (state.pairs, shards.received - before, state.largest)

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(k)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs, floats, largest = (max(f[i] for f in found) for i in range(3))
    return {
        "workers": k,
        "pairs_per_worker": pairs,
        "of_one_worker": pairs / (n * (n - 1) / 2),
        "times_k": k * pairs / (n * (n - 1) / 2),
        "floats_received": floats,
        "of_n_d": floats / (n * d),
        "max_cosine": largest,
    }


def modelled(n: int, d: int) -> list[dict]:
    """Seconds of a pass: 3 n^2 d / k operations, and the half ring's bytes (fp32 rows and pulls), overlapped."""
    rows = []
    for kind, flops in FLOPS.items():
        for k in (1, 8, 16, 32, 64):
            cost = exchange.cost(n, d, k)
            compute = 6 * d * cost.pairs / flops
            links = {name: 4 * cost.floats / rate for name, rate in BYTES_PER_SECOND.items()}
            rows.append(
                {
                    "rate": kind,
                    "gpus": k,
                    "compute_s": compute,
                    "received_gb": 4 * cost.floats / 1e9,
                    "exchange_s": links,
                    "pass_s": {name: max(compute, seconds) for name, seconds in links.items()},
                    "memory_gb_per_gpu": 4 * n * d * (3 + 4) / k / 1e9,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counted", default="4096x64", help="n x d")
    parser.add_argument("--modelled", default="1000000x512", help="n x d")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (n, d), (big_n, big_d) = ([int(v) for v in text.split("x")] for text in (options.counted, options.modelled))
    result = {
        "counted": {"n": n, "d": d, "workers": [counted(n, d, k) for k in (1, 2, 3, 4, 7, 8, 16)]},
        "modelled": {"n": big_n, "d": big_d, "rows": modelled(big_n, big_d)},
    }
    write_result("pack_scaling", result)


if __name__ == "__main__":
    main()
