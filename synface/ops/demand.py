"""Whether the cluster can give what a stage asks for, asked before the stage waits for it for ever.

Ray keeps a demand that no node can satisfy pending without an end. Here it fails within a stated time, and the
message holds the demand and what the cluster has. What the nodes that stand can hold passes at once; otherwise
the autoscaler is asked in the only way that it answers: by a demand (a placement group, taken back afterwards).
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # pyright: ignore[reportAttributeAccessIssue]
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from synface.core.errors import InputError

#: seconds that nodes may take to join, and the autoscaler to answer (it looks every 5 s)
PATIENCE_SECONDS = 30.0
#: shown as GiB
MEMORIES = ("memory", "object_store_memory")

Resources = Mapping[str, float]
#: label of a node -> what it must be: x, !x, in(x, y), !in(x, y), as Ray's label selectors
Labels = Mapping[str, str]
Kind = tuple[tuple[str, float], ...]


def check_demand(
    what: str, bundles: Iterable[Resources], patience: float = PATIENCE_SECONDS, labels: Labels | None = None
) -> None:
    """Refuse a demand that the connected cluster cannot satisfy, however long it waits.

    Standing nodes count whole, not what is free on them now: work of others ends. Where nodes would have to be
    started, the autoscaler's own answer counts, which takes what others use now into account.

    Args:
        what: whose demand, for the message: ``generate: actor pool``.
        bundles: one mapping of resource to amount per actor, worker or placement-group bundle.
        patience: seconds to wait for nodes that are still joining, or for the autoscaler's answer.
        labels: that every node of the demand must have.

    Raises:
        InputError: impossible; names the demand, what is short and what the cluster has.
    """
    wanted = [dict(kind) for kind in map(_kind, bundles) if kind]
    started = time.monotonic()
    if not shortfall(wanted, nodes(labels)):
        return
    selectors = [dict(labels)] * len(wanted) if labels else None
    probe = placement_group(wanted, strategy="PACK", bundle_label_selector=selectors)  # type: ignore[arg-type]
    try:
        asked_at = _cluster_status().cluster_resource_state.cluster_resource_state_version
        while missing := shortfall(wanted, nodes(labels)):
            if _autoscaler_accepts(probe, asked_at):
                return
            waited = time.monotonic() - started
            if waited >= patience:
                raise InputError(_refusal(what, wanted, missing, waited, labels))
            time.sleep(min(0.5, patience - waited))
    finally:
        remove_placement_group(probe)


def pool(
    what: str, bundle: Resources, actors: int | None, work: int | None = None, labels: Labels | None = None
) -> int:
    """How many equal actors to start, at least one.

    An actor that waits for a place keeps the work that it was given: so no more than there are places, but under an
    autoscaler as many as are asked for.

    Args:
        what: as in `check_demand`.
        bundle: of one actor.
        actors: asked for; None: as many as there are places.
        work: pieces; more actors would have nothing to do.
        labels: as in `check_demand`.

    Raises:
        InputError: not even one can ever be had.
    """
    check_demand(what, [bundle], labels=labels)
    room = places(bundle, nodes(labels))
    count = actors or room
    if not autoscaled():
        count = min(count, room)
    return int(max(1, min(count, math.inf if work is None else work)))


def nodes(labels: Labels | None = None) -> list[Resources]:
    """The resources of every living node of the connected cluster that has these labels."""
    return [n["Resources"] for n in ray.nodes() if n["Alive"] and has_labels(n["Labels"], labels or {})]


def amount(name: str, labels: Labels | None = None) -> float:
    """How much of a resource all those nodes have."""
    return sum(node.get(name, 0.0) for node in nodes(labels))


def cpu_share(threads: float, labels: Labels | None = None, workers: int = 1) -> float:
    """CPUs of one of so many equal workers: its threads, or its part of all those nodes where they have fewer."""
    return min(float(threads), (amount("CPU", labels) or math.inf) / workers)


def has_labels(own: Mapping[str, str], wanted: Labels) -> bool:
    """Whether a node with labels `own` is one of those that `wanted` selects.

    As in Ray: a label that a node does not have is not equal to any value.
    """

    def selected(name: str, condition: str) -> bool:
        value = condition.removeprefix("!")
        values = value[3:-1].split(",") if value.startswith("in(") else [value]
        return (own.get(name) in [v.strip() for v in values]) != condition.startswith("!")

    return all(selected(name, condition) for name, condition in wanted.items())


def autoscaled() -> bool:
    """Whether the connected cluster belongs to an autoscaler, so that nodes may come and go."""
    return any(n.ray_node_type_name for n in _cluster_status().cluster_resource_state.node_states)


def places(bundle: Resources, supply: Iterable[Resources]) -> float:
    """How many equal bundles fit on nodes of these resources at once (math.inf for an empty one)."""
    return sum(
        min(
            (math.floor(node.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items() if amount),
            default=math.inf,
        )
        for node in supply
    )


def shortfall(bundles: Iterable[Resources], supply: list[Resources]) -> list[str]:
    """Why nodes of these resources can never hold all bundles at once, a line per reason; [] if nothing says so.

    Two conditions, each necessary: for every kind of bundle there are as many places, and for every resource the
    sum over all bundles is no more than the sum over all nodes. For equal bundles that is exact.
    """
    kinds = Counter(_kind(bundle) for bundle in bundles)
    reasons = [
        f"room for {places(dict(kind), supply):g} of {asked} x {_text(dict(kind))}"
        for kind, asked in kinds.items()
        if kind and places(dict(kind), supply) < asked
    ]
    if reasons:
        return reasons
    for name in sorted({name for kind in kinds for name, _ in kind}):
        asked = sum(dict(kind).get(name, 0.0) * count for kind, count in kinds.items())
        have = sum(node.get(name, 0.0) for node in supply)
        if asked > have * (1 + 1e-9) + 1e-6:
            reasons.append(f"{name}: {asked:g} asked, {have:g} there")
    return reasons


def _autoscaler_accepts(probe: PlacementGroup, asked_at: int) -> bool:
    """Whether the autoscaler has seen the pending placement group (of state `asked_at`) and starts nodes for it."""
    status = _cluster_status()
    state, seen = status.autoscaling_state, status.cluster_resource_state
    if state.autoscaler_state_version:
        name = probe.id.hex()
        pending = any(name in gang.details for gang in seen.pending_gang_resource_requests)
        refused = any(name in gang.details for gang in state.infeasible_gang_resource_requests)
        return pending and not refused and state.last_seen_cluster_resource_state_version > asked_at
    # version 1 of the autoscaler reports as text, and no refusals: what it starts is its answer
    text = _gcs().internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), None)
    report = (json.loads(text) if text else {}).get("autoscaler_report") or {}
    return bool(report.get("pending_launches") or report.get("pending_nodes"))


def _cluster_status() -> GetClusterStatusReply:
    reply = GetClusterStatusReply()
    reply.ParseFromString(_gcs().get_cluster_status())
    return reply


def _gcs() -> GcsClient:
    return GcsClient(ray.get_runtime_context().gcs_address)


def _kind(bundle: Resources) -> Kind:
    """The same for equal bundles; resources that are not asked for (0) left out."""
    return tuple(sorted((name, float(amount)) for name, amount in bundle.items() if amount > 0))


def _refusal(what: str, bundles: Sequence[Resources], missing: list[str], waited: float, labels: Labels | None) -> str:
    held = f" on nodes with how.labels {dict(labels)}" if labels else ""
    of_them = f", {len(nodes(labels))} of them with these labels" if labels else ""
    return (
        f"{what}: the cluster cannot satisfy {_counted(bundles)}{held} ({'; '.join(missing)}), and its autoscaler, if "
        f"it has one, starts no node for it (waited {waited:.0f} s). Its nodes: {_counted(nodes()) or 'none'}{of_them}"
        ". Ask for less, or add a node type or raise max_workers in cluster.yaml"
    )


def _counted(resources: Iterable[Resources]) -> str:
    shown = [{n: a for n, a in r.items() if not n.startswith("node:")} for r in resources]
    return ", ".join(f"{count} x {_text(dict(kind))}" for kind, count in Counter(map(_kind, shown)).items())


def _text(resources: Resources) -> str:
    """``{CPU: 4, GPU: 1}``."""
    return "{" + ", ".join(f"{n}: {_amount(n, a)}" for n, a in sorted(resources.items())) + "}"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if name in MEMORIES else f"{amount:g}"
