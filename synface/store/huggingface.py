"""What Hugging Face's ``datasets`` needs to read a shard as it is: the features, in the schema's metadata."""

import json
from typing import Any

import pyarrow as pa

METADATA_KEY = "huggingface"

_DTYPES = {
    pa.string(): "string",
    pa.bool_(): "bool",
    pa.binary(): "binary",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float32(): "float32",
    pa.float64(): "float64",
}


def features(schema: pa.Schema) -> dict[str, Any]:
    """The ``datasets.Features`` of an images table as plain data; the column `image` is decoded as an image."""
    return {f.name: {"_type": "Image"} if f.name == "image" else feature(f.type) for f in schema}


def feature(kind: pa.DataType) -> Any:
    """One column's or struct member's feature. ValueError for a type that no images table has."""
    if isinstance(kind, pa.StructType):
        return {member.name: feature(member.type) for member in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "Sequence"}
    if kind not in _DTYPES:
        raise ValueError(f"no feature for Arrow type {kind}")
    return {"dtype": _DTYPES[kind], "_type": "Value"}


def metadata(schema: pa.Schema) -> dict[str, str]:
    """The entry for the schema's metadata, as the Hub's own files have it."""
    return {METADATA_KEY: json.dumps({"info": {"features": features(schema)}}, sort_keys=True)}
