"""Published accuracies of recognizers trained on synthetic and real data, and the gap to real in both definitions.

Accuracies in per cent on the field's five sets. Rows of different papers come from different recipes: a public re-run
of released sets differed from the papers by up to two points. `source` says where each row stands.
"""

from dataclasses import asdict, dataclass
from typing import Any

#: the five sets, as packs are named here, in the order of a row
SETS = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
CEMIFACE = "CemiFace (arXiv 2409.18876), Table 6"
CEMIFACE_RERUN = "CemiFace (arXiv 2409.18876), Table 6, run again there"
VIGFACE = "VIGFace, README"
VEC2FACE = "Vec2Face+, README"
IDPERTURB = "IDperturb (arXiv 2602.18831)"


@dataclass(frozen=True)
class Published:
    """One published row; accuracies in per cent in the order of `SETS`."""

    system: str
    images: str
    accuracies: tuple[float, float, float, float, float]
    average: float
    source: str
    real: bool = False


PUBLISHED: tuple[Published, ...] = (
    Published("CASIA-WebFace (AdaFace)", "0.49M", (99.42, 96.56, 94.08, 93.32, 89.73), 94.62, CEMIFACE, True),
    Published("CASIA-WebFace (CosFace)", "0.49M", (99.30, 94.87, 94.35, 93.15, 89.65), 94.26, CEMIFACE_RERUN, True),
    Published("SynFace", "0.5M", (91.93, 75.03, 61.63, 74.73, 70.43), 74.75, CEMIFACE),
    Published("DigiFace", "0.5M", (95.40, 87.40, 76.97, 78.62, 78.87), 83.45, CEMIFACE),
    Published("IDiff-Face", "0.5M", (98.00, 85.47, 86.43, 90.65, 80.45), 88.20, CEMIFACE),
    Published("HyperFace", "0.5M", (98.50, 88.83, 86.53, 89.40, 84.23), 89.50, VIGFACE),
    Published("DCFace", "0.5M", (98.55, 85.33, 89.70, 91.60, 82.62), 89.56, CEMIFACE),
    Published("DCFace", "0.5M", (98.33, 87.70, 90.01, 91.61, 83.26), 90.18, CEMIFACE_RERUN),
    Published("Arc2Face", "0.5M", (98.81, 91.87, 90.18, 92.63, 85.16), 91.73, "Arc2Face (arXiv 2403.11641)"),
    Published("CemiFace", "0.5M", (99.03, 91.06, 91.33, 92.42, 87.65), 92.30, CEMIFACE),
    Published("VIGFace(S)", "0.5M", (99.02, 95.09, 90.95, 90.00, 87.72), 92.56, VIGFACE),
    Published("Vec2Face+ VFace10K", "0.5M", (99.35, 93.56, 94.33, 94.17, 88.03), 93.89, VEC2FACE),
    Published("IDperturb on IDiff-Face", "0.5M", (99.40, 93.61, 93.20, 93.50, 88.37), 93.62, IDPERTURB),
    Published("ID3", "0.5M", (97.68, 86.84, 91.00, 90.73, 82.77), 89.80, "ID3 (arXiv 2409.17576)"),
    Published("DCFace", "1.0M", (98.83, 88.40, 90.45, 92.38, 84.22), 90.86, CEMIFACE),
    Published("DCFace", "1.0M", (98.88, 89.71, 91.25, 92.15, 85.20), 91.44, CEMIFACE_RERUN),
    Published("CemiFace", "1.0M", (99.18, 92.75, 91.97, 93.01, 88.42), 93.07, CEMIFACE),
    Published("Vec2Face+ VFace20K", "1.0M", (99.40, 94.23, 95.58, 94.67, 89.10), 94.60, VEC2FACE),
    Published("DigiFace", "1.2M", (96.17, 89.81, 81.10, 82.55, 82.23), 86.37, CEMIFACE),
    Published("DCFace", "1.2M", (98.58, 88.61, 90.97, 92.82, 85.07), 91.21, CEMIFACE),
    Published("DCFace", "1.2M", (99.05, 89.80, 91.73, 92.70, 86.05), 91.87, CEMIFACE_RERUN),
    Published("Arc2Face", "1.2M", (98.92, 94.58, 92.45, 93.33, 86.45), 93.14, "Arc2Face (arXiv 2403.11641)"),
    Published("CemiFace", "1.2M", (99.22, 92.84, 92.13, 93.03, 88.86), 93.22, CEMIFACE),
    Published("VIGFace(B)", "1.2M", (99.48, 97.07, 93.62, 92.88, 90.15), 94.64, VIGFACE),
    Published("Vec2Face+ VFace100K", "4M", (99.52, 95.09, 95.17, 94.38, 90.23), 94.88, VEC2FACE),
    Published("VIGFace(L)", "6M", (99.33, 97.31, 93.82, 92.95, 91.12), 94.91, VIGFACE),
    Published("Vec2Face+ VFace300K", "12M", (99.57, 94.80, 95.17, 94.70, 90.43), 94.93, VEC2FACE),
)


def gap_to_real(real: float, synthetic: float) -> dict[str, float]:
    """Gap to real in both published definitions, from two accuracies in per cent.

    ``points``: real - synthetic, in points (CemiFace). ``relative_percent``: (real - synthetic) / synthetic in per
    cent (DCFace, DigiFace). FRCSyn's sign is that of ``points``; VariFace's "real gap" is minus ``points``.
    """
    return {"points": real - synthetic, "relative_percent": 100 * (real - synthetic) / synthetic}


def gaps(real: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Gap to real of every protocol that two evaluations share, and of the mean over those.

    Args:
        real: ``results`` of an evaluation's results.json: benchmark -> protocol -> numbers.
        ours: the same of the recognizer trained on synthetic data.

    Raises:
        ValueError: no protocol in common.
    """
    shared = [(b, p) for b, protocols in ours.items() for p in protocols if p in real.get(b, {})]
    if not shared:
        raise ValueError(f"has none of {', '.join(f'{b}/{p}' for b, ps in ours.items() for p in ps)}")
    pairs = {f"{b}/{p}": (100 * real[b][p]["accuracy"], 100 * ours[b][p]["accuracy"]) for b, p in shared}
    pairs["average"] = (
        sum(r for r, _ in pairs.values()) / len(shared),
        sum(s for _, s in pairs.values()) / len(shared),
    )
    return {name: {"real": r, "synthetic": s, **gap_to_real(r, s)} for name, (r, s) in pairs.items()}


def beside(results: dict[str, dict[str, Any]], name: str = "this run") -> list[dict[str, Any]]:
    """The published rows, best average last, with a user's own row among them where all five sets were evaluated.

    Args:
        results: ``results`` of an evaluation's results.json.
        name: of the user's row.

    Returns:
        Rows as plain data: system, images, the five accuracies by name (per cent), average, source, real.
    """
    rows = [{**asdict(row), **dict(zip(SETS, row.accuracies, strict=True))} for row in PUBLISHED]
    for row in rows:
        del row["accuracies"]
    if all(s in results for s in SETS):
        own = {s: 100 * float(results[s]["verification"]["accuracy"]) for s in SETS}
        rows.append(
            {"system": name, "images": "", **own, "average": sum(own.values()) / 5, "source": "", "real": False}
        )
    return sorted(rows, key=lambda row: row["average"])
