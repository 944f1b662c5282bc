"""heads-v1 and heads-val: what the benchmark promises, and that it is the pinned one."""

import itertools
import json

import numpy as np
import pytest

from synface.core.errors import SynfaceError
from synface.core.scores import fold_bounds
from synface.evaluate import heads_benchmark as hb
from synface.evaluate import sources
from synface.evaluate.catalog import HEADS, PROTOCOLS, Spec
from synface.models import heads


def identity_of(picture_n):
    return (picture_n // hb.PICTURES) % hb.IDENTITIES


def stress_of(picture_n):
    return picture_n // (hb.PICTURES * hb.IDENTITIES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pairs_keep_their_promises(protocol):
    pairs = hb.protocol_pairs("heads-v1", protocol)
    assert (pairs.same_n.sum(), (~pairs.same_n).sum()) == (3000, 3000)
    left, right = identity_of(pairs.left_n), identity_of(pairs.right_n)
    assert ((left == right) == pairs.same_n).all()
    assert len(np.unique(np.concatenate([pairs.left_n, pairs.right_n]))) <= 1200
    unordered = {frozenset(p) for p in zip(pairs.left_n.tolist(), pairs.right_n.tolist(), strict=True)}
    assert len(unordered) == 6000
    assert (pairs.left_n != pairs.right_n).all()
    edges = fold_bounds(6000)
    people = []
    for a, b in itertools.pairwise(edges):
        assert pairs.same_n[a:b].sum() == 300
        people.append(set(left[a:b]) | set(right[a:b]))
    assert sum(len(p) for p in people) == len(set().union(*people)) == hb.IDENTITIES
    if protocol in hb.STRESSES:
        assert set(stress_of(pairs.left_n)) == {hb.STRESSES.index(protocol)}
    if protocol == "mixed":
        assert set(stress_of(pairs.left_n)) == {0, 1, 2, 3}
        genuine = pairs.same_n
        across = stress_of(pairs.left_n[genuine]) != stress_of(pairs.right_n[genuine])
        assert across.mean() == pytest.approx(13 / 15)
    if protocol == "lookalike":
        assert (left[~pairs.same_n] // 2 == right[~pairs.same_n] // 2).all()
        assert (pairs.left_n[pairs.same_n] == hb.protocol_pairs("heads-v1", "frontal").left_n[pairs.same_n]).all()
    elif protocol != "mixed":
        met = {frozenset(p) for p in zip(left[~pairs.same_n].tolist(), right[~pairs.same_n].tolist(), strict=True)}
        assert len(met) == 10 * 20 * 19 // 2  # every two identities of a fold meet


def test_picture_numbers_are_a_bijection():
    numbers = [hb.picture(s, i, k) for s in hb.STRESSES for i in range(hb.IDENTITIES) for k in range(hb.PICTURES)]
    assert numbers == list(range(4800))


@pytest.mark.parametrize("name", HEADS)
def test_this_installation_makes_the_pinned_benchmark(name):
    pin = hb.pinned(name)  # raises where pairs, renderer version or assets moved: then make heads-v2
    start, stop = heads.SPLITS[HEADS[name]]
    assert len(set(pin["identities"])) == hb.IDENTITIES
    assert all(start <= seed < stop for seed in pin["identities"])
    assert pin["renderer_version"] == heads.RENDERER_VERSION
    assert pin["asset_sha256"] == heads.asset_digest()


def test_val_and_test_share_nobody():
    assert not set(hb.pinned("heads-v1")["identities"]) & set(hb.pinned("heads-val")["identities"])
    a, b = (hb.protocol_pairs(n, "frontal") for n in HEADS)
    assert not (a.left_n == b.left_n).all()


def test_couples_are_the_nearest_of_one_sex():
    seeds = hb.pinned("heads-v1")["identities"]
    people = [heads.sample_identity(hb.DOMAIN, s) for s in seeds]
    sex = [heads.identity_attributes(p)["sex"] for p in people]
    assert sex[0::2] == sex[1::2]
    couple = [heads.identity_distance(people[i], people[i + 1]) for i in range(0, 200, 2)]
    stranger = [heads.identity_distance(people[i], people[(i + 2) % 200]) for i in range(0, 200, 2)]
    assert max(couple) < np.median(stranger)
    # the first anchor's look-alike, found again among all candidates
    start = heads.SPLITS["test"][0]
    pool = [heads.sample_identity(hb.DOMAIN, start + hb.COUPLES + i) for i in range(hb.CANDIDATES)]
    fit = [p for p in pool if heads.identity_attributes(p)["sex"] == sex[0]]
    assert min(fit, key=lambda p: heads.identity_distance(people[0], p)).seed == seeds[1]


def test_another_benchmark_is_refused(monkeypatch, tmp_path):
    stored = json.loads((hb.PINS / "heads-v1.json").read_text())
    stored["manifest"]["asset_sha256"] = "0" * 64
    (tmp_path / "heads-v1.json").write_text(json.dumps(stored))
    monkeypatch.setattr(hb, "PINS", tmp_path)
    hb.pinned.cache_clear()
    try:
        with pytest.raises(SynfaceError, match=r"another benchmark than the pinned one .*asset_sha256"):
            hb.pinned("heads-v1")
    finally:
        hb.pinned.cache_clear()


def test_needed_stresses():
    assert sources.needed_stresses(["lookalike"]) == ("frontal",)
    assert sources.needed_stresses(["age", "pose"]) == ("pose", "age")
    assert sources.needed_stresses(["mixed"]) == hb.STRESSES


def test_rows_of_a_part_of_the_benchmark_are_its_pictures():
    encoded = {s: [f"{s}/{i}/{k}".encode() for i in range(200) for k in range(6)] for s in ("pose", "frontal")}
    spec = Spec("heads-v1", ("pose", "lookalike"))
    part = sources.from_renders(spec, encoded, 64, "x")
    assert len(part.encoded) == 2400
    for protocol in part.protocols:
        pairs = hb.protocol_pairs("heads-v1", protocol.name)
        for column in ("left_n", "right_n"):
            for row, number in list(zip(getattr(protocol, column), getattr(pairs, column), strict=True))[::97]:
                stress, rest = divmod(int(number), 1200)
                expected = f"{hb.STRESSES[stress]}/{rest // 6}/{rest % 6}"
                assert part.encoded[row].decode() == expected
    sex = part.protocols[0].groups["sex"]
    seeds = hb.pinned("heads-v1")["identities"]
    assert len(sex) == 2400
    for row in (0, 7, 1199, 1200, 2399):
        identity = heads.sample_identity(hb.DOMAIN, seeds[(row % 1200) // 6])
        assert sex[row] == heads.identity_attributes(identity)["sex"]
