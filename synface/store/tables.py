"""Parquet tables of artifacts: written as deterministic bytes, read only as the manifest lists them."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synface.core.errors import InputError
from synface.store import artifact
from synface.store import uri as uris
from synface.store.schemas import check_identities

IDENTITIES_FILE = "data/identities.parquet"
#: beside an identities table, where `embed` was asked to keep them; not part of it
SIMILARITIES_FILE = "similarities.parquet"
IMAGES_DIGEST = "images_digest"


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file in memory; equal tables give equal bytes (same pyarrow version)."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=4096, store_schema=True)
    return sink.getvalue()


def parse_parquet(data: bytes, where: str) -> pa.Table:
    """A Parquet file's table. InputError where the bytes are not one."""
    try:
        # no threads: what `pq.read_table` has begun elsewhere may outlive its error, and a thread that lets go of
        # these bytes while the interpreter ends aborts the process
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        # damage that Arrow only meets when somebody looks: names and strings that are not UTF-8, offsets out of range
        _read_names(table.schema)
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{where}: not a readable Parquet file ({error})") from error


def _read_names(fields: Iterable[pa.Field]) -> None:
    """UnicodeDecodeError where a field, or a field of a field, has a name that is not UTF-8."""
    for field in fields:
        _ = field.name
        if pa.types.is_nested(field.type):
            _read_names(field.type.field(i) for i in range(field.type.num_fields))


def listed_files(uri: str, suffix: str = ".parquet") -> list[artifact.FileEntry]:
    """The files of an artifact that its manifest lists, with one suffix."""
    return [f for f in artifact.require(uri).files if f.path.endswith(suffix)]


def read_listed(uri: str, entry: artifact.FileEntry) -> bytes:
    """One listed file, its digest verified."""
    data = uris.read_bytes(uris.join(uri, entry.path))
    if artifact.sha256_hex(data) != entry.sha256:
        raise InputError(
            f"{uris.join(uri, entry.path)}: bytes differ from the manifest (sha256); it was damaged or changed: "
            "run the verb that made it again"
        )
    return data


def read_identities(uri: str, dim: int | None = None) -> pa.Table:
    """The identities table of an artifact, or of a single Parquet file; checked."""
    if uri.endswith(".parquet"):
        table = parse_parquet(uris.read_bytes(uri), uri)
    else:
        artifact.require(uri, "identities")
        entries = [f for f in listed_files(uri) if f.path != SIMILARITIES_FILE]
        parts = [parse_parquet(read_listed(uri, f), f"{uri}/{f.path}") for f in entries]
        table = pa.concat_tables(parts).combine_chunks()
    check_identities(table, uri, dim)
    return table


def write_identities(output: str, table: pa.Table) -> artifact.FileEntry:
    """Write an identities table as the one file of its artifact (the manifest is the caller's)."""
    return artifact.write_file(output, IDENTITIES_FILE, parquet_bytes(table), table.num_rows)


def write_similarities(
    output: str, identity_id: Sequence[str], similarity_n: np.ndarray, images_digest: str
) -> artifact.FileEntry:
    """Write each image's cosine to its identity's centre, in the order of the images table of that content digest."""
    columns = {"identity_id": pa.array(identity_id, pa.string()), "similarity": np.asarray(similarity_n, np.float32)}
    table = pa.table(columns).replace_schema_metadata({IMAGES_DIGEST: images_digest})
    return artifact.write_file(output, SIMILARITIES_FILE, parquet_bytes(table), table.num_rows)


def read_similarities(uri: str) -> tuple[np.ndarray, np.ndarray, str]:
    """(identity_id [n], cosine float32 [n], content digest of the images) of what `write_similarities` wrote.

    Raises:
        InputError: none stand there, or they are damaged.
    """
    entry = next((f for f in artifact.require(uri, "identities").files if f.path == SIMILARITIES_FILE), None)
    if entry is None:
        raise InputError(
            f"{uri}: has no {SIMILARITIES_FILE}; embed again, to another output, with --similarities true"
        )
    where = uris.join(uri, SIMILARITIES_FILE)
    table = parse_parquet(read_listed(uri, entry), where)
    metadata = table.schema.metadata or {}
    if table.column_names != ["identity_id", "similarity"] or IMAGES_DIGEST.encode() not in metadata:
        raise InputError(f"{where}: not a table of similarities; embed again with --similarities true")
    identity = np.array(table["identity_id"].to_pylist(), np.str_)
    return identity, table["similarity"].to_numpy(), metadata[IMAGES_DIGEST.encode()].decode()


def iter_images(uri: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The shards of an images artifact, one table each, in the manifest's order, digests verified."""
    artifact.require(uri, "images")
    for entry in listed_files(uri):
        table = parse_parquet(read_listed(uri, entry), f"{uri}/{entry.path}")
        yield table if columns is None else table.select(columns)


def image_files(uri: str, rows: Iterable[int]) -> dict[int, bytes]:
    """Encoded images by their row in the whole images table; reads no further than the last of them."""
    found: dict[int, bytes] = {}
    wanted, start = sorted(set(rows)), 0
    for table in iter_images(uri, ["image"]) if wanted else ():
        here = [row for row in wanted if start <= row < start + table.num_rows]
        found |= {row: table["image"][row - start].as_py()["bytes"] for row in here}
        start += table.num_rows
        if start > wanted[-1]:
            break
    return found
