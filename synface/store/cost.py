"""What a stage will take, before it begins: hours of CPUs and GPUs, requests and bytes of the object store.

Estimates, and marked as such. A rate is the user's own (``how.rate``), or one that was measured and says where; where
nobody has measured any, hours are unknown (None). Requests are counted as the code makes them on S3, as far as
they grow with the work; plan, manifest, card, leases and probes, about thirty a verb, are left out.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from synface.store import s3

#: of an images table by heads-real at 64 pixels, jpeg of quality 95: 36,000 images are 91,884,545 bytes
MEASURED_BYTES_PER_PIXEL = 91_884_545 / (36_000 * 64 * 64)
MEASURED_ENCODING = ("jpeg", 95)
#: of a packing on two cores of an Intel Xeon at 2.5 GHz: a pass at n = 4,096, d = 512 took 0.247 s
#: (benchmarks/results/pack_rate-4096x512.json, beside other work)
MEASURED_PACK_FLOPS = 3 * 4096**2 * 512 / 0.247278
#: of the quickstart's report, on one of those cores beside other work
MEASURED_PAGE_SECONDS = 7.1
#: of one entry of a shard ledger with its versions: about this
LEDGER_BYTES = 700
LISTED_PER_REQUEST = 1000


@dataclass(frozen=True)
class Traffic:
    """Requests to an object store, and bytes. Stores charge `put` and `list` alike, `get` about a tenth of them."""

    put: int = 0
    get: int = 0
    list: int = 0
    bytes_written: int = 0
    bytes_read: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Traffic)))

    def __mul__(self, times: int) -> "Traffic":
        return Traffic(*(getattr(self, f.name) * times for f in fields(Traffic)))


@dataclass(frozen=True)
class Rate:
    """Units a second of one worker, and who says so; None: nobody has measured it."""

    per_second: float | None
    source: str


def rate_of(given: float | None, measured: float | None = None, source: str = "") -> Rate:
    """The user's rate, else a measured one."""
    if given is not None:
        return Rate(given, "how.rate")
    return Rate(measured, source) if measured is not None else Rate(None, "unknown: measure one worker, set how.rate")


def written(size: int) -> Traffic:
    """One object of `size` bytes: one request, or, from 64 MiB on, its parts of 16 MiB, their begin and end."""
    if size < s3.MULTIPART_BYTES:
        return Traffic(put=1, bytes_written=size)
    return Traffic(put=2 + math.ceil(size / (s3.MULTIPART_BYTES // 4)), bytes_written=size)


def read(size: int, objects: int = 1) -> Traffic:
    """Objects read whole, `size` bytes in all."""
    return Traffic(get=objects, bytes_read=size)


def table_written(shards: int, size: int) -> Traffic:
    """An images table of `size` bytes: every shard and its entry, the listings before, every entry read at the end."""
    shard = written(math.ceil(size / shards)) + written(LEDGER_BYTES)
    listed = Traffic(list=2 + math.ceil(shards / LISTED_PER_REQUEST))
    total = shard * shards + read(LEDGER_BYTES * shards, shards) + listed
    return Traffic(total.put, total.get, total.list, size + LEDGER_BYTES * shards, total.bytes_read)


@dataclass(frozen=True)
class Table:
    """An images table: how many images in how many files, and their bytes (None: unknown)."""

    images: int
    shards: int
    bytes: int | None

    def read(self, times: int = 1) -> Traffic | None:
        """All files, read so many times."""
        return None if self.bytes is None else read(self.bytes, self.shards) * times


def bytes_per_image(given: float | None, encoding: tuple[str, int], image_size: int) -> float | None:
    """The user's own figure, else the measured one per pixel where the encoding is that one."""
    if given is not None or encoding != MEASURED_ENCODING:
        return given
    return MEASURED_BYTES_PER_PIXEL * image_size**2


def estimate(
    amount: float | None,
    unit: str,
    rate: Rate,
    cpus: float,
    gpus: float,
    traffic: Traffic | None,
    workers: int | None = None,
) -> dict[str, Any]:
    """A stage's estimate for its plan.

    Args:
        amount: units of work in all; None: no formula.
        unit: their name.
        rate: of one worker.
        cpus: that one worker holds.
        gpus: that one worker holds.
        traffic: None: unknown.
        workers: how many there are, where that is known before; then the hours on the clock follow.

    Returns:
        amount, unit, rate, rate_from, worker_hours = amount / rate / 3600, cpu_hours and gpu_hours = the same times
        what a worker holds, hours = worker_hours / workers, store. None for what is unknown.
    """
    worker_hours = None if rate.per_second is None or amount is None else amount / rate.per_second / 3600
    return {
        "is": "an estimate, not a measurement",
        "amount": amount,
        "unit": unit,
        "rate": rate.per_second,
        "rate_from": rate.source,
        "worker_hours": _rounded(worker_hours),
        "cpu_hours": _rounded(worker_hours, cpus),
        "gpu_hours": _rounded(worker_hours, gpus) if gpus else 0.0,
        "hours": _rounded(worker_hours, 1 / workers) if workers else None,
        "store": None if traffic is None else asdict(traffic),
    }


def page(taken: Traffic) -> dict[str, Any]:
    """A report's estimate: one process, whose figures do not grow with the tables; `taken` is read at most."""
    rate = rate_of(None, 1 / MEASURED_PAGE_SECONDS, "measured once, the quickstart's report on one core")
    return estimate(1, "pages", rate, 1.0, 0.0, taken + written(0), workers=1)


def total(estimates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sum over stages; None where one of them is unknown."""
    found = list(estimates)
    hours = {name: _sum([e[name] for e in found]) for name in ("cpu_hours", "gpu_hours")}
    stores = [e["store"] for e in found]
    store = None if None in stores else asdict(sum((Traffic(**s) for s in stores), Traffic()))
    return {"is": "an estimate, not a measurement", **hours, "store": store}


def _sum(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(math.fsum(known), 6) if len(known) == len(values) else None


def _rounded(hours: float | None, times: float = 1.0) -> float | None:
    return None if hours is None else round(hours * times, 6)
