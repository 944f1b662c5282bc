"""Generation through Ray Data: shard requests -> generator actors -> writer tasks.

One row of the stream is one whole shard, at every stage: its request, then its finished table as bytes, then
what was written. Blocks may be merged or split as Ray likes; rows cannot. A failing image never becomes an
exception here (`render.py` quarantines it), so no block is dropped or retried for ever; and a shard whose
work is lost with its actor or node is found missing and asked for again.
"""

import functools
import json
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.exceptions import RayError

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.generate.config import GenerateConfig
from synface.generate.generators import find_generator
from synface.generate.identities import Identities, shard_identities
from synface.generate.plan import ShardPlan, shard_items
from synface.generate.render import render_shard
from synface.ops import cluster, demand, signals
from synface.ops.progress import Progress, say
from synface.store import ledger, tables

#: the share of a CPU that an actor's thread takes: what is left lets writers run beside actors on one CPU. Ninths
#: would fill a node of 9, 36 or 72 CPUs to the last, and writers would wait for as long as the actors live
ACTOR_CPU_SHARE = 0.89
#: shards take about a minute each to make and well under a second to write
ACTORS_PER_WRITER = 8
#: where an autoscaler starts nodes: one is not worth its start for less than this (about five minutes) per actor
SHARDS_PER_NEW_ACTOR = 5
#: and a pool that asks for more at once needs how.max_actors
LARGEST_GUESS = 1000
#: a run is given up when more images failed than this, and more than were made: not bad luck, a broken set-up
HOPELESS_FAILURES = 256


class ShardActor:
    """Holds one loaded generator; turns a shard's request into its table.

    What goes wrong is answered as a `fault` instead of raised: Ray would wrap it in screens of its own.
    """

    def __init__(self, config: GenerateConfig, config_hash: str, search_path: list[str]):
        # where the driver found a package.module:attribute generator
        sys.path.extend(p for p in search_path if p not in sys.path)
        self.config, self.config_hash, self.fault = config, config_hash, ""
        try:
            self.kind = find_generator(config.generator)
            self.description = self.kind.describe(config)
            self.generator = self.kind(config)
        except Exception as error:
            self.fault = _describe(f"generator {config.generator!r} cannot be loaded", error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Request {shard, start, stop, columns} -> {shard, rows, parquet, failed, fault}."""
        answer = {"shard": row["shard"], "rows": 0, "parquet": b"", "failed": "[]", "fault": self.fault}
        if self.fault:
            return answer
        try:
            return answer | self._make(row)
        except Exception as error:
            return answer | {"fault": _describe(f"shard {row['shard']}", error)}

    def _make(self, row: dict[str, Any]) -> dict[str, Any]:
        labels = range(row["start"], row["stop"])
        columns = _from_ipc(row["columns"]) if row["columns"] else None
        identities = shard_identities(self.kind, self.config, labels, columns)
        items = shard_items(self.config.seed, identities, self.config.images_per_identity)
        table, failed = render_shard(self.generator, self.description, self.config, self.config_hash, items)
        return {"rows": table.num_rows, "parquet": tables.parquet_bytes(table), "failed": json.dumps(failed)}


def write_row(row: dict[str, Any], output: str, config_hash: str, versions: dict[str, str]) -> dict[str, Any]:
    """Write a finished shard and its ledger entry; returns {shard, rows, failed, first_failure, fault, refused}."""
    failed = json.loads(row["failed"])
    answer = {"shard": row["shard"], "rows": row["rows"], "failed": len(failed), "first_failure": "", "refused": False}
    if failed:
        first = failed[0]
        answer["first_failure"] = f"{first['identity_id']}, sample {first['sample']}: {first['error']}"
    if not row["fault"]:
        try:
            shard, data = int(row["shard"]), row["parquet"]
            ledger.write_shard(output, shard, data, int(row["rows"]), config_hash, failed, versions)
        except SynfaceError as error:
            return answer | {"fault": str(error), "refused": isinstance(error, InputError)}
        except Exception as error:
            return answer | {"fault": _describe(f"writing shard {row['shard']}", error)}
    return answer | {"fault": row["fault"]}


def _describe(what: str, error: Exception) -> str:
    """One line for the user, and where it happened for whoever mends the code."""
    if isinstance(error, SynfaceError):
        return f"{what}: {error}"
    frames = "".join(traceback.format_exception(error)[-3:]).rstrip()
    return f"{what}: {type(error).__name__}: {error}\n{frames}"


def generate(
    config: GenerateConfig, config_hash: str, identities: Identities, plan: ShardPlan, versions: dict[str, str]
) -> dict[int, ledger.ShardEntry]:
    """Make every shard that the ledger does not hold yet; returns the ledger's entries of all shards.

    Raises:
        PartialError: the time budget is over, or a stop signal came; what is finished is kept.
        SynfaceError: work was lost in every round, or nearly all images fail.
        InputError: the cluster has no room for the smallest pool, or the output took no more (no space, rights).
    """
    done = ledger.finished(config.output, config_hash)
    todo = [s for s in range(plan.shards) if s not in done]
    images_done = sum(plan.images_in(s) for s in done if s < plan.shards)
    if todo:
        cluster.connect()
        cluster.check_output_reachable(config.output)
        check_room(config)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        progress = Progress("generate", plan.images, "images", images_done, config.how.progress_seconds)
        _make(config, config_hash, identities, plan, versions, todo, progress)
    return {s: e for s, e in ledger.load(config.output).items() if e.config_hash == config_hash}


def _make(
    config: GenerateConfig,
    config_hash: str,
    identities: Identities,
    plan: ShardPlan,
    versions: dict[str, str],
    todo: list[int],
    progress: Progress,
) -> None:
    deadline = time.monotonic() + 3600 * config.how.max_hours if config.how.max_hours else math.inf
    made = failures = 0
    for attempt in range(config.how.rounds):
        left = set(todo)
        try:
            for row in _stream(config, config_hash, identities, plan, versions, todo):
                if row["fault"]:
                    raise (InputError if row["refused"] else SynfaceError)(row["fault"])
                left.discard(int(row["shard"]))
                made, failures = made + int(row["rows"]), failures + int(row["failed"])
                note = f"(shard {plan.shards - len(left)} of {plan.shards}, {failures} failed)"
                progress.advance(plan.images_in(int(row["shard"])), note)
                if row["failed"]:
                    say(f"generate: shard {row['shard']}: {row['failed']} failed; first: {row['first_failure']}")
                if failures > max(HOPELESS_FAILURES, made):
                    raise SynfaceError(
                        f"{failures} images failed, {made} were made; for example {row['first_failure']}"
                    )
                if left:
                    # shards in hand are dropped: they may need longer than a stop signal leaves
                    signals.check_stop()
                if left and time.monotonic() > deadline:
                    raise PartialError(
                        f"stopped after how.max_hours = {config.how.max_hours}: {len(left)} of {plan.shards} shards "
                        "are missing; the same command continues"
                    )
        except RayError as error:
            if attempt + 1 == config.how.rounds:
                raise SynfaceError(
                    f"{len(left)} of {plan.shards} shards could not be made in {config.how.rounds} rounds; what is "
                    f"finished is kept, the same command continues. Last error: {error}"
                ) from error
            say(f"generate: work was lost ({type(error).__name__}); round {attempt + 2} of {config.how.rounds}")
        todo = sorted(left)
        if not todo:
            return
    raise SynfaceError(f"shards {todo[:8]} were not made; the same command continues")


def _stream(
    config: GenerateConfig,
    config_hash: str,
    identities: Identities,
    plan: ShardPlan,
    versions: dict[str, str],
    todo: list[int],
) -> Iterator[dict[str, Any]]:
    """What was written, shard by shard, as it is finished."""
    how = config.how
    smallest, largest = pool_size(config, len(todo), demand.nodes(), demand.autoscaled())
    actor, writer = bundles(config)
    requests = [_request(s, plan.rows(s), identities) for s in todo]
    # a block per request, or one actor would get them all
    stream = ray.data.from_items(requests, override_num_blocks=len(requests))
    stream.context.enable_progress_bars = False
    stream.context.max_errored_blocks = 0
    search_path = [os.getcwd() if p == "" else p for p in sys.path] if ":" in config.generator else []
    # all at once: actors that wait for a place are what an autoscaler starts nodes for
    actors = ActorPoolStrategy(min_size=smallest, max_size=largest, initial_size=largest)
    with warnings.catch_warnings():
        # Ray would restart a crashing actor for ever; its named parameters cannot bound that yet
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        stream = stream.map(
            cast(Any, ShardActor),
            fn_constructor_args=(config, config_hash, search_path),
            compute=actors,
            num_cpus=actor["CPU"],
            num_gpus=actor["GPU"] or None,
            max_restarts=how.restarts,
            max_task_retries=how.restarts,
        )
    write = functools.partial(write_row, output=config.output, config_hash=config_hash, versions=versions)
    # bounded, or Ray starts a process for every shard that waits
    writers = TaskPoolStrategy(size=how.writers or math.ceil(largest / ACTORS_PER_WRITER))
    stream = stream.map(write, compute=writers, num_cpus=writer["CPU"])
    yield from stream.iter_rows()


def bundles(config: GenerateConfig) -> tuple[dict[str, float], dict[str, float]]:
    """What one actor and one writer ask of the cluster."""
    cpus = config.how.cpus_per_actor or ACTOR_CPU_SHARE * config.numerics.threads_per_actor
    return {"CPU": cpus, "GPU": config.how.gpus_per_actor}, {"CPU": config.how.cpus_per_writer}


def check_room(config: GenerateConfig) -> None:
    """InputError where the smallest pool beside one writer never fits on the cluster: it would wait for ever."""
    actor, writer = bundles(config)
    demand.check_demand("generate: how.min_actors and a writer", [actor] * config.how.min_actors + [writer])


def pool_size(config: GenerateConfig, shards: int, nodes: list[demand.Resources], autoscaled: bool) -> tuple[int, int]:
    """The smallest and the largest number of actors for so many shards.

    A cluster of fixed size gives room beside one writer, however large `how.max_actors` is: actors that take the
    last CPU keep every writer waiting. An autoscaler adds nodes for what the pool asks, up to its own limit.
    """
    actor, writer = bundles(config)
    places = int(demand.places(actor, nodes))
    whole = demand.shortfall([actor] * places + [writer], nodes) == [] if places else True
    room = max(1, places if whole else places - 1)
    if autoscaled:
        wanted = max(room, min(math.ceil(shards / SHARDS_PER_NEW_ACTOR), LARGEST_GUESS))
        largest = config.how.max_actors or wanted
    else:
        largest = min(config.how.max_actors or room, room)
    largest = max(config.how.min_actors, min(largest, shards))
    return config.how.min_actors, largest


def _request(shard: int, labels: range, identities: Identities) -> dict[str, Any]:
    columns = identities.slice(labels)
    return {
        "shard": shard,
        "start": labels.start,
        "stop": labels.stop,
        "columns": b"" if columns is None else _to_ipc(columns),
    }


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
