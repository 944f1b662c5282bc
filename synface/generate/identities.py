"""The identities of a run: a table's rows, or the first ones of a generator's own space."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synface.generate.config import GenerateConfig
from synface.generate.generators import Description, Generator
from synface.generate.plan import Identity
from synface.store import schemas, tables


@dataclass(frozen=True)
class Identities:
    """What the plan needs of the identities; `columns` is None where the generator knows them by label."""

    count: int
    columns: pa.Table | None

    def slice(self, labels: range) -> pa.Table | None:
        """The rows that an actor needs for some labels."""
        return None if self.columns is None else self.columns.slice(labels.start, len(labels))


def open_identities(config: GenerateConfig, description: Description) -> Identities:
    """Read and check the identities; the embeddings are kept only for a generator that needs them.

    Raises:
        InputError: missing, damaged, NaN or non-unit embeddings, duplicate ids.
    """
    if config.identities is None:
        return Identities(config.num_identities or 0, None)
    table = tables.read_identities(config.identities)
    names = ["identity_id", "source", "seed", *(["embedding"] if description.needs_embedding else [])]
    return Identities(table.num_rows, table.select(names))


def rows_to_identities(columns: pa.Table, first_label: int) -> list[Identity]:
    """A slice of `Identities.columns` as identities; labels count from `first_label`."""
    embedding_nd: np.ndarray | list[None] = [None] * columns.num_rows
    if "embedding" in columns.column_names:
        embedding_nd = schemas.embeddings(columns)
    rows = zip(
        columns["identity_id"].to_pylist(),
        columns["source"].to_pylist(),
        columns["seed"].to_pylist(),
        embedding_nd,
        strict=True,
    )
    return [Identity(first_label + i, *row) for i, row in enumerate(rows)]


def shard_identities(
    generator: type[Generator], config: GenerateConfig, labels: range, columns: pa.Table | None
) -> list[Identity]:
    """The identities of one shard, in an actor: from the rows that came with the request, or by label."""
    if columns is None:
        return generator.own_identities(config, labels)
    return rows_to_identities(columns, labels.start)
