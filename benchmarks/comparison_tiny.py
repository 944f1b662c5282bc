"""The systems of the comparison in the tiny world, under one recipe of a recognizer: docs/results/comparison_tiny.md.

    python benchmarks/comparison_tiny.py --dry-run                       # what is there, what would be made
    python benchmarks/comparison_tiny.py                                 # all of it, hours on two cores
    python benchmarks/comparison_tiny.py --generator-images runs/cemiface_tiny_more/images   # rendered already

Trains IDiff-Face and DCFace on the people and in the latents of cemiface-tiny (which ships), then runs the sweep
`jobs/configs/comparison_tiny.yaml`, audits every dataset and writes the page. Every stage answers at once where
it is finished and continues where it was stopped: stop and start it as you like.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stages
from common import write_result
from synface.core.statistics import Summary, summarize
from synface.evaluate import audit_run, outcome
from synface.evaluate.audit_config import AuditConfig
from synface.evaluate.published import PUBLISHED
from synface.flows import sweep, sweep_outcome
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Planner, Trial, resolved, trials
from synface.generate import run as generate_run
from synface.generate.config import GenerateConfig
from synface.ops.runs import say
from synface.report import figures, markdown
from synface.report.grid import read_grid
from synface.report.similarities import image_grid
from synface.settings import StageConfig, build, read_recipe
from synface.store import artifact
from synface.store import uri as uris
from synface.train import generator_run
from synface.train.generator_config import TrainGeneratorConfig

PRESET = "jobs/configs/comparison_tiny.yaml"
WORK = "runs/comparison_tiny"
PAGE = "docs/results/comparison_tiny.md"
SAMPLES = "comparison_tiny/samples.png"  # beside the page
#: the preset's points, in its order, by the names of the published rows
SYSTEMS = (
    "heads-real, rendered", "DigiFace", "SynFace", "IDiff-Face", "DCFace", "CemiFace", "HyperFace",
    "packed x calibrated m",
)  # fmt: skip
#: place below the work folder -> recipe whose sections make it
MADE = {"generator_images": "idiffface_tiny", "idiffface": "idiffface_tiny", "dcface": "dcface_tiny"}
SPREAD = "heads-v1/mixed/ancestry"
PROTOCOLS = ("frontal", "pose", "age", "quality", "mixed", "lookalike")


def makers(asked: argparse.Namespace, places: dict[str, str]) -> dict[str, tuple[Any, StageConfig]]:
    """Place -> (module with plan and run, its configuration) of what the sweep needs and nobody has given."""
    found: dict[str, tuple[Any, StageConfig]] = {}
    for name, recipe in MADE.items():
        if getattr(asked, name):
            continue
        sections = stages.sections_of(f"jobs/configs/{recipe}.yaml")
        own = {"output": places[name]}
        study = {"images": [places["generator_images"]], **own}
        if name == "generator_images":
            found[name] = generate_run, build(GenerateConfig, {**sections["generate"], **own})
        else:
            fields = {**sections["train_generator"], **study}
            if asked.steps:
                fields["steps"] = asked.steps
            found[name] = generator_run, build(TrainGeneratorConfig, fields)
    return found


def sweep_config(asked: argparse.Namespace, places: dict[str, str]) -> SweepConfig:
    """The preset, its inputs at their places."""
    section = read_recipe(PRESET, ("sweep",))["sweep"]
    moved = {f"{WORK}/{name}": place for name, place in places.items()} | {f"{WORK}/shared": f"{asked.work}/shared"}

    def replaced(data: Any) -> Any:
        if isinstance(data, dict):
            return {k: replaced(v) for k, v in data.items()}
        if isinstance(data, list):
            return [replaced(v) for v in data]
        return moved.get(data, data) if isinstance(data, str) else data

    fields = {**replaced(section), "seeds": list(range(asked.seeds)), "output": f"{asked.work}/sweep"}
    config = resolved(build(SweepConfig, fields))
    assert len(config.points) == len(SYSTEMS)
    return config


def row_of(asked: argparse.Namespace, planner: Planner, system: str, runs: Sequence[Trial]) -> dict[str, Any]:
    """One system: its dataset, as an audit sees it, and its recognizers on the test."""
    images = runs[0].whole.stages["generate"].output
    numbers = artifact.require(images, "images").numbers
    place = f"{asked.work}/audits/{uris.absolute(images).rsplit('/', 1)[-1]}"
    audited = audit_run.run(build(AuditConfig, {"images": images, "weights": asked.scorer, "output": place}))
    tested = [planner.test(trial).output for trial in runs]
    accuracy = [sweep_outcome.accuracies(uri) for uri in tested]
    content = [json.loads(uris.read_bytes(uris.join(uri, outcome.RESULTS_FILE))) for uri in tested]
    spread = [c["groups"][SPREAD] for c in content if SPREAD in c.get("groups", {})]
    return {
        "system": system,
        "identities": numbers["identities"],
        "images": numbers["images"],
        "accuracy": [a["heads-v1"] for a in accuracy],
        "protocols": {p: [a[f"heads-v1/{p}"] for a in accuracy] for p in PROTOCOLS},
        "ancestry_std": [s["std"] for s in spread],
        "audit": {k: audited[k] for k in ("uniqueness", "consistency", "mislabel_rate")},
        "between_identities": audited["inter_identity_mean_nearest_cosine"],
        "to_centre": audited["similarity"]["mean"],
    }


def samples_png(tables: Sequence[str], people: int = 3, pictures: int = 3) -> bytes:
    """A column for each system: the first pictures of its first people."""
    grids = [read_grid(uri, people, pictures).rows for uri in tables]
    cells = {
        f"{p} {i}": {n: grid[p][1][i] for n, grid in enumerate(grids)} for p in range(people) for i in range(pictures)
    }
    return figures.png_bytes(image_grid(cells, dict(enumerate(SYSTEMS)), {}))


def percent(values: Sequence[float]) -> str:
    """Mean, and half its 95 % interval where there are several; per cent."""
    found: Summary = summarize([100 * v for v in values])
    return f"{found.mean:.2f}" if found.high is None else f"{found.mean:.2f} +- {found.high - found.mean:.2f}"


def page(rows: Sequence[dict[str, Any]], asked: argparse.Namespace, by_hand: str) -> str:
    """Markdown: the tables, what was compared, the command, and at the end what was written `by_hand`."""
    published = {p.system: p.average for p in reversed(PUBLISHED) if p.images == "0.5M"}
    lines = [
        "# The comparison in the tiny world",
        "",
        "Written by `python benchmarks/comparison_tiny.py`. A result on heads is a result on heads: the last column",
        "is what the papers report on photographs (0.5 M images; LFW, CFP-FP, CPLFW, AgeDB, CALFW).",
        "",
        f"One recipe of a recognizer (`jobs/configs/trial_tiny.yaml`), {asked.seeds} seeds; accuracy on heads-v1,",
        "mean of its six protocols, per cent, with the 95 % interval of the mean over seeds (Student t).",
        "",
        "| system | identities x images | heads-v1 | " + " | ".join(PROTOCOLS) + " | published |",
        "|" + "---|" * (len(PROTOCOLS) + 4),
    ]
    for row in rows:
        cells = [percent(row["protocols"][p]).split(" ")[0] for p in PROTOCOLS]
        size = f"{row['identities']} x {row['images'] / row['identities']:g}"
        known = published.get(row["system"])
        lines.append(
            f"| {row['system']} | {size} | {percent(row['accuracy'])} | "
            + " | ".join(cells)
            + f" | {'' if known is None else f'{known:.2f}'} |"
        )
    lines += [
        "",
        f"The datasets, judged by `{asked.scorer}` (`synface audit`, r = 0.3), and how evenly the recognizers work:",
        "",
        "| system | uniqueness | consistency | mislabelled | nearest other identity | sample to centre | "
        "std over ancestries |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        judged = " | ".join(f"{row['audit'][k]:.3f}" for k in ("uniqueness", "consistency", "mislabel_rate"))
        even = percent(row["ancestry_std"]).split(" ")[0] if row["ancestry_std"] else ""
        lines.append(
            f"| {row['system']} | {judged} | {row['between_identities']:.3f} | {row['to_centre']:.3f} | {even} |"
        )
    lines += ["", "Three pictures of each of three people, by system:", "", f"![samples]({SAMPLES})"]
    description = str(read_recipe(PRESET, ("sweep",))["description"])
    return "\n".join([*lines, "", " ".join(description.split()), "", markdown.BY_HAND, "", by_hand]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=WORK, help="folder that keeps what was made")
    for name in MADE:
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help="made already: its folder or URI")
    parser.add_argument("--steps", type=int, default=0, help="of the two generators; default: their recipes'")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args()
    places = {name: getattr(asked, name) or f"{asked.work}/{name}" for name in MADE}
    todo, config = makers(asked, places), sweep_config(asked, places)
    if asked.dry_run:
        state = {
            name: "done" if artifact.load_manifest(stage.output) else stage.model_dump(mode="json", exclude={"how"})
            for name, (_, stage) in todo.items()
        }
        print(json.dumps({"before": state, "sweep": sweep.plan(config)}, indent=1))
        return
    for name, (module, stage) in todo.items():
        say(f"comparison: {name} -> {stage.output}")
        module.run(stage)
    sweep.run(config)
    planner = Planner(config)
    found = trials(config, planner)
    by_system = [[t for t in found if t.point == number] for number in range(len(SYSTEMS))]
    rows = [row_of(asked, planner, system, runs) for system, runs in zip(SYSTEMS, by_system, strict=True)]
    write_result("comparison_tiny", {"rows": rows, "settings": {k: v for k, v in vars(asked).items() if v}})
    target = Path(PAGE)
    grid = target.parent / SAMPLES
    grid.parent.mkdir(parents=True, exist_ok=True)
    grid.write_bytes(samples_png([runs[0].whole.stages["generate"].output for runs in by_system]))
    by_hand = markdown.by_hand(target.read_text()) if target.exists() else ""
    target.write_text(page(rows, asked, by_hand))
    say(f"comparison: {PAGE}")


if __name__ == "__main__":
    main()
