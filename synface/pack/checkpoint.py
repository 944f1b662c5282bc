"""Checkpoints of a solve at its output URI: any number of shards write one, any number of shards continue from it.

A checkpoint is one file per shard (`_synface/checkpoint/<passes>/rows-<first>-<past last>.npz`: rows, momentum,
second moments, gallery neighbours) and a marker that lists them, written last: what the marker does not list does
not exist. The newest replaces the one before; a finished packing leaves none.
"""

import io
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch

from synface.core.errors import InputError
from synface.pack.solver import State
from synface.settings import canonical_json
from synface.store import artifact
from synface.store import uri as uris

FOLDER = "_synface/checkpoint"
MARKER = "_synface/checkpoint.json"
FIELDS = ("x_nd", "momentum_nd", "second_n1", "neighbours_n")


@dataclass(frozen=True)
class Part:
    """One shard's file, and the rows [start, stop) that it holds."""

    path: str
    sha256: str
    start: int
    stop: int


@dataclass(frozen=True)
class Checkpoint:
    """The marker: of which configuration, after how many passes, the numbers of the whole, and the parts by row.

    first: max cosine of the rows that the solve began with; largest: of those that the last pass began with.
    """

    config_hash: str
    passes: int
    first: float
    largest: float
    seconds: float
    parts: tuple[Part, ...]


def save_part(output: str, state: State, start: int) -> Part:
    """Write a shard's state; its rows begin at `start` of the packing."""
    arrays = {name: getattr(state, name) for name in FIELDS}
    sink = io.BytesIO()
    np.savez(sink, **{name: a.cpu().numpy() for name, a in arrays.items() if a is not None})
    stop = start + len(state.x_nd)
    path = f"{FOLDER}/{state.passes:07d}/rows-{start:09d}-{stop:09d}.npz"
    entry = artifact.write_file(output, path, sink.getvalue())
    return Part(path, entry.sha256, start, stop)


def mark(output: str, checkpoint: Checkpoint) -> None:
    """From here on this checkpoint counts; files of older ones are removed."""
    uris.write_bytes(uris.join(output, MARKER), (canonical_json(asdict(checkpoint)) + "\n").encode())
    _remove_but(output, {part.path for part in checkpoint.parts})


def latest(output: str, config_hash: str, rows: int) -> Checkpoint | None:
    """The checkpoint to continue from: of this configuration, with all its rows; None where there is none."""
    place = uris.join(output, MARKER)
    if not uris.exists(place):
        return None
    try:
        data = json.loads(uris.read_bytes(place))
        found = Checkpoint(**{**data, "parts": tuple(Part(**p) for p in data["parts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{place}: damaged ({error}); delete it to start the packing anew") from error
    ends = [0, *(part.stop for part in found.parts)]
    whole = [part.start for part in found.parts] == ends[:-1] and ends[-1] == rows
    return found if found.config_hash == config_hash and whole else None


def read_rows(output: str, checkpoint: Checkpoint, rows: range, device: str = "cpu") -> State:
    """The state of these rows, whatever shards wrote them; digests checked.

    Raises:
        InputError: a part is missing or damaged; says which.
    """
    pieces: dict[str, list[np.ndarray]] = {}
    for part in checkpoint.parts:
        first, last = max(part.start, rows.start), min(part.stop, rows.stop)
        if first >= last:
            continue
        place = uris.join(output, part.path)
        data = uris.read_bytes(place)
        if artifact.sha256_hex(data) != part.sha256:
            marker = uris.join(output, MARKER)
            raise InputError(f"{place}: does not have the bytes that were written; delete {marker} to start anew")
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            for name in saved.files:
                pieces.setdefault(name, []).append(saved[name][first - part.start : last - part.start])
    found = {name: torch.from_numpy(np.concatenate(parts)).to(device) for name, parts in pieces.items()}
    return State(
        found["x_nd"],
        found["momentum_nd"],
        found["second_n1"],
        checkpoint.passes,
        checkpoint.largest,
        found.get("neighbours_n"),
        checkpoint.seconds,
    )


def remove(output: str) -> None:
    """A finished packing needs none."""
    uris.delete_file(uris.join(output, MARKER))
    _remove_but(output, set())


def _remove_but(output: str, kept: set[str]) -> None:
    for path, _ in uris.list_files(uris.join(output, FOLDER)):
        if f"{FOLDER}/{path}" not in kept:
            uris.delete_file(uris.join(output, FOLDER, path))
