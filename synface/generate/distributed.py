"""Generation through Ray Data: shard requests -> generator actors -> writer actors.

One row of the stream is one whole shard, at every stage: its request, then its finished table as bytes, then
what was written. Blocks may be merged or split as Ray likes; rows cannot. A failing image never becomes an
exception here (`render.py` quarantines it), so no block is dropped or retried for ever; and a shard whose
work is lost with its actor or node is found missing and asked for again. Shards are made in no fixed order: an
actor of Ray Data takes the two that wait for it in either (4 of 60 tries began with the second).
"""

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from synface.core.errors import InputError, PartialError, SynfaceError
from synface.generate import scoring
from synface.generate.budget import Budget
from synface.generate.config import GenerateConfig
from synface.generate.generators import find_generator
from synface.generate.identities import Identities, shard_identities
from synface.generate.plan import Shard, ShardPlan, shard_items
from synface.generate.render import render_shard
from synface.generate.scoring import Judge
from synface.generate.writer import ShardWriter, describe
from synface.ops import cluster, demand, metrics, runs, signals
from synface.ops.progress import Progress, say
from synface.store import erasure, leases, ledger, tables

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

    def __init__(self, config: GenerateConfig, search_path: list[str], references: Any, erased: frozenset[str]):
        # where the driver found a package.module:attribute generator
        sys.path.extend(p for p in search_path if p not in sys.path)
        self.config, self.erased, self.judge, self.fault = config, erased, None, ""
        try:
            self.kind = find_generator(config.generator)
            self.description = self.kind.describe(config)
            self.generator = self.kind(config)
            scorer = scoring.describe(config)
            if scorer is not None:
                self.judge = Judge(config, scorer, None if references is None else ray.get(references[0]))
        except Exception as error:
            self.fault = describe(f"generator {config.generator!r} cannot be loaded", error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Request of `_request` -> {shard, config_hash, rows, parquet, failed, fault}."""
        answer = {"shard": row["shard"], "config_hash": row["config_hash"], "rows": 0, "parquet": b"", "failed": "[]"}
        answer["fault"] = self.fault
        if self.fault:
            return answer
        try:
            with runs.about(row["shard"]):
                return answer | self._make(row)
        except Exception as error:
            return answer | {"fault": describe(f"shard {row['shard']}", error)}

    def _make(self, row: dict[str, Any]) -> dict[str, Any]:
        labels = range(row["start"], row["stop"])
        columns = _from_ipc(row["columns"]) if row["columns"] else None
        identities = shard_identities(self.kind, self.config, labels, columns)
        identities = [i for i in identities if erasure.digest_of(i.identity_id) not in self.erased]
        items = shard_items(self.config.seed, identities, range(row["first_sample"], row["stop_sample"]))
        table, failed = render_shard(
            self.generator, self.description, self.config, row["config_hash"], items, self.judge
        )
        return {"rows": table.num_rows, "parquet": tables.parquet_bytes(table), "failed": json.dumps(failed)}


def generate(
    config: GenerateConfig,
    identities: Identities,
    plan: ShardPlan,
    versions: dict[str, str],
    erased: frozenset[str] = frozenset(),
) -> dict[int, ledger.ShardEntry]:
    """Make every shard that the ledger does not hold yet; returns the ledger's entries of all shards.

    Args:
        config: of the run.
        identities: who.
        plan: every shard with the hash that it is made under.
        versions: for the ledger.
        erased: digests of identities that are not made any more (`store.erasure`).

    Raises:
        PartialError: the budget of time or money is over, or a stop signal came; what is finished is kept.
        SynfaceError: work was lost in every round, or nearly all images fail.
        InputError: the cluster has no room for the smallest pool, or the output took no more (no space, rights).
    """
    hashes = {n: plan.shard(n).config_hash for n in range(plan.shards)}
    done = ledger.finished(config.output, hashes)
    todo = [plan.shard(n) for n in hashes if n not in done]
    images_done = sum(plan.shard(n).images for n in done)
    if todo:
        cluster.connect()
        cluster.check_output_reachable(config.output)
        check_room(config)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        progress = Progress("generate", plan.images, "images", images_done, config.how.progress_seconds)
        with leases.held(config.output, config.verb):
            _make(config, identities, plan, versions, erased, todo, progress)
    return {n: e for n, e in ledger.load(config.output).items() if e.config_hash == hashes.get(n)}


def _make(
    config: GenerateConfig,
    identities: Identities,
    plan: ShardPlan,
    versions: dict[str, str],
    erased: frozenset[str],
    todo: list[Shard],
    progress: Progress,
) -> None:
    budget = Budget(config.how, lambda: len(demand.nodes()))
    made = lost = 0
    for attempt in range(config.how.rounds):
        left = {shard.number: shard for shard in todo}
        try:
            for row in _stream(config, identities, versions, erased, todo):
                if row["fault"]:
                    raise (InputError if row["refused"] else SynfaceError)(row["fault"])
                shard = left.pop(int(row["shard"]), plan.shard(int(row["shard"])))
                made, lost = made + int(row["rows"]), lost + int(row["lost"])
                metrics.add(metrics.SHARDS_DONE, config.verb)
                metrics.add(metrics.IMAGES_FAILED, config.verb, int(row["lost"]))
                metrics.show(metrics.LAST_SHARD, config.verb, shard.number)
                with runs.about(shard.number):
                    progress.advance(
                        shard.images, f"(shard {plan.shards - len(left)} of {plan.shards}, {lost} failed)"
                    )
                    if row["failed"]:
                        say(f"generate: shard {row['shard']}: {row['failed']} failed; first: {row['first_failure']}")
                if lost > max(HOPELESS_FAILURES, made):
                    raise SynfaceError(f"{lost} images failed, {made} were made; for example {row['first_failure']}")
                if left:
                    # shards in hand are dropped: they may need longer than a stop signal leaves
                    signals.check_stop()
                used = budget.over()
                if left and used:
                    raise PartialError(
                        f"stopped after {used}: {len(left)} of {plan.shards} shards are missing; the same command "
                        "continues"
                    )
        except RayError as error:
            if attempt + 1 == config.how.rounds:
                raise SynfaceError(
                    f"{len(left)} of {plan.shards} shards could not be made in {config.how.rounds} rounds; what is "
                    f"finished is kept, the same command continues. Last error: {error}"
                ) from error
            metrics.add(metrics.WORK_LOST, config.verb)
            say(f"generate: work was lost ({type(error).__name__}); round {attempt + 2} of {config.how.rounds}")
        todo = list(left.values())
        if not todo:
            return
    raise SynfaceError(f"shards {[s.number for s in todo[:8]]} were not made; the same command continues")


def _stream(
    config: GenerateConfig,
    identities: Identities,
    versions: dict[str, str],
    erased: frozenset[str],
    todo: list[Shard],
) -> Iterator[dict[str, Any]]:
    """What was written, shard by shard, as it is finished."""
    how = config.how
    smallest, largest = pool_size(config, len(todo), demand.nodes(how.labels), demand.autoscaled())
    actor, writer = bundles(config)
    requests = [_request(shard, identities) for shard in todo]
    # one copy a node, which its actors share; in a list, or Ray would look for a whole argument to fetch
    references = None if config.scoring.unique_below is None else [ray.put(identities.reference_nd)]
    # a block per request, or one actor would get them all
    stream = ray.data.from_items(requests, override_num_blocks=len(requests))
    stream.context.enable_progress_bars = False
    stream.context.issue_detectors_config.detectors = []  # else 15 lines every half minute: no memory is reserved here
    stream.context.max_errored_blocks = 0
    search_path = [os.getcwd() if p == "" else p for p in sys.path] if ":" in config.generator else []
    # all at once: actors that wait for a place are what an autoscaler starts nodes for
    actors = ActorPoolStrategy(min_size=smallest, max_size=largest, initial_size=largest)
    writers = ActorPoolStrategy(min_size=1, max_size=how.writers or math.ceil(largest / ACTORS_PER_WRITER))
    common = {
        "max_restarts": how.restarts,
        "max_task_retries": how.restarts,
        "label_selector": how.labels or None,
    }
    with warnings.catch_warnings():
        # Ray would restart a crashing actor for ever; its named parameters cannot bound that yet
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        stream = stream.map(
            cast(Any, ShardActor),
            fn_constructor_args=(config, search_path, references, erased),
            compute=actors,
            num_cpus=actor["CPU"],
            num_gpus=actor["GPU"] or None,
            **common,
        )
        stream = stream.map(
            cast(Any, ShardWriter),
            fn_constructor_args=(config.output, versions),
            compute=writers,
            num_cpus=writer["CPU"],
            **common,
        )
    yield from stream.iter_rows()


def bundles(config: GenerateConfig) -> tuple[dict[str, float], dict[str, float]]:
    """What one actor and one writer ask of the cluster."""
    cpus = config.how.cpus_per_actor or ACTOR_CPU_SHARE * config.numerics.threads_per_actor
    return {"CPU": cpus, "GPU": config.how.gpus_per_actor}, {"CPU": config.how.cpus_per_writer}


def check_room(config: GenerateConfig) -> None:
    """InputError where the smallest pool beside one writer never fits on the cluster: it would wait for ever."""
    actor, writer = bundles(config)
    smallest = [actor] * config.how.min_actors + [writer]
    demand.check_demand("generate: how.min_actors and a writer", smallest, labels=config.how.labels)


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


def _request(shard: Shard, identities: Identities) -> dict[str, Any]:
    columns = identities.slice(shard.labels)
    return {
        "shard": shard.number,
        "start": shard.labels.start,
        "stop": shard.labels.stop,
        "first_sample": shard.samples.start,
        "stop_sample": shard.samples.stop,
        "config_hash": shard.config_hash,
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
