"""Every sweep in jobs/configs plans: its points are accepted by their sections, without weights or data."""

import sys
from pathlib import Path

import pytest

from synface import cli
from synface.flows.sweep_config import SweepConfig
from synface.flows.sweep_plan import Planner, resolved, trials, uses
from synface.settings import build, input_uris, merge, read_recipe

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jobs/configs").glob("sweep_*.yaml"))
#: file -> trials, datasets, generators trained
COUNTS = {
    "sweep_m": (63, 21, 0),
    "sweep_m_tiny": (27, 9, 0),
    "sweep_mixed_m": (15, 5, 0),
    "sweep_mixed_m_tiny": (24, 8, 0),
    "sweep_training_m": (15, 5, 5),
    "sweep_training_m_tiny": (15, 5, 5),
    "sweep_training_m_fresh_tiny": (30, 10, 5),
    "sweep_measure": (6, 2, 2),
    "sweep_measure_tiny": (6, 2, 2),
    "sweep_lambda": (12, 4, 4),
    "sweep_lambda_tiny": (24, 8, 4),
    "sweep_sources": (27, 9, 3),
    "sweep_sources_tiny": (12, 4, 2),
    "sweep_centres": (54, 18, 0),
    "sweep_centres_tiny": (27, 9, 0),
    "sweep_ids_images": (15, 5, 0),
    "sweep_ids_images_tiny": (15, 5, 0),
    "sweep_identities": (9, 3, 0),
    "sweep_identities_tiny": (12, 4, 0),
    "sweep_hyperface": (33, 11, 0),
    "sweep_hyperface_tiny": (27, 9, 0),
    "sweep_packed_m": (36, 12, 0),
    "sweep_packed_m_tiny": (24, 8, 0),
    "sweep_groups": (15, 0, 0),
    "sweep_groups_tiny": (15, 0, 0),
    "sweep_volumes": (9, 2, 0),
    "sweep_volumes_tiny": (9, 2, 0),
    "sweep_comparison": (18, 3, 0),
    "sweep_comparison_tiny": (15, 5, 0),
    "sweep_early_tiny": (27, 9, 0),
    "sweep_negative_tiny": (12, 4, 0),
    "sweep_margin": (18, 1, 0),
}
#: presets of one size: guidance of the tiny weights, generators of few steps from nothing, short trainings against
#: whole ones, settings of the recognizer
ALONE = {"sweep_early_tiny", "sweep_negative_tiny", "sweep_training_m_fresh_tiny", "sweep_margin"}


def test_every_experiment_has_both_sizes_and_stands_in_the_list_of_commands():
    names = {path.stem for path in FILES}
    assert names == set(COUNTS)
    assert {n for n in names if not n.endswith("_tiny")} - ALONE == {
        n.removesuffix("_tiny") for n in names if n.endswith("_tiny")
    } - {n.removesuffix("_tiny") for n in ALONE}
    page = (ROOT / "docs/results/README.md").read_text()
    commands = [f"python jobs/sweep.py --config jobs/configs/{n}.yaml --output runs/{n}\n" for n in sorted(names)]
    assert [command for command in commands if command not in page] == []


def preset(path, **over):
    section = read_recipe(str(path), cli._sections())["sweep"]
    config = resolved(build(SweepConfig, {"output": "/runs/s", **merge(section, over)}))
    planner = Planner(config)
    return planner, trials(config, planner)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_preset_plans(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, found = preset(path)
    made = {name: len(places) for name, places in uses(found).items()}
    assert (len(found), made.get("generate", 0), made.get("train_generator", 0)) == COUNTS[path.stem]
    assert "train_autoencoder" not in made  # generators on equal terms: pixels, or the latents that ship
    assert made.get("generate_more", 1) == made.get("pool_more", 1) == 1


def test_groups_are_parts_of_one_pool_and_volumes_are_two_datasets(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, found = preset(ROOT / "jobs/configs/sweep_groups_tiny.yaml")
    assert {name: len(places) for name, places in uses(found).items()} == {
        "pool": 1, "embed": 1, "train_recognizer": 15, "evaluate": 15,
    }  # fmt: skip
    stages = found[1].whole.stages
    group = stages["train_recognizer"].similarity_group
    assert (group.group, group.identities) == (1, stages["embed"].output) and stages["embed"].similarities
    assert stages["train_recognizer"].images == [stages["pool"].output]
    _, found = preset(ROOT / "jobs/configs/sweep_volumes_tiny.yaml")
    images = [t.whole.stages["train_recognizer"].images for t in found[:3]]
    stages = found[2].whole.stages
    assert images[2] == [stages["generate"].output, stages["generate_more"].output]
    assert images[1] == images[2][:1] and len(images[0]) == 1 and images[0] != images[1]
    assert stages["generate_more"].identities == stages["embed_more"].output
    people = {n: set(range(s.first_seed, s.first_seed + s.num_identities)) for n, s in stages.items() if "pool" in n}
    assert not people["pool"] & people["pool_more"]


def test_the_weights_are_the_users_choice(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = ROOT / "jobs/configs/sweep_m_tiny.yaml"
    planner, found = preset(path, recipe={"generate": {"cemiface": {"weights": "/my/weights"}}})
    assert planner.missing(found[0].whole.stages) == ["generate.cemiface.weights /my/weights"]


def test_tiny_presets_bring_all_that_they_need_and_score_what_they_draw(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in FILES:
        if path.stem.endswith("_tiny"):
            planner, found = preset(path)
            assert [planner.missing(t.whole.stages) for t in found] == [[]] * len(found)
            drawn = [t.whole.stages.get("generate") for t in found]
            assert all(s.scoring.weights or s.generator == "heads" for s in drawn if s is not None), path.stem


def test_presets_share_what_they_have_in_common(monkeypatch):
    monkeypatch.chdir(ROOT)
    made = {
        name: {t.whole.stages["generate"].output for t in preset(ROOT / f"jobs/configs/{name}.yaml")[1]}
        for name in ("sweep_m_tiny", "sweep_mixed_m_tiny", "sweep_centres_tiny", "sweep_packed_m_tiny",
                     "sweep_ids_images_tiny", "sweep_identities_tiny", "sweep_comparison_tiny")
    }  # fmt: skip
    curve = made.pop("sweep_m_tiny")
    assert {name: len(curve & places) for name, places in made.items()} == {
        "sweep_mixed_m_tiny": 2, "sweep_centres_tiny": 3, "sweep_packed_m_tiny": 4, "sweep_ids_images_tiny": 1,
        "sweep_identities_tiny": 1, "sweep_comparison_tiny": 1,
    }  # fmt: skip


def test_short_trainings_are_all_that_the_early_ranks_add_to_the_curve(monkeypatch):
    monkeypatch.chdir(ROOT)
    curve, early = (uses(preset(ROOT / f"jobs/configs/{n}.yaml")[1]) for n in ("sweep_m_tiny", "sweep_early_tiny"))
    added = {name: len(set(places) - set(curve[name])) for name, places in early.items()}
    assert added == {"pool": 0, "embed": 0, "generate": 0, "train_recognizer": 27, "evaluate": 27}


def test_full_scale_trains_its_generator_before_it_draws(monkeypatch):
    monkeypatch.chdir(ROOT)
    planner, found = preset(ROOT / "jobs/configs/sweep_lambda.yaml")
    stages = found[0].whole.stages
    assert list(stages) == ["train_generator", "generate", "train_recognizer", "evaluate"]
    assert stages["generate"].cemiface.weights == stages["train_generator"].output
    assert planner.missing(stages) == [
        "train_generator.images.0 runs/casia", "train_generator.embedder runs/arcface",
        "generate.identities runs/inquiries", "generate.scoring.weights runs/arcface",
    ]  # fmt: skip


def test_the_comparison_has_a_row_for_every_system(monkeypatch):
    """Equal people, pictures and training for all; each draws with what its system has."""
    monkeypatch.chdir(ROOT)
    _, found = preset(ROOT / "jobs/configs/comparison_tiny.yaml")
    stages = [t.whole.stages for t in found if t.seed == 0]
    drawn = [s["generate"] for s in stages]
    generators = ["heads", "heads", "cemiface", "idiffface", "dcface", "cemiface", "idiffface", "cemiface"]
    assert [g.generator for g in drawn] == generators
    assert {(g.images_per_identity, g.image_size) for g in drawn} == {(10, 64)}
    people = [
        g.num_identities or g.contexts.mixup or s[("pack" if "pack" in s else "pool")].num_identities
        for g, s in zip(drawn, stages, strict=True)
    ]
    assert people == [200] * 8
    trained = [{**s["train_recognizer"].model_dump(), "images": None, "output": None} for s in stages]
    assert all(t == trained[0] for t in trained)
    assert drawn[1].identities is None and drawn[1].domain == "heads-digi"
    assert drawn[7].variation.similarity.fixed == 0.5 and stages[7]["pack"].subspace == 0.9
    place = "runs/comparison_tiny/"
    brought = {uri for g in drawn for uri in input_uris(g).values() if uri.startswith(place)}
    assert sorted(brought) == [place + name for name in ("dcface", "generator_images", "idiffface")]
