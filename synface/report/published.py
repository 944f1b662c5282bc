"""Rows that papers publish for a sweep of the same fields, in per cent, to stand beside ours.

CemiFace: Sun et al., NeurIPS 2024 (arXiv 2409.18876), camera-ready with supplement. Their benchmarks are photographs,
ours may be others: what can be compared is the shape of a curve, not its height.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synface.settings import canonical_json

#: of a point's values: numbers, or text (JSON of what is neither)
Key = tuple[float | str, ...]


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes:
        title: what it is.
        paths: whose values its rows are of: dotted paths, and `name` for that of a point.
        columns: of its numbers.
        rows: values of `paths` -> numbers in per cent.
        remarks: values -> what else is to be said of a row.
        whole: its rows are of other data than any sweep here can have, and stand below ours instead of beside them.
        at: what its rows hold besides, path -> value: beside points of a sweep that sets these paths to another one
            there is no row.
    """

    title: str
    paths: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Mapping[Key, tuple[float | None, ...]]
    remarks: Mapping[Key, str] = field(default_factory=dict)
    whole: bool = False
    at: Mapping[str, float | str] = field(default_factory=dict)

    def key(self, point: Mapping[str, Any]) -> Key:
        """A point's values of `paths`, as `rows` has them; () where it is not `at` what they hold besides."""
        if any(point.get(path) is not None and _plain(point[path]) != value for path, value in self.at.items()):
            return ()
        return tuple(_plain(point.get(path)) for path in self.paths)

    def fits(self, paths: Sequence[str]) -> bool:
        """Whether these are its paths; those of `at` may be among them."""
        return set(self.paths) <= set(paths) <= {*self.paths, *self.at}


def _plain(value: Any) -> float | str:
    """Tables of a sweep hold text where only some values are numbers; these are numbers again here."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value if isinstance(value, str) else canonical_json(value)


def tables_of(paths: Sequence[str], crossed: Sequence[str], points: Sequence[Mapping[str, Any]]) -> list[Published]:
    """The tables that belong to a sweep: of its paths, or of its points' names and what they are crossed with.

    Args:
        paths: that the sweep sets.
        crossed: those of its grid alone, which points with names are crossed with.
        points: its points; a table none of whose rows is of any of them is left out.
    """
    named = any(point.get("name") for point in points)
    asked = [("name", *crossed), tuple(crossed or paths)] if named else [tuple(paths)]
    fitting = [t for t in PUBLISHED if any(t.fits(one) for one in asked)]
    return [t for t in fitting if t.whole or any(t.key(point) in t.rows for point in points)]


FIVE = ("LFW", "CFP-FP", "AgeDB", "CALFW", "CPLFW", "AVG")


@dataclass(frozen=True)
class Similarity:
    """Cosines of samples to their inquiry: mean, standard deviation, identities by their mean in bins of 0.1."""

    mean: float
    std: float
    identities_by_mean: dict[str, int]


#: CemiFace, Table 7 (10k identities, by the paper's recognizer); which count belongs to which bin is inferred: only
#: this order agrees with the means
SIMILARITY: dict[str, Similarity] = {
    "CemiFace (its Table 7)": Similarity(
        0.2854, 0.0776, {"0-0.1": 196, "0.1-0.2": 1043, "0.2-0.3": 3281, "0.3-0.4": 4539, "0.4-0.5": 930, ">0.5": 7}
    ),
    "DCFace (CemiFace's Table 7)": Similarity(
        0.3624, 0.0914, {"0-0.1": 14, "0.1-0.2": 231, "0.2-0.3": 2059, "0.3-0.4": 5899, "0.4-0.5": 1788, ">0.5": 9}
    ),
}

#: CemiFace, Tables 1 and 9: mean similarity of each of five groups of CASIA-WebFace, and the means over people of its
#: highest and lowest; the last group's highest, 0.767, stands above the lowest of the group before: so in the paper
SIMILARITY_GROUPS: tuple[tuple[float, float, float], ...] = (
    (0.85, 0.887, 0.831),
    (0.81, 0.831, 0.794),
    (0.76, 0.794, 0.747),
    (0.70, 0.747, 0.676),
    (0.53, 0.767, 0.277),
)

#: of the ablations of a generator's training
DRAWN_AT_0 = {"generate.variation.m": 0.0}

#: every table; several may have the same paths
PUBLISHED: tuple[Published, ...] = (
    Published(
        "CemiFace, Table 11 (10k identities x 10 images)",
        ("generate.variation.m",),
        FIVE,
        {
            (1.0,): (97.00, 72.94, 86.98, 89.85, 73.86, 84.126),
            (0.9,): (97.38, 73.81, 86.88, 90.13, 74.82, 84.604),
            (0.8,): (85.75, 62.42, 67.80, 81.85, 58.43, 71.25),
            (0.7,): (97.20, 75.50, 86.75, 90.15, 75.95, 85.11),
            (0.6,): (97.52, 78.91, 87.25, 90.84, 75.39, 85.982),
            (0.5,): (97.85, 80.55, 87.93, 90.90, 79.35, 87.316),
            (0.4,): (97.88, 80.39, 88.01, 90.89, 79.55, 87.344),
            (0.3,): (97.98, 80.19, 88.15, 90.72, 79.73, 87.354),
            (0.2,): (98.02, 84.21, 88.60, 91.03, 81.99, 88.77),
            (0.1,): (98.20, 86.29, 88.25, 91.25, 82.85, 89.368),
            (0.0,): (98.10, 86.60, 88.90, 91.15, 83.08, 89.567),
            (-0.1,): (97.65, 84.90, 86.42, 89.47, 80.10, 87.708),
            (-0.2,): (93.15, 80.83, 81.33, 85.92, 74.68, 83.182),
            (-0.3,): (92.77, 74.13, 78.15, 81.58, 69.72, 79.27),
            (-0.4,): (89.11, 71.78, 70.13, 77.78, 65.17, 74.794),
            (-0.5,): (85.18, 65.16, 63.42, 69.58, 63.68, 69.404),
            (-0.6,): (84.23, 64.63, 63.05, 69.13, 62.86, 68.78),
            (-0.7,): (83.65, 63.98, 62.53, 68.78, 61.26, 68.04),
            (-0.8,): (82.10, 62.51, 61.85, 67.53, 60.70, 66.938),
            (-0.9,): (84.23, 62.38, 65.13, 73.85, 60.08, 69.134),
            (-1.0,): (85.75, 62.42, 67.80, 81.85, 58.43, 71.25),
        },
        {(0.8,): "the same row as m = -1: an error in the paper"},
    ),
    Published(
        "CemiFace, m in generation (0.5M images; trained with m in [0, 1])",
        ("generate.variation.m",),
        ("AVG",),
        {
            (0.0,): (91.64,),
            ('{"range":[0,0.1]}',): (91.11,),
            ('{"range":[-0.1,0.1]}',): (91.61,),
            ('{"mixture":[{"fixed":0},{"fixed":0.5}]}',): (90.36,),
            ('{"mixture":[{"fixed":0},{"fixed":0.5},{"fixed":0.9}]}',): (90.12,),
        },
    ),
    Published(
        "CemiFace, range and interval of m in training (0.5M images, drawn at m = 0)",
        ("train_generator.m_range", "train_generator.m_interval"),
        ("AVG",),
        {
            ("[0,0]", 0.02): (91.15,),
            ("[0,1]", 0.02): (91.64,),
            ("[-1,1]", 0.02): (92.28,),
            ("[-1,1]", 0.04): (92.30,),
            ("[-1,1]", 0.06): (92.09,),
        },
        {("[0,0]", 0.02): "m = 0 alone, which has no interval"},
        at=DRAWN_AT_0,
    ),
    Published(
        "CemiFace, Table 8 (kinds of centres)",
        ("name", "generate.variation.m"),
        ("AVG",),
        {
            ("class centre", 1.0): (83.20,),
            ("class centre", 0.7): (84.71,),
            ("class centre", 0.5): (86.32,),
            ("class centre", 0.2): (89.59,),
            ("class centre", 0.1): (90.02,),
            ("class centre", 0.0): (90.09,),
            ("random centre", 1.0): (None,),
            ("one picture", 0.0): (90.67,),
        },
        {
            ("random centre", 1.0): "did not converge",
            ("one picture", 0.0): "rendered inquiries (DigiFace)",
        },
    ),
    Published(
        "CemiFace, training data x inquiries (0.5M images, m = 0)",
        ("generator_images.domain", "pool.domain"),
        ("1-shot WebFace", "DDPM faces", "1-shot Flickr"),
        {
            ("CASIA-WebFace",): (91.64, 91.49, 88.97),
            ("Flickr",): (90.25, 90.19, 88.65),
            ("VGGFace2",): (92.20, 92.01, 90.586),
            ("CASIA-WebFace, by DCFace",): (89.8, 90.18, None),
        },
        whole=True,
    ),
    Published(
        "CemiFace, Table 6 (volumes)",
        ("name",),
        FIVE,
        {
            ("small",): (99.03, 91.06, 91.33, 92.42, 87.65, 92.30),
            ("middle",): (99.18, 92.75, 91.97, 93.01, 88.42, 93.07),
            ("large",): (99.22, 92.84, 92.13, 93.03, 88.86, 93.22),
        },
        {
            ("small",): "10k people x 50 images",
            ("middle",): "20k x 50",
            ("large",): "20k x 50 and 40k others x 5",
        },
    ),
    Published(
        "CemiFace, Tables 1 and 9 (CASIA-WebFace, five groups of about 100k images)",
        ("train_recognizer.similarity_group.group",),
        FIVE,
        {
            (0.0,): (98.43, 85.67, 91.08, 89.43, 82.78, 89.48),
            (1.0,): (98.91, 88.80, 91.71, 91.03, 84.58, 91.01),
            (2.0,): (98.94, 90.92, 91.70, 91.50, 85.85, 91.78),
            (3.0,): (98.66, 91.08, 90.76, 90.32, 86.92, 91.55),
            (4.0,): (94.63, 82.12, 80.11, 77.63, 77.30, 82.36),
        },
        {
            (0.0,): "mean similarity 0.85; AgeDB and CALFW of all rows could be swapped",
            (1.0,): "mean similarity 0.81",
            (2.0,): "mean similarity 0.76",
            (3.0,): "mean similarity 0.70",
            (4.0,): "mean similarity 0.53",
        },
    ),
    Published(
        "CemiFace, similarity measure (0.5M images)",
        ("train_generator.measure",),
        ("AVG",),
        {("cosine",): (91.64,), ("euclidean",): (90.95,)},
        at=DRAWN_AT_0,
    ),
    Published(
        "CemiFace, lambda (0.5M images)",
        ("train_generator.weight",),
        ("AVG",),
        {(0.01,): (91.72,), (0.05,): (91.64,), (0.1,): (91.29,), (0.5,): (90.77,)},
        {(0.01,): "placement inferred from the text", (0.1,): "placement inferred from the text"},
        at=DRAWN_AT_0,
    ),
)
