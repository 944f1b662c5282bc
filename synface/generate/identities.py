"""The identities of a run: a table's rows, or the first ones of a generator's own space."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synface.core import sphere
from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.generators import Description, Generator
from synface.generate.plan import Identity
from synface.ops.progress import say
from synface.settings import input_uris
from synface.store import artifact, schemas, tables

NEAREST = "nearest_cosine"


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
        InputError: missing, damaged, NaN or non-unit embeddings, duplicate ids; embeddings of another recognizer than
            the generator's.
    """
    if config.identities is None:
        return Identities(config.num_identities or 0, None)
    table = tables.read_identities(config.identities)
    check_embedder(table, description, config.identities)
    if description.inquiries_below is not None:
        kept = sphere.unique_rows(schemas.embeddings(table), description.inquiries_below)
        say(
            f"generate: {len(kept)} of {table.num_rows} identities kept, pairwise cosines below "
            f"{description.inquiries_below:.3f}"
        )
        table = table.take(pa.array(kept))
    names = ["identity_id", "source", "seed", *(["embedding"] if description.needs_embedding else [])]
    if config.variation.cone is not None and config.variation.cone.separate and description.needs_embedding:
        # measured here: a table's own column may be of a larger set
        nearest = sphere.nearest_cosine(schemas.embeddings(table))[0].astype(np.float32)
        table = table.drop_columns([n for n in (NEAREST,) if n in table.column_names])
        table = table.append_column(NEAREST, pa.array(nearest))
        names.append(NEAREST)
    return Identities(table.num_rows, table.select(names))


def check_embedder(table: pa.Table, description: Description, where: str) -> None:
    """InputError for embeddings of another recognizer: a network fed with them still draws faces, but not theirs."""
    stated = schemas.metadata_of(table.schema)
    found = stated.get("embedder_sha256", "")
    if description.embedder_sha256 and found != description.embedder_sha256:
        raise InputError(
            f"identities {where}: embedded by {stated.get('embedder', 'an unknown recognizer')!r} (weights "
            f"{found[:12] or 'unknown'}), but the generator understands {description.embedder!r} (weights "
            f"{description.embedder_sha256[:12]}); embed or pack the identities with that recognizer"
        )


def input_digests(config: GenerateConfig, description: Description) -> dict[str, str]:
    """Digest of every input of a run: of its content, or of what of it decides pixels."""
    return {
        path: description.digests.get(path) or artifact.content_digest(uri) for path, uri in input_uris(config).items()
    }


def rows_to_identities(columns: pa.Table, first_label: int) -> list[Identity]:
    """A slice of `Identities.columns` as identities; labels count from `first_label`."""
    embedding_nd: np.ndarray | list[None] = [None] * columns.num_rows
    if "embedding" in columns.column_names:
        embedding_nd = schemas.embeddings(columns)
    nearest = [None] * columns.num_rows if NEAREST not in columns.column_names else columns[NEAREST].to_pylist()
    rows = zip(
        columns["identity_id"].to_pylist(),
        columns["source"].to_pylist(),
        columns["seed"].to_pylist(),
        embedding_nd,
        nearest,
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
