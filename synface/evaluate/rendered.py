"""The cache of rendered benchmarks: one images artifact per benchmark digest, size and stress.

Two processes may fill the same cache at once: both write the same bytes under the same names, each file
whole, the manifest last. A cache that is damaged or half-written is made again.
"""

from typing import Any

import pyarrow as pa

from synface.core.errors import InputError
from synface.core.rng import derived_seed
from synface.evaluate import distributed, sources
from synface.evaluate import heads_benchmark as hb
from synface.models import heads
from synface.ops.cluster import versions
from synface.settings import canonical_json
from synface.store import artifact, schemas, tables
from synface.store import uri as uris

#: identities in a Ray task: about a second of rendering
PER_TASK = 10
GENERATOR = "heads"


def place(cache: str, name: str, stress: str, size: int) -> str:
    """Where the pictures of a stress are kept."""
    sha = hb.pinned(name)["sha256"]
    return uris.join(cache, "benchmarks", f"{name}-{sha[:16]}", f"{size}px", stress)


def is_cached(cache: str, name: str, stress: str, size: int) -> bool:
    """Whether they stand there, complete (sizes checked; digests are checked when they are read)."""
    where = place(cache, name, stress, size)
    manifest = artifact.load_manifest(where)
    if manifest is None:
        return False
    sizes = dict(uris.list_files(where))
    return all(sizes.get(f.path) == f.bytes for f in manifest.files)


def load(cache: str, name: str, stress: str, size: int) -> list[bytes]:
    """The encoded pictures of a stress in order, rendered first where they are not kept yet."""
    if is_cached(cache, name, stress, size):
        try:
            return _read(place(cache, name, stress, size))
        except InputError:
            pass  # damaged: rendered again below
    _render(cache, name, stress, size)
    return _read(place(cache, name, stress, size))


def _read(where: str) -> list[bytes]:
    return [row["bytes"] for table in tables.iter_images(where, ["image"]) for row in table["image"].to_pylist()]


def _render(cache: str, name: str, stress: str, size: int) -> None:
    where = place(cache, name, stress, size)
    uris.check_writable(where)
    seeds = hb.pinned(name)["identities"]
    jobs = [(hb.DOMAIN, stress, seed, tuple(sources.picture_keys(name, stress, i))) for i, seed in enumerate(seeds)]
    rendered = list(distributed.render_all(jobs, size, PER_TASK, f"render {name}/{stress}"))
    table = _table(name, stress, seeds, rendered)
    entry = artifact.write_file(where, "data/train-00000.parquet", tables.parquet_bytes(table), table.num_rows)
    asked = {"benchmark": name, "sha256": hb.pinned(name)["sha256"], "stress": stress, "size": size}
    manifest = artifact.Manifest(
        verb="evaluate",
        kind="images",
        config_hash=_hash(asked),
        config=asked,
        inputs={},
        files=(entry,),
        numbers={"images": table.num_rows, "identities": len(seeds)},
        versions=versions(),
    )
    artifact.write_manifest(where, manifest)


def _hash(asked: dict[str, Any]) -> str:
    return artifact.sha256_hex(canonical_json(asked).encode())


def _table(name: str, stress: str, seeds: list[int], rendered: list[list[tuple[bytes, dict[str, Any]]]]) -> pa.Table:
    """The images table of one stress, rows in the order of `heads_benchmark.picture`."""
    rows = [(i, k, data, facts) for i, part in enumerate(rendered) for k, (data, facts) in enumerate(part)]
    attributes = pa.array([facts for *_, facts in rows])
    count = len(rows)
    columns = {
        "image": pa.array([{"bytes": data, "path": f"{name}-{stress}-{i:03d}-{k}.png"} for i, k, data, _ in rows]),
        "label": [i for i, *_ in rows],
        "identity_id": [f"{hb.DOMAIN}-{seeds[i]}" for i, *_ in rows],
        "sample": [k for _, k, *_ in rows],
        "m": pa.nulls(count, pa.float32()),
        "similarity_target": pa.nulls(count, pa.float32()),
        "similarity_inquiry": pa.nulls(count, pa.float32()),
        "attributes": attributes,
        "seed": [derived_seed(*hb.picture_key(name, seeds[i], k), stress) for i, k, *_ in rows],
        "generator": [GENERATOR] * count,
        "weights_sha256": [heads.asset_digest()] * count,
        "config_hash": [hb.pinned(name)["sha256"]] * count,
    }
    schema = schemas.images_schema(attributes.type, {"benchmark": name, "stress": stress})
    return pa.Table.from_pydict(columns, schema=schema)
