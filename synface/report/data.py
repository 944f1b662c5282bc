"""What a report shows, read from the artifacts of a run. No drawing."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.core.ranks import part_statistics, rank_groups
from synface.core.rng import permutation
from synface.core.sphere import nearest_cosine
from synface.evaluate.audit import similarity_statistics
from synface.models.embedding import Embedder
from synface.report.config import NamedInput, ReportConfig
from synface.report.grid import Grid, read_grid
from synface.report.nearness import nearer_to_another
from synface.report.samples import Samples, read_samples
from synface.report.space import Space, lay_out
from synface.store import artifact, schemas, tables
from synface.store import uri as uris

#: larger tables are compared on a keyed sample of this many rows
SAMPLE = 20_000
#: a point's identities and images of each in the layout of a sweep's samples
SPACE_IDENTITIES, SPACE_IMAGES = 10, 10
#: images of an identity that a similarity group shows
GROUP_IMAGES = 2
HISTORY_FILE = "history.json"
RESULTS_FILE = "results.json"
SCORES_FILE = "data/scores.parquet"
ROC_FILE = "data/roc.parquet"
WEIGHTS_FILE = "config.json"
TRIALS_FILE = "data/trials.parquet"
POINTS_FILE = "data/points.parquet"
COSTS_FILE = "trials.csv"

MAGIC = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"RI": "image/webp"}


@dataclass(frozen=True)
class Packing:
    """Nearest cosines of the chosen identities, the same for as many random pool members, and the numbers."""

    nearest_n: np.ndarray
    unpacked_n: np.ndarray | None
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """A recognizer's history and what its weights state about themselves."""

    history: tuple[Mapping[str, float], ...]
    weights: Mapping[str, Any]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """results.json, and scores and ROC by (benchmark, protocol)."""

    content: Mapping[str, Any]
    scores: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    roc: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Sweep:
    """Rows of a sweep's tables, one a trial and one a point, its numbers, and samples.

    `similarity` holds `audit.similarity_statistics` of the columns of `samples` whose images were scored; `space`
    their layout, if it was asked; `nearer` the share of a point's images that this recognizer puts nearer to another
    inquiry, where it embedded the inquiries too; `costs` the lines of the table of costs by trial, where it stands.
    Points with the same images (a sweep of recognizers) stand in `samples`, `similarity` and `space` once, as the
    first of them; `alike` has all of each, by the first.
    """

    trials: tuple[Mapping[str, Any], ...]
    points: tuple[Mapping[str, Any], ...]
    numbers: Mapping[str, Any]
    samples: Samples = field(default_factory=Samples)
    similarity: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    space: Space | None = None
    nearer: Mapping[int, float] = field(default_factory=dict)
    costs: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    alike: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def shown_at(self) -> dict[int, int]:
        """Point that has images -> the point that they stand at."""
        return {point: first for first, points in self.alike.items() for point in points}


@dataclass(frozen=True)
class Groups:
    """Images of some identities in groups by their similarity to the identity's centre, most similar first.

    Attributes:
        rows: identity -> group -> (image's row in the table, cosine, encoded image).
        statistics: of each group, over all identities: images, mean, mean_highest, mean_lowest.
    """

    rows: Mapping[str, Mapping[int, Sequence[tuple[int, float, bytes]]]]
    statistics: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Source:
    """Where a part of the report comes from."""

    role: str
    uri: str
    manifest: artifact.Manifest


@dataclass(frozen=True)
class Run:
    """Everything that a page shows; parts that were not given are None or empty."""

    title: str
    packing: Packing | None
    grid: Grid | None
    trainings: Mapping[str, Training]
    evaluations: Mapping[str, Evaluation]
    sources: tuple[Source, ...]
    sweep: Sweep | None = None
    similarity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Groups | None = None


def read(config: ReportConfig) -> Run:
    """Read and check every input of a report.

    Raises:
        InputError: an input that is missing, of another kind, or damaged.
    """
    recognizers = {item.name: item.uri for item in config.recognizers}
    evaluations = {item.name: item.uri for item in config.evaluations}
    if config.recognizer:
        recognizers = {"this run": config.recognizer, **recognizers}
    if config.evaluation:
        evaluations = {"this run": config.evaluation, **evaluations}
    return Run(
        title=config.title,
        packing=read_packing(config.pack, config.pool) if config.pack else None,
        grid=read_grid(config.images, config.grid_identities, config.grid_images) if config.images else None,
        trainings={name: read_training(uri) for name, uri in recognizers.items()},
        evaluations={name: read_evaluation(uri) for name, uri in evaluations.items()},
        sources=tuple(_sources(config, recognizers, evaluations)),
        sweep=read_sweep(config.sweep, config.grid_identities, config.embedder, config.beside)
        if config.sweep
        else None,
        similarity=_similarities(config),
        groups=read_groups(config) if config.similarities else None,
    )


def _sources(config: ReportConfig, recognizers: dict[str, str], evaluations: dict[str, str]) -> list[Source]:
    roles = [("pool", config.pool), ("identities", config.pack), ("images", config.images), ("sweep", config.sweep)]
    roles += [("similarities", config.similarities), *((f"audit ({a.name})", a.uri) for a in config.audits)]
    roles += [(f"images ({item.name})", item.uri) for item in config.beside]
    roles += [(f"recognizer ({name})" if name != "this run" else "recognizer", u) for name, u in recognizers.items()]
    roles += [(f"evaluation ({name})" if name != "this run" else "evaluation", u) for name, u in evaluations.items()]
    return [Source(role, uri, artifact.require(uri)) for role, uri in roles if uri]


def read_packing(pack: str, pool: str | None) -> Packing:
    """Nearest cosines of a packing; with a pool also those of as many of its members drawn at random."""
    chosen = tables.read_identities(pack)
    nearest = np.asarray(chosen["nearest_cosine"].to_numpy(zero_copy_only=False), np.float64)
    if not np.isfinite(nearest).all():
        nearest = nearest_cosine(_sampled(schemas.embeddings(chosen), len(chosen)))[0].astype(np.float64)
    unpacked = None
    if pool is not None:
        members = schemas.embeddings(tables.read_identities(pool))
        if len(members) > 1 and len(chosen) > 1:
            unpacked = nearest_cosine(_sampled(members, min(len(chosen), len(members))))[0].astype(np.float64)
    return Packing(nearest, unpacked, artifact.require(pack, "identities").numbers)


def _sampled(x_nd: np.ndarray, count: int) -> np.ndarray:
    """`count` rows at most `SAMPLE`, drawn by a fixed key; all rows where that many are asked."""
    count = min(count, SAMPLE)
    return x_nd if count == len(x_nd) else x_nd[permutation(len(x_nd), "report", "unpacked")[:count]]


def media_type(data: bytes) -> str:
    """The media type of an encoded image, by its first bytes."""
    return MAGIC.get(data[:2], "application/octet-stream")


def read_training(uri: str) -> Training:
    """The history of a recognizer's training (empty where none is kept) and its stated conventions."""
    manifest = artifact.require(uri, "recognizer")
    listed = {f.path: f for f in manifest.files}
    history = _json(uri, listed[HISTORY_FILE]) if HISTORY_FILE in listed else []
    stated = _json(uri, listed[WEIGHTS_FILE]) if WEIGHTS_FILE in listed else {}
    return Training(tuple(history), stated, manifest.numbers)


def read_evaluation(uri: str) -> Evaluation:
    """An evaluation's numbers, pair scores and ROC corners."""
    manifest = artifact.require(uri, "evaluation")
    listed = {f.path: f for f in manifest.files}
    missing = [name for name in (RESULTS_FILE, SCORES_FILE, ROC_FILE) if name not in listed]
    if missing:
        raise InputError(f"{uri}: has no {missing[0]}; evaluate again with this version of synface")
    scores = tables.parse_parquet(tables.read_listed(uri, listed[SCORES_FILE]), uris.join(uri, SCORES_FILE))
    corners = tables.parse_parquet(tables.read_listed(uri, listed[ROC_FILE]), uris.join(uri, ROC_FILE))
    pairs = {}
    for key, part in _by_protocol(scores).items():
        cosine, same = part["cosine"].to_numpy(), part["same"].to_numpy(zero_copy_only=False)
        pairs[key] = (cosine[same], cosine[~same])
    lines = {key: (part["far"].to_numpy(), part["tar"].to_numpy()) for key, part in _by_protocol(corners).items()}
    return Evaluation(_json(uri, listed[RESULTS_FILE]), pairs, lines)


def _similarities(config: ReportConfig) -> dict[str, Mapping[str, Any]]:
    """Similarity statistics by name: of the run's images, if they were scored, and of every audit."""
    found: dict[str, Mapping[str, Any]] = {}
    if config.images is not None and (scored := inquiry_similarity(config.images)) is not None:
        found["this run"] = scored
    for item in config.audits:
        found[item.name] = artifact.require(item.uri, "audit").numbers["similarity"]
    return found


def inquiry_similarity(images: str) -> dict[str, Any] | None:
    """Statistics of the cosines to the inquiries, of a table's first `SAMPLE` rows or a few more; None: not scored."""
    names: list[str] = []
    parts = []
    for table in tables.iter_images(images):
        if "similarity_inquiry" not in table.column_names:
            return None
        names += table["identity_id"].to_pylist()
        parts.append(table["similarity_inquiry"].to_numpy(zero_copy_only=False).astype(np.float64))
        if len(names) >= SAMPLE:
            break
    cosine_n = np.concatenate(parts) if parts else np.zeros(0)
    if not len(cosine_n) or not np.isfinite(cosine_n).all():
        return None
    return similarity_statistics(cosine_n, np.unique(names, return_inverse=True)[1])


def read_groups(config: ReportConfig) -> Groups:
    """Statistics of the groups, and the first images of each group of some identities.

    Raises:
        InputError: the similarities are those of other images.
    """
    assert config.images is not None and config.similarities is not None
    identity, similarity_n, digest = tables.read_similarities(config.similarities)
    if digest != artifact.content_digest(config.images):
        raise InputError(f"similarities {config.similarities}: those of other images than {config.images}")
    label_n = np.unique(identity, return_inverse=True)[1]
    group_n = rank_groups(similarity_n, label_n, config.similarity_groups)
    statistics = []
    for group in range(config.similarity_groups):
        kept_n = group_n == group
        found = part_statistics(similarity_n, label_n, kept_n) if kept_n.any() else {}
        statistics.append({"images": int(kept_n.sum()), **found})
    wanted: dict[int, tuple[str, int]] = {}
    for name in list(dict.fromkeys(identity.tolist()))[: config.grid_identities]:
        own = np.flatnonzero(identity == name)
        for group in range(config.similarity_groups):
            rows = own[group_n[own] == group]
            best = rows[np.argsort(-similarity_n[rows], kind="stable")][:GROUP_IMAGES]
            wanted |= {int(row): (name, group) for row in best}
    pictures = tables.image_files(config.images, wanted)
    shown: dict[str, dict[int, list[tuple[int, float, bytes]]]] = {}
    for row, (name, group) in wanted.items():
        shown.setdefault(name, {}).setdefault(group, []).append((row, float(similarity_n[row]), pictures[row]))
    return Groups(shown, tuple(statistics))


def read_sweep(uri: str, identities: int, embedder: str | None = None, beside: Sequence[NamedInput] = ()) -> Sweep:
    """The tables of a sweep, and samples of some identities that every point has.

    Args:
        uri: of the sweep.
        identities: rows of the grid of samples.
        embedder: lays out samples of every point, and says which lie nearer to another inquiry; None: nobody does.
        beside: images tables whose samples stand beside the points'.
    """
    manifest = artifact.require(uri, "sweep")
    listed = {f.path: f for f in manifest.files}
    found = [
        tables.parse_parquet(tables.read_listed(uri, listed[name]), uris.join(uri, name)).to_pylist()
        for name in (TRIALS_FILE, POINTS_FILE)
    ]
    shown = {p["point"] for p in found[1]}
    places = {r["point"]: r["images"] for r in found[0] if r["images"] is not None and r["point"] in shown}
    store = manifest.numbers["store"]
    store = store if "/" in store else uris.join(uri, store)
    by_place: dict[str, list[int]] = {}
    for point, place in places.items():
        by_place.setdefault(place, []).append(point)
    alike = {points[0]: points for points in by_place.values()}
    images = {points[0]: uris.join(store, place) for place, points in by_place.items()}
    columns = {**images, **{-1 - number: item.uri for number, item in enumerate(beside)}}
    scored = {place: inquiry_similarity(place) for place in set(columns.values())}
    similarity = {column: known for column, place in columns.items() if (known := scored[place]) is not None}
    layout, nearer = None, {}
    if embedder is not None and images:
        drawn = {point: read_grid(place, SPACE_IDENTITIES, SPACE_IMAGES).rows for point, place in images.items()}
        network = Embedder.from_pretrained(embedder, threads=1)
        layout = lay_out(drawn, network)
        measured = _nearer(found[0], images, store, network)
        nearer = {point: share for first, share in measured.items() for point in alike[first]}
    samples = read_samples(images, beside, identities) if images else Samples()
    trials, points = (tuple(rows) for rows in found)
    return Sweep(trials, points, manifest.numbers, samples, similarity, layout, nearer, _costs(uri), alike)


def _nearer(
    trials: Sequence[Mapping[str, Any]], images: Mapping[int, str], store: str, network: Embedder
) -> dict[int, float]:
    """Point -> `nearer_to_another` of its images, where its inquiries are known."""
    inquiries = {r["point"]: r["identities"] for r in trials if r.get("identities")}
    found = {
        point: nearer_to_another(place, key if key.startswith("/") or "://" in key else uris.join(store, key), network)
        for point, place in images.items()
        if (key := inquiries.get(point)) is not None
    }
    return {point: share for point, share in found.items() if share is not None}


def _costs(uri: str) -> dict[int, Mapping[str, str]]:
    """Trial -> its line of costs. They stand beside the tables, unlisted: no result depends on them."""
    place = uris.join(uri, COSTS_FILE)
    if not uris.exists(place):
        return {}
    return {int(line["trial"]): line for line in csv.DictReader(io.StringIO(uris.read_bytes(place).decode()))}


def _by_protocol(table: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """The table's parts by (benchmark, protocol), in their order."""
    keys = list(zip(table["benchmark"].to_pylist(), table["protocol"].to_pylist(), strict=True))
    rows: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(keys):
        rows.setdefault(key, []).append(index)
    return {key: table.take(index) for key, index in rows.items()}


def _json(uri: str, entry: artifact.FileEntry) -> Any:
    try:
        return json.loads(tables.read_listed(uri, entry))
    except ValueError as error:
        raise InputError(f"{uris.join(uri, entry.path)}: not JSON ({error})") from error
