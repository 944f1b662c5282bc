"""Whether the cluster can ever give what a stage asks for, asked before the stage waits for it for ever.

Ray keeps a demand that no node can satisfy pending without an end. Here it fails within a stated time, and the
message holds the demand and what the cluster has: its nodes, and the node types that its autoscaler may start.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray
from ray._private.state import state as ray_state

from synface.core.errors import InputError

#: seconds that nodes (or the autoscaler's first report) may take to appear
PATIENCE_SECONDS = 30.0
#: what an autoscaler's node type may leave unsaid; it is then not held against it
UNSTATED_RESOURCES = ("memory", "object_store_memory")
#: the label in which every node carries the name of its node type
NODE_TYPE_LABEL = "ray.io/node-group"

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Supply:
    """Equal nodes that stand or may be started: a name for messages, resources of one, and how many at most."""

    name: str
    resources: Resources
    count: float  # math.inf: no limit


def check_demand(what: str, bundles: Iterable[Resources], patience: float = PATIENCE_SECONDS) -> None:
    """Refuse a demand that the connected cluster can never satisfy, however long it waits.

    Counts whole nodes, not what is free now: work of others ends. The check is necessary, not sufficient: a
    refused demand is impossible; an accepted one may still have to wait.

    Args:
        what: whose demand, for the message: ``generate: actor pool``.
        bundles: one mapping of resource to amount per actor, worker or placement-group bundle.
        patience: seconds to wait for nodes that are still joining.

    Raises:
        InputError: impossible; names the demand, what is short and what the cluster has.
    """
    wanted = [dict(bundle) for bundle in bundles]
    deadline = time.monotonic() + patience
    while missing := shortfall(wanted, supplies()):
        if time.monotonic() >= deadline:
            raise InputError(_refusal(what, wanted, missing, supplies(), patience))
        time.sleep(min(0.5, max(deadline - time.monotonic(), 0.01)))


def supplies() -> list[Supply]:
    """The connected cluster's living nodes, and what its autoscaler may start beside them."""
    nodes = [n for n in ray.nodes() if n["Alive"]]
    running = Counter(n.get("Labels", {}).get(NODE_TYPE_LABEL) for n in nodes)
    types = [
        # a node type's own count holds its living nodes too; the head's type may say 0
        Supply(f"node type {t.name}", t.resources, max(t.count, running[t.name]))
        for t in node_types()
    ]
    named = {t.name for t in node_types()}
    others = [n for n in nodes if n.get("Labels", {}).get(NODE_TYPE_LABEL) not in named]
    return [Supply(f"node {n['NodeManagerAddress']}", n["Resources"], 1) for n in others] + types


def node_types() -> list[Supply]:
    """What the autoscaler reports that it may start (at most `count` of each); [] without an autoscaler."""
    config = ray_state.get_cluster_config()
    if config is None:
        return []
    return [
        Supply(g.name, dict(g.resources), math.inf if g.max_count < 0 else g.max_count)
        for g in config.node_group_configs
    ]


def shortfall(bundles: Iterable[Resources], supply: list[Supply]) -> list[str]:
    """Why `supply` can never hold all `bundles` at once, one line per reason; [] if nothing speaks against it.

    Two conditions, each necessary: for every kind of bundle the nodes have that many places, each node's
    resources divided by the bundle's; and for every resource the sum over all bundles fits the sum over all nodes.
    """
    kinds = Counter(_kind(bundle) for bundle in bundles)
    reasons = []
    for kind, asked in kinds.items():
        places = sum(_times(s.count, _places(dict(kind), s)) for s in supply)
        if places < asked:
            reasons.append(f"room for {places:g} of {asked} x {_text(dict(kind))}")
    if reasons:
        return reasons
    for name in sorted({name for kind in kinds for name, _ in kind}):
        asked_total = sum(dict(kind).get(name, 0.0) * count for kind, count in kinds.items())
        have = sum(_times(s.count, _amount(name, s)) for s in supply)
        if asked_total > have + 1e-6:
            reasons.append(f"{name}: {asked_total:g} asked, at most {have:g}")
    return reasons


def _kind(bundle: Resources) -> tuple[tuple[str, float], ...]:
    """The same for equal bundles; resources that are not asked for (0) left out."""
    return tuple(sorted((name, float(amount)) for name, amount in bundle.items() if amount > 0))


def _places(bundle: Resources, supply: Supply) -> float:
    """How many such bundles one node holds."""
    return min((math.floor(_amount(n, supply) / a + 1e-9) for n, a in bundle.items()), default=math.inf)


def _amount(name: str, supply: Supply) -> float:
    unstated = name in UNSTATED_RESOURCES and name not in supply.resources
    return 1e18 if unstated else float(supply.resources.get(name, 0.0))


def _times(count: float, amount: float) -> float:
    """Product of count and amount where one of them may be infinite and the other 0."""
    return count * amount if count and amount else 0.0


def _refusal(what: str, bundles: list[dict[str, float]], missing: list[str], has: list[Supply], waited: float) -> str:
    demand = ", ".join(f"{n} x {_text(dict(kind))}" for kind, n in Counter(map(_kind, bundles)).items())
    return (
        f"{what}: the cluster can never satisfy {demand} ({'; '.join(missing)}; waited {waited:g} s). "
        f"It has: {'; '.join(map(_describe, has)) or 'no node'}. "
        "Ask for less, or add a node type (or raise its max_workers) in cluster.yaml"
    )


def _describe(supply: Supply) -> str:
    many = "" if supply.count == 1 else f" x at most {supply.count:g}"
    return f"{supply.name} {_text(supply.resources)}{many}"


def _text(resources: Resources) -> str:
    """``{CPU: 4, GPU: 1}``; the per-node marks that Ray adds by itself are left out."""
    shown = {n: a for n, a in sorted(resources.items()) if not n.startswith("node:")}
    return "{" + ", ".join(f"{n}: {_size(n, a)}" for n, a in shown.items()) + "}"


def _size(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if name in UNSTATED_RESOURCES else f"{amount:g}"
