"""Benchmarks ready to embed: encoded pictures and protocols, whether rendered or from a ``.bin`` file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synface.core.errors import InputError
from synface.core.rng import KeyPart
from synface.evaluate import heads_benchmark as hb
from synface.evaluate.catalog import PACK_PROTOCOL, Spec
from synface.evaluate.verification import Protocol
from synface.models import heads
from synface.store.formats.verification_bin import VerificationPack, decode_image

#: identity ages in years, and the names of their slices
AGE_EDGES = (30, 50)
AGE_NAMES = ("under 30", "30 to 50", "over 50")


@dataclass(frozen=True)
class Benchmark:
    """Encoded pictures (``encoded[i]`` is row i of the embeddings) and the protocols over them."""

    name: str
    encoded: Sequence[bytes]
    side: int  # pixels of every picture
    protocols: tuple[Protocol, ...]
    where: str


def from_pack(spec: Spec, pack: VerificationPack) -> Benchmark:
    """A verification pack as a benchmark of one protocol; its pictures' side is the first one's."""
    first = decode_image(pack.encoded[0], f"{pack.where}: image 0 (pair 0)")
    rows = np.arange(len(pack.encoded))
    protocol = Protocol(PACK_PROTOCOL, rows[0::2], rows[1::2], pack.same_n, {})
    return Benchmark(spec.name, pack.encoded, first.width, (protocol,), pack.where)


def needed_stresses(protocols: Sequence[str]) -> tuple[str, ...]:
    """Which stresses' pictures some protocols look at, in the benchmark's order."""
    if "mixed" in protocols:
        return hb.STRESSES
    used = {"frontal" if p == "lookalike" else p for p in protocols}
    return tuple(s for s in hb.STRESSES if s in used)


def from_renders(spec: Spec, encoded: dict[str, list[bytes]], side: int, where: str) -> Benchmark:
    """A rendered benchmark from the pictures of the stresses that it needs (1,200 each, in order)."""
    stresses = needed_stresses(spec.protocols)
    per_stress = hb.IDENTITIES * hb.PICTURES
    row_of = np.full(len(hb.STRESSES) * per_stress, -1, np.int64)
    pictures: list[bytes] = []
    for stress in stresses:
        if len(encoded[stress]) != per_stress:
            raise InputError(f"{where}: {len(encoded[stress])} pictures of {stress}, expected {per_stress}")
        first = hb.picture(stress, 0, 0)
        row_of[first : first + per_stress] = np.arange(per_stress) + len(pictures)
        pictures += encoded[stress]
    groups = {k: np.tile(np.repeat(v, hb.PICTURES), len(stresses)) for k, v in identity_groups(spec.name).items()}
    protocols = []
    for name in spec.protocols:
        pairs = hb.protocol_pairs(spec.name, name)
        protocols.append(Protocol(name, row_of[pairs.left_n], row_of[pairs.right_n], pairs.same_n, groups))
    return Benchmark(spec.name, pictures, side, tuple(protocols), where)


def identity_groups(name: str) -> dict[str, np.ndarray]:
    """sex, age group and ancestry of each identity of a rendered benchmark, text [200] each."""
    seeds = hb.pinned(name)["identities"]
    facts: list[dict[str, Any]] = [heads.identity_attributes(heads.sample_identity(hb.DOMAIN, s)) for s in seeds]
    age = np.digitize([float(f["age"]) for f in facts], AGE_EDGES)
    return {
        "sex": np.array([str(f["sex"]) for f in facts]),
        "age": np.array([AGE_NAMES[i] for i in age]),
        "ancestry": np.array([str(f["ancestry"]) for f in facts]),
    }


def picture_keys(name: str, stress: str, identity: int) -> list[tuple[KeyPart, ...]]:
    """The variation keys of an identity's six pictures of a stress."""
    seed = hb.pinned(name)["identities"][identity]
    return [hb.picture_key(name, seed, sample) for sample in range(hb.PICTURES)]
