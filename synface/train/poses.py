"""Angles of the heads in training images, as their tables' ``attributes`` state them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.store import tables
from synface.train.generator_config import TrainGeneratorConfig


def check(config: TrainGeneratorConfig, names: Sequence[str]) -> None:
    """InputError unless every table states these angles, and they can be left out in sampling; reads first files."""
    if names and not config.drop:
        raise InputError("drop = 0 with poses: the looks and whoever asks for no pose need dropped ones; e.g. 0.1")
    for uri in config.images if names else ():
        for table in tables.iter_images(uri):
            _angles(table, names, uri)
            break


def read(uris: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """float32 [n, names] in degrees, in the order of `train.data.scan` over these tables.

    Raises:
        InputError: a table without one of them, or a picture without a number.
    """
    return np.concatenate([_angles(table, names, uri) for uri in uris for table in tables.iter_images(uri)])


def _angles(table: pa.Table, names: Sequence[str], where: str) -> np.ndarray:
    kind = table.schema.field("attributes").type if "attributes" in table.column_names else pa.struct([])
    missing = [n for n in names if n not in kind.names or not pa.types.is_floating(kind.field(n).type)]
    if missing:
        raise InputError(
            f"architecture.pose: {where} has no number attributes.{missing[0]}; train on pictures whose generator "
            "states it (heads does), or leave the pose out"
        )
    column = table["attributes"].combine_chunks()
    found = np.stack([np.asarray(column.field(n).to_numpy(zero_copy_only=False), np.float32) for n in names], 1)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise InputError(f"architecture.pose: {where}: {len(bad)} pictures state no pose, e.g. row {bad[0]} of a file")
    return found
