"""Arrow schemas of the two tables that every stage shares, and the checks of what comes in.

Schemas carry ``schema_version`` in their metadata; readers accept the current one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError

SCHEMA_VERSION = 1
UNIT_NORM_TOLERANCE = 1e-3

IDENTITY_NUMBERS = ("nearest_cosine", "gallery_cosine")


def identities_schema(dim: int, metadata: dict[str, str] | None = None) -> pa.Schema:
    """identity_id, embedding [dim] of unit norm, source, seed, and the per-identity numbers.

    Metadata: ``embedder`` (name), ``embedder_sha256`` (of its weights), ``crop`` (convention).
    """
    fields = [
        pa.field("identity_id", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        *[pa.field(name, pa.float32()) for name in IDENTITY_NUMBERS],
    ]
    return pa.schema(fields, metadata=_metadata(metadata, "identities"))


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


#: columns of a scored images table, beside `similarity_inquiry`
SCORES = (
    pa.field("similarity_other", pa.float32()),  # largest cosine to an earlier identity's inquiry
    pa.field("quality", pa.float32()),  # norm of the scorer's feature
    pa.field("attempt", pa.int32(), nullable=False),  # how often it was made again
)


def images_schema(
    attributes: pa.StructType, metadata: dict[str, str] | None = None, scored: bool = False
) -> pa.Schema:
    """The images table; `attributes` is the struct of what the generator knows (pose, light, ...).

    Metadata of a scored one: ``scorer`` (name), ``scorer_sha256`` (of its weights).
    """
    fields = [
        pa.field("image", IMAGE),  # nullable, or Hugging Face's reader does not see an image in it
        pa.field("label", pa.int64(), nullable=False),
        pa.field("identity_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("m", pa.float32()),
        pa.field("similarity_target", pa.float32()),
        pa.field("similarity_inquiry", pa.float32()),
        pa.field("attributes", attributes),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("weights_sha256", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),
        *(SCORES if scored else ()),
    ]
    return pa.schema(fields, metadata=_metadata(metadata, "images"))


def _metadata(extra: dict[str, str] | None, table: str) -> dict[str, str]:
    return {"schema_version": str(SCHEMA_VERSION), "synface_table": table, **(extra or {})}


def metadata_of(schema: pa.Schema) -> dict[str, str]:
    """The schema's metadata as text (other tools' keys included)."""
    return {k.decode(): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}


def check_embedder(stated: Mapping[str, str], name: str, sha256: str, where: str, who: str) -> None:
    """Refuse embeddings of another recognizer: a network fed with them still works, but on other people.

    Args:
        stated: metadata of the table that holds them (``embedder``, ``embedder_sha256``).
        name: the recognizer that is needed.
        sha256: of its weights.
        where: the table, for the message.
        who: needs them, with a verb: "the generator understands".

    Raises:
        InputError: the sha256 of the two recognizers' weights differ, or the table states none.
    """
    found = stated.get("embedder_sha256", "")
    if found != sha256:
        raise InputError(
            f"{where}: embedded by {stated.get('embedder', 'an unknown recognizer')!r} (weights "
            f"{found[:12] or 'unknown'}), but {who} {name!r} (weights {sha256[:12]}); embed or pack the "
            "identities with that recognizer"
        )


def embeddings(table: pa.Table, name: str = "embedding") -> np.ndarray:
    """A column of embeddings as float32 [n, d] (a copy that may be written)."""
    column = table[name].combine_chunks()
    dim = column.type.list_size
    return np.array(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)


def embedding_column(x_nd: np.ndarray) -> pa.FixedSizeListArray:
    """float32 [n, d] as a fixed-size-list column."""
    flat = pa.array(np.ascontiguousarray(x_nd, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, x_nd.shape[1])


def identities_table(
    identity_id: list[str],
    embedding_nd: np.ndarray,
    source: list[str],
    seed: list[int] | np.ndarray,
    metadata: dict[str, str] | None = None,
    **numbers: np.ndarray,
) -> pa.Table:
    """An identities table from columns; missing numbers are null. Checked by `check_identities`."""
    schema = identities_schema(embedding_nd.shape[1], metadata)
    count = len(identity_id)
    columns: dict[str, Any] = {
        "identity_id": identity_id,
        "embedding": embedding_column(embedding_nd),
        "source": source,
        "seed": np.asarray(seed, np.int64),
    }
    for name in IDENTITY_NUMBERS:
        columns[name] = np.asarray(numbers[name], np.float32) if name in numbers else pa.nulls(count, pa.float32())
    unknown = set(numbers) - set(IDENTITY_NUMBERS)
    if unknown:
        raise ValueError(f"unknown per-identity numbers {sorted(unknown)}; known: {IDENTITY_NUMBERS}")
    table = pa.table(columns, schema=schema)
    check_identities(table, "identities")
    return table


def check_identities(table: pa.Table, where: str, dim: int | None = None) -> None:
    """Refuse a table that is not a sound identities table.

    Raises:
        InputError: a missing column, another dimension, NaN, zero or non-unit norm, duplicate ids, empty.
    """
    for name in ("identity_id", "embedding", "source", "seed"):
        if name not in table.column_names:
            raise InputError(
                f"{where}: no column {name!r}; an identities table has identity_id, embedding, source, seed"
            )
    if not pa.types.is_fixed_size_list(table.schema.field("embedding").type):
        raise InputError(
            f"{where}: column 'embedding' is {table.schema.field('embedding').type}, "
            "expected fixed_size_list<float32>[d]"
        )
    if table.num_rows == 0:
        raise InputError(f"{where}: no identities in the table")
    if table["embedding"].null_count:
        raise InputError(f"{where}: column 'embedding' has nulls")
    x = embeddings(table)
    if dim is not None and x.shape[1] != dim:
        raise InputError(f"{where}: embeddings have {x.shape[1]} dimensions, expected {dim}")
    norm = np.linalg.norm(x, axis=1)
    bad = np.flatnonzero(~(np.abs(norm - 1) <= UNIT_NORM_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{where}: embedding of row {row} (identity {table['identity_id'][row]}) has norm {norm[row]}, "
            "expected 1; "
            f"{len(bad)} of {len(x)} rows are not unit vectors: normalise them, drop NaN and zero rows"
        )
    ids = table["identity_id"].to_pylist()
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))
        raise InputError(f"{where}: identity_id {twice!r} stands more than once; ids must be unique")
