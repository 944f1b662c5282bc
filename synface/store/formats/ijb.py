"""The protocol files of IJB-B and IJB-C: faces, templates, media, pairs and galleries.

Two sets of files are in use. The ``meta`` folder that insightface's tools read holds the detected faces with their
landmarks (``<set>_face_tid_mid.txt``, ``<set>_name_5pts_score.txt``) and the 1:1 pairs with labels
(``<set>_template_pair_label.txt``). NIST's own hold 1:1 pairs without labels (``<set>_11_..._matches.csv``) and the
1:N galleries and probes (``<set>_1N_....csv``), from which the labels follow. ``<set>`` is ijbb or ijbc.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import csv

from synface.core.errors import InputError
from synface.store import uri as uris

SETS = ("ijbc", "ijbb")
FACES = "{}_face_tid_mid.txt"
LANDMARKS = "{}_name_5pts_score.txt"
PAIRS = "{}_template_pair_label.txt"
#: galleries of 1:N, by what the two sets call them
GALLERIES = ("{}_1N_gallery_G1.csv", "{}_1N_gallery_G2.csv", "{}_1N_gallery_S1.csv", "{}_1N_gallery_S2.csv")
PROBES = "{}_1N_probe_mixed.csv"
BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Faces:
    """Detected faces: row i of every array is face i."""

    names: Sequence[str]  # files below the folder of images
    template_n: np.ndarray  # int32
    media_n: np.ndarray  # int32; a video, or a still
    landmark_n52: np.ndarray  # float32, x and y
    score_n: np.ndarray  # float32, of the detector


@dataclass(frozen=True)
class Files:
    """Where the protocol files of one set stand; `galleries` may be empty."""

    set_name: str
    faces: str
    landmarks: str
    pairs: str | None
    matches: str | None
    galleries: tuple[str, ...]
    probes: str | None

    @property
    def all(self) -> list[str]:
        """Every file that is there."""
        found = [self.faces, self.landmarks, self.pairs, self.matches, *self.galleries, self.probes]
        return [f for f in found if f is not None]


def find_files(folder: str) -> Files:
    """The protocol files in a folder.

    Raises:
        InputError: none there, or some are missing; their names are listed.
    """
    names = {path for path, _ in uris.list_files(folder, recursive=False)}
    set_name = next((s for s in SETS if FACES.format(s) in names), None)
    if set_name is None:
        raise InputError(f"{folder}: no {FACES.format('ijbc')} or {FACES.format('ijbb')} here; give the meta folder")

    def place(pattern: str) -> str | None:
        name = pattern.format(set_name)
        return uris.join(folder, name) if name in names else None

    galleries = tuple(g for g in map(place, GALLERIES) if g is not None)
    landmarks, pairs, probes = place(LANDMARKS), place(PAIRS), place(PROBES)
    matches = [n for n in sorted(names) if n.startswith(f"{set_name}_11") and n.endswith("_matches.csv")]
    if landmarks is None:
        raise InputError(
            f"{folder}: no {LANDMARKS.format(set_name)}; it holds the landmarks that faces are aligned by"
        )
    if pairs is None and not (matches and galleries and probes):
        raise InputError(
            f"{folder}: no 1:1 pairs: {PAIRS.format(set_name)}, or {set_name}_11_..._matches.csv with the 1N files"
        )
    match = uris.join(folder, matches[0]) if pairs is None else None
    return Files(set_name, uris.join(folder, FACES.format(set_name)), landmarks, pairs, match, galleries, probes)


def read_faces(files: Files) -> Faces:
    """Faces with templates, media, landmarks and detector scores.

    Raises:
        InputError: a damaged file, files that do not list the same faces, numbers that are not finite.
    """
    places = _read(files.faces, " ", {"name": pa.string(), "template": pa.int32(), "media": pa.int32()})
    points = {f"{axis}{i}": pa.float32() for i in range(5) for axis in "xy"}
    marks = _read(files.landmarks, " ", {"name": pa.string(), **points, "score": pa.float32()})
    if places["name"] != marks["name"]:
        raise InputError(f"{files.landmarks}: does not list the {places.num_rows} faces of {files.faces} in its order")
    landmark = np.stack([marks[name].to_numpy() for name in points], 1).reshape(-1, 5, 2)
    score = marks["score"].to_numpy()
    bad = np.flatnonzero(~(np.isfinite(landmark).all((1, 2)) & np.isfinite(score)))
    if len(bad):
        raise InputError(f"{files.landmarks}: line {bad[0] + 1} has numbers that are not finite")
    names = places["name"].to_pylist()
    return Faces(names, places["template"].to_numpy(), places["media"].to_numpy(), landmark, score)


def read_pairs(files: Files) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Template numbers of the 1:1 pairs, int32 [n] each, and whether they are genuine, bool [n].

    Raises:
        InputError: a damaged file, a label that is not 0 or 1, a template without a subject, one class only.
    """
    columns: dict[str, pa.DataType] = {"left": pa.int32(), "right": pa.int32()}
    if files.pairs is not None:
        table = _read(files.pairs, " ", {**columns, "same": pa.int8()})
        label = table["same"].to_numpy()
        if not np.isin(label, (0, 1)).all():
            raise InputError(f"{files.pairs}: labels must be 0 or 1")
        where, same = files.pairs, label == 1
    else:
        assert files.matches is not None and files.probes is not None
        table = _read(files.matches, ",", columns)
        where, found = files.matches, [read_subjects(uri) for uri in (*files.galleries, files.probes)]
        template, subject = (np.concatenate(c) for c in zip(*found, strict=True))
        known, first = np.unique(template, return_index=True)

        def subject_of(template_n: np.ndarray) -> np.ndarray:
            row = np.minimum(np.searchsorted(known, template_n), len(known) - 1)
            missing = template_n[known[row] != template_n]
            if len(missing):
                raise InputError(f"{where}: template {missing[0]} has no subject in the 1N files")
            return subject[first][row]

        left, right = (subject_of(table[side].to_numpy()) for side in columns)
        same = left == right
    if same.all() or not same.any():
        raise InputError(f"{where}: all {len(same)} pairs are {'genuine' if same.all() else 'impostor'}")
    return table["left"].to_numpy(), table["right"].to_numpy(), same


def read_subjects(uri: str) -> tuple[np.ndarray, np.ndarray]:
    """Templates of a gallery or probe file and their subjects, int64 [t] each, in the order of the template numbers.

    Raises:
        InputError: a damaged file, or a template of two subjects.
    """
    table = _read(uri, ",", {"TEMPLATE_ID": pa.int64(), "SUBJECT_ID": pa.int64()}, header=True)
    template, subject = table["TEMPLATE_ID"].to_numpy(), table["SUBJECT_ID"].to_numpy()
    found, first, inverse = np.unique(template, return_index=True, return_inverse=True)
    if (subject[first][inverse] != subject).any():
        raise InputError(f"{uri}: a template has two subjects")
    return found, subject[first]


def _read(uri: str, delimiter: str, columns: dict[str, pa.DataType], header: bool = False) -> pa.Table:
    """The columns of a text file; with a header only those, else exactly those."""
    read = csv.ReadOptions(block_size=BLOCK_BYTES, column_names=None if header else list(columns))
    convert = csv.ConvertOptions(
        column_types=columns, include_columns=list(columns) if header else None, strings_can_be_null=False
    )
    try:
        with uris.open_reader(uri) as stream:
            table = csv.read_csv(
                stream, read_options=read, parse_options=csv.ParseOptions(delimiter=delimiter), convert_options=convert
            )
    except (pa.ArrowException, KeyError) as error:
        raise InputError(f"{uri}: not the expected file ({error})") from error
    if any(column.null_count for column in table.columns):
        raise InputError(f"{uri}: a line with an empty column; expected {', '.join(columns)}")
    return table.combine_chunks()
