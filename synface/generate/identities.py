"""The identities of a run: a table's rows, or the first ones of a generator's own space."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synface.core import sphere
from synface.core.errors import InputError
from synface.generate import balance, conditions, contexts, scoring
from synface.generate.config import Balance, GenerateConfig
from synface.generate.generators import Description, Generator
from synface.generate.plan import Identity
from synface.generate.scoring import Scorer
from synface.ops.runs import say
from synface.settings import canonical_json, input_uris
from synface.store import artifact, schemas, tables

NEAREST = "nearest_cosine"
REFERENCE = "reference"
NEGATIVE = "negative"


@dataclass(frozen=True)
class Identities:
    """What the plan needs of the identities.

    Attributes:
        count: how many.
        columns: their rows; None where the generator knows them by label.
        reference_nd: the inquiries' embeddings by the scorer, by label; None where images are not scored.
        groups: identities of each group of people, where they were balanced.
    """

    count: int
    columns: pa.Table | None
    reference_nd: np.ndarray | None = None
    groups: dict[str, int] | None = None

    def digest(self, count: int) -> str | None:
        """sha256 of the first `count`; None where the generator knows them by label.

        It holds neither `nearest_cosine` nor the negatives, which more identities change.
        """
        if self.columns is None:
            return None
        rows = self.columns.slice(0, count)
        digest = hashlib.sha256(
            canonical_json([rows[n].to_pylist() for n in ("identity_id", "source", "seed")]).encode()
        )
        for name in ("embedding", REFERENCE):
            if name in rows.column_names:
                digest.update(schemas.embeddings(rows, name).tobytes())
        return digest.hexdigest()

    def slice(self, labels: range) -> pa.Table | None:
        """The rows that an actor needs for some labels."""
        return None if self.columns is None else self.columns.slice(labels.start, len(labels))


def open_identities(config: GenerateConfig, description: Description, scorer: Scorer | None = None) -> Identities:
    """Read and check the identities; the embeddings are kept only for a generator or scorer that needs them.

    Raises:
        InputError: missing, damaged, NaN or non-unit embeddings, duplicate ids; embeddings of another recognizer than
            the generator's or the scorer's.
    """
    contexts.check(config, description)
    if config.contexts.uniform:
        table = contexts.uniform(config, description)
    elif config.identities is None:
        if scorer is not None:
            scoring.references(config, scorer, None)
        return Identities(config.num_identities or 0, None)
    else:
        table = tables.read_identities(config.identities, description.embedding_dim)
    if description.embedder_sha256:
        stated = schemas.metadata_of(table.schema)
        where = f"identities {config.identities or 'contexts.uniform'}"
        schemas.check_embedder(
            stated, description.embedder, description.embedder_sha256, where, "the generator understands"
        )
    if config.contexts.mixup is not None:
        table = contexts.mixed(config, table)
    if description.inquiries_below is not None:
        kept = sphere.unique_rows(schemas.embeddings(table), description.inquiries_below)
        say(
            f"generate: {len(kept)} of {table.num_rows} identities kept, pairwise cosines below "
            f"{description.inquiries_below:.3f}"
        )
        table = table.take(pa.array(kept))
    groups = None
    if config.balance is not None:
        table, groups = _balanced(config.balance, table)
    names = ["identity_id", "source", "seed", *(["embedding"] if description.needs_embedding else [])]
    if config.variation.cone is not None and config.variation.cone.separate and description.needs_embedding:
        # measured here: a table's own column may be of a larger set
        nearest = sphere.nearest_cosine(schemas.embeddings(table))[0].astype(np.float32)
        table = _with_column(table, NEAREST, pa.array(nearest))
        names.append(NEAREST)
    if description.negative is not None:
        table = _with_negatives(table, description.negative, config.seed)
        names.append(NEGATIVE)
    if scorer is None:
        return Identities(table.num_rows, table.select(names), groups=groups)
    reference_nd = scoring.references(config, scorer, table)
    columns = table.select(names)
    if config.scoring.references is not None or not description.needs_embedding:
        columns = columns.append_column(REFERENCE, schemas.embedding_column(reference_nd))
    return Identities(table.num_rows, columns, reference_nd, groups)


def _balanced(config: Balance, table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The table with equally many identities of every group, and how many that are."""
    group_n = balance.groups(config, table)
    kept = balance.balanced_rows(group_n)
    before, count = Counter(group_n), len(kept) // len(set(group_n))
    say(
        f"generate: {len(kept)} of {table.num_rows} identities kept, {count} of each group; there were "
        + "; ".join(f"{name}: {number}" for name, number in sorted(before.items()))
    )
    return table.take(pa.array(kept)), dict.fromkeys(sorted(before), count)


def _with_negatives(table: pa.Table, how: str, seed: int) -> pa.Table:
    """The table with, for each identity, the embedding of another one of it."""
    if table.num_rows < 2:
        raise InputError(f"negative = {how!r}: the run has {table.num_rows} identity; at least 2 are needed")
    x_nd = schemas.embeddings(table)
    if how == "nearest":
        other_n = sphere.nearest_cosine(x_nd)[1]
    else:
        other_n = conditions.others(seed, table["identity_id"].to_pylist())
    return _with_column(table, NEGATIVE, schemas.embedding_column(x_nd[other_n]))


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with a column of that name, the given one."""
    return table.select([n for n in table.column_names if n != name]).append_column(name, column)


def input_digests(config: GenerateConfig, description: Description, scorer: Scorer | None = None) -> dict[str, str]:
    """Digest of every input of a run: of its content, or of what of it decides pixels."""
    known = description.digests | scoring.digests(scorer)
    return {path: known.get(path) or artifact.content_digest(uri) for path, uri in input_uris(config).items()}


def rows_to_identities(columns: pa.Table, first_label: int) -> list[Identity]:
    """A slice of `Identities.columns` as identities; labels count from `first_label`."""
    unknown: list[None] = [None] * columns.num_rows
    vectors = ("embedding", REFERENCE, NEGATIVE)
    found = {n: schemas.embeddings(columns, n) for n in vectors if n in columns.column_names}
    nearest = unknown if NEAREST not in columns.column_names else columns[NEAREST].to_pylist()
    rows = zip(
        columns["identity_id"].to_pylist(),
        columns["source"].to_pylist(),
        columns["seed"].to_pylist(),
        found.get("embedding", unknown),
        nearest,
        found.get(REFERENCE, found.get("embedding", unknown)),
        found.get(NEGATIVE, unknown),
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
