"""heads-v1 and heads-val: verification benchmarks that synface renders, pinned by digest.

200 identities of one split of the domain heads-real, six pictures of each under each of four stresses:
4,800 pictures. Six protocols of 3,000 genuine and 3,000 impostor pairs over at most 1,200 pictures each:

* frontal, pose, age, quality: the pictures of one stress. Genuine: all 15 pairs of an identity's six
  pictures. Impostors: pictures of two identities, every pair of identities of a fold at least once.
* mixed: six pictures per identity drawn from all four stresses.
* lookalike: genuine pairs as frontal; impostors are pictures of an identity and its *look-alike*.

Identities are chosen in couples: 100 anchors (the first seeds of the split), and for each the nearest
person of the same sex among `CANDIDATES` further seeds by the renderer's own `identity_distance` (no network
decides who looks alike). Fold f of 10 is the ten couples from 10 f on: **no identity stands in two folds**.
Within a fold the 300 genuine pairs come first, so that ten consecutive tenths hold both classes.

Everything is a function of `core.rng` keys. The manifest (identities, picture keys, pairs, renderer version,
asset digest) has a digest that is pinned in ``benchmarks/<name>.json``; another digest is another benchmark.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from synface.core.errors import SynfaceError
from synface.core.rng import generator, permutation
from synface.core.scores import FOLDS
from synface.evaluate.catalog import HEADS, PROTOCOLS
from synface.models import heads
from synface.settings import canonical_json

DOMAIN = "heads-real"
STRESSES = ("frontal", "pose", "age", "quality")
COUPLES = 100
IDENTITIES = 2 * COUPLES
PICTURES = 6
CANDIDATES = 800
#: impostor pairs of pictures per couple in the protocol lookalike: 100 * 30 = 3,000
COUPLE_PAIRS = 30
PINS = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Pairs:
    """A protocol: pair i is pictures `left_n[i]` and `right_n[i]` (see `picture`) of the same person or not."""

    left_n: np.ndarray  # int64 [6000]
    right_n: np.ndarray
    same_n: np.ndarray  # bool


def picture(stress: str, identity: int, sample: int) -> int:
    """Number of a picture: stresses in order, then identities, then samples."""
    return (STRESSES.index(stress) * IDENTITIES + identity) * PICTURES + sample


def picture_key(name: str, seed: int, sample: int) -> tuple[str, int, int]:
    """Key of a picture's variation, besides its stress: benchmark, identity seed, sample."""
    return name, seed, sample


def choose_identities(name: str) -> list[int]:
    """The 200 seeds: identity 2 i is an anchor, 2 i + 1 its look-alike. Some seconds; pinned, so seldom run."""
    start, _ = heads.SPLITS[HEADS[name]]
    anchors = [heads.sample_identity(DOMAIN, start + i) for i in range(COUPLES)]
    pool = [heads.sample_identity(DOMAIN, start + COUPLES + i) for i in range(CANDIDATES)]
    left = dict(enumerate(pool))
    seeds = []
    for anchor in anchors:
        same_sex = (i for i, p in left.items() if _sex(p) == _sex(anchor))
        nearest = min(same_sex, key=lambda i: (heads.identity_distance(anchor, left[i]), i))
        seeds += [anchor.seed, left.pop(nearest).seed]
    return seeds


def _sex(identity: Any) -> Any:
    return heads.identity_attributes(identity)["sex"]


def protocol_pairs(name: str, protocol: str) -> Pairs:
    """The 6,000 pairs of a protocol, fold after fold, in each fold genuine pairs first."""
    pictures_ip = _pictures(name, protocol)
    left, right, same = [], [], []
    for fold in range(FOLDS):
        members = np.arange(fold * IDENTITIES // FOLDS, (fold + 1) * IDENTITIES // FOLDS)
        genuine = [pair for i in members for pair in itertools.combinations(pictures_ip[i], 2)]
        if protocol == "lookalike":
            impostor = _couple_impostors(name, members, pictures_ip)
        else:
            impostor = _fold_impostors(name, protocol, fold, members, pictures_ip, len(genuine))
        for pairs, label in ((genuine, True), (impostor, False)):
            left += [a for a, _ in pairs]
            right += [b for _, b in pairs]
            same += [label] * len(pairs)
    return Pairs(np.array(left, np.int64), np.array(right, np.int64), np.array(same, bool))


def _pictures(name: str, protocol: str) -> np.ndarray:
    """The six pictures of each identity in a protocol, int64 [identities, 6]."""
    rows = []
    for i in range(IDENTITIES):
        if protocol == "mixed":
            rng = generator(name, "mixed", i)
            twice = rng.choice(STRESSES[1:], 2, replace=False)
            stresses = [*STRESSES, *(str(s) for s in twice)]
            samples = rng.permutation(PICTURES)
        else:
            stresses = ["frontal" if protocol == "lookalike" else protocol] * PICTURES
            samples = np.arange(PICTURES)
        rows.append([picture(s, i, int(k)) for s, k in zip(stresses, samples, strict=True)])
    return np.array(rows, np.int64)


def _fold_impostors(
    name: str, protocol: str, fold: int, members: np.ndarray, pictures_ip: np.ndarray, count: int
) -> list[tuple[int, int]]:
    """Every pair of the fold's identities once, then some again with other pictures, until `count`."""
    people = list(itertools.combinations(members, 2))
    rng = generator(name, protocol, fold, "impostors")
    first = rng.permutation(len(people))
    again = rng.permutation(len(people))[: count - len(people)]
    choice = rng.integers(PICTURES**2, size=len(people))
    other = (choice + rng.integers(1, PICTURES**2, size=len(people))) % PICTURES**2
    picked = [(people[p], int(choice[p])) for p in first] + [(people[p], int(other[p])) for p in again]
    return [(pictures_ip[a, c // PICTURES], pictures_ip[b, c % PICTURES]) for (a, b), c in picked]


def _couple_impostors(name: str, members: np.ndarray, pictures_ip: np.ndarray) -> list[tuple[int, int]]:
    """`COUPLE_PAIRS` of the 36 pairs of pictures of each couple."""
    pairs = []
    for a in members[::2]:
        for c in permutation(PICTURES**2, name, "lookalike", int(a))[:COUPLE_PAIRS]:
            pairs.append((pictures_ip[a, c // PICTURES], pictures_ip[a + 1, c % PICTURES]))
    return pairs


def manifest(name: str, seeds: list[int]) -> dict[str, Any]:
    """What the benchmark is, as plain data: its canonical JSON's sha256 is the pinned digest."""
    pairs = {p: _pairs_digest(protocol_pairs(name, p)) for p in PROTOCOLS}
    return {
        "name": name,
        "domain": DOMAIN,
        "split": HEADS[name],
        "renderer_version": heads.RENDERER_VERSION,
        "asset_sha256": heads.asset_digest(),
        "stresses": list(STRESSES),
        "pictures_per_identity_and_stress": PICTURES,
        "picture_key": ["stress", "name", "identity seed", "sample"],
        "folds": FOLDS,
        "identities": seeds,
        "pairs_sha256": pairs,
    }


def _pairs_digest(pairs: Pairs) -> str:
    rows = np.stack([pairs.left_n, pairs.right_n, pairs.same_n.astype(np.int64)], 1)
    return hashlib.sha256(canonical_json(rows.tolist()).encode()).hexdigest()


def digest(content: dict[str, Any]) -> str:
    """sha256 of a manifest's canonical JSON."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@cache
def pinned(name: str) -> dict[str, Any]:
    """The manifest in the repository and its ``sha256``, checked against this installation.

    Raises:
        SynfaceError: pairs, renderer or assets of this installation are not those of the benchmark.
    """
    stored = json.loads((PINS / f"{name}.json").read_text())
    content = manifest(name, stored["manifest"]["identities"])
    if digest(content) != stored["sha256"] or content != stored["manifest"]:
        wrong = [k for k, v in content.items() if stored["manifest"].get(k) != v]
        raise SynfaceError(
            f"benchmark {name}: this installation makes another benchmark than the pinned one "
            f"(differs in: {', '.join(wrong) or 'digest'}); numbers would not compare. Install the synface release "
            "that the benchmark belongs to"
        )
    return {**content, "sha256": stored["sha256"]}


def write_pin(name: str) -> Path:
    """Choose the identities anew and write the pin. For maintainers: this makes another benchmark."""
    content = manifest(name, choose_identities(name))
    path = PINS / f"{name}.json"
    text = json.dumps({"manifest": content, "sha256": digest(content)}, indent=None, sort_keys=True)
    path.write_text(text + "\n")
    return path


if __name__ == "__main__":
    for benchmark in HEADS:
        print(write_pin(benchmark))
