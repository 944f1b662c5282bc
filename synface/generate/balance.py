"""Equally many identities of every group of people: each identity is of the group of the nearest known person.

So given people count by themselves, and packed, uniform or mixed points by whom they would be taken for. DCFace tried
balanced sampling and VariFace reports it; whether it evens a recognizer out is what `evaluate`'s groups say.
"""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pyarrow import csv

from synface.core import sphere
from synface.core.errors import InputError
from synface.generate.config import Balance
from synface.store import schemas, tables
from synface.store import uri as uris

#: between the parts of a group's name: "female, african"
JOIN = ", "


def balanced_rows(group_n: Sequence[str]) -> np.ndarray:
    """Rows that hold equally many of every group, each group's first ones, int64 ascending."""
    least = min(Counter(group_n).values())
    seen: Counter[str] = Counter()
    kept = []
    for row, group in enumerate(group_n):
        seen[group] += 1
        if seen[group] <= least:
            kept.append(row)
    return np.array(kept, np.int64)


def groups(config: Balance, table: pa.Table) -> list[str]:
    """The group of each identity of a table: that of the nearest of ``config.people``.

    Raises:
        InputError: people of another recognizer, without labels, or all of one group.
    """
    people = tables.read_identities(config.people)
    asked, known = schemas.metadata_of(table.schema), schemas.metadata_of(people.schema)
    schemas.check_embedder(
        known, asked.get("embedder", ""), asked.get("embedder_sha256", ""), f"balance.people {config.people}",
        "the identities' embedder is",
    )  # fmt: skip
    label = labels(config)
    missing = [name for name in people["identity_id"].to_pylist() if name not in label]
    if missing:
        raise InputError(
            f"balance.labels {config.labels}: says nothing of {len(missing)} of {people.num_rows} people, e.g. "
            f"{missing[0]!r}"
        )
    nearest_n = sphere.nearest_cosine(schemas.embeddings(table), schemas.embeddings(people))[1]
    found = [label[name] for name in people["identity_id"].take(pa.array(nearest_n)).to_pylist()]
    if len(set(found)) < 2:
        raise InputError(f"balance.by {list(config.by)}: all identities are of one group, {found[0]!r}")
    return found


def labels(config: Balance) -> dict[str, str]:
    """identity_id -> group, as `labels` states it: an images table's attributes, or the columns of a .csv file.

    Raises:
        InputError: a column is missing, a value empty, or a person is of two groups.
    """
    found: dict[str, str] = {}
    parts = [_csv(config)] if config.labels.endswith(".csv") else map(_attributes, tables.iter_images(config.labels))
    for table in parts:
        missing = [n for n in ("identity_id", *config.by) if n not in table.column_names]
        if missing:
            raise InputError(f"balance.labels {config.labels}: has no {missing[0]!r}; balance.by names what it has")
        for name, *values in zip(*[table[n].to_pylist() for n in ("identity_id", *config.by)], strict=True):
            if any(value is None or value == "" for value in values):
                raise InputError(f"balance.labels {config.labels}: {name} has no {config.by[0]!r} or the like")
            group = JOIN.join(map(str, values))
            if found.setdefault(str(name), group) != group:
                raise InputError(f"balance.labels {config.labels}: {name} is {found[str(name)]} and {group}")
    return found


def _attributes(table: pa.Table) -> pa.Table:
    column = table["attributes"].combine_chunks()
    fields = column.flatten() if pa.types.is_struct(column.type) else []
    names = [column.type.field(i).name for i in range(len(fields))]
    return pa.table([table["identity_id"], *fields], names=["identity_id", *names])


def _csv(config: Balance) -> pa.Table:
    try:
        return csv.read_csv(
            io.BytesIO(uris.read_bytes(config.labels)),
            convert_options=csv.ConvertOptions(column_types={"identity_id": pa.string()}),
        )
    except pa.ArrowException as error:
        raise InputError(f"balance.labels {config.labels}: not a readable CSV file ({error})") from error
