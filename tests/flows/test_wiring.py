from pathlib import Path

import pytest
import torch

from synface.core.errors import InputError
from synface.flows.config import PipelineConfig
from synface.flows.wiring import STEPS, steps
from synface.models.denoisers import generator as generators
from synface.models.denoisers.config import DENOISERS
from synface.settings import build, read_recipe
from synface.train.generator_config import TrainGeneratorConfig

ROOT = Path(__file__).parents[2]
#: a recipe whose generator is compared with another's
PAPER = ("cemiface_tiny_paper", "cemiface_tiny_more")

FULL = {
    "output": "/runs/x",
    "seed": 5,
    "recipe": "r",
    "pool": {"generator": "heads", "num_identities": 10, "images_per_identity": 1, "image_size": 64},
    "embed": {"weights": "heads-fr-tiny"},
    "pack": {"solver": "subset", "num_identities": 4},
    "generate": {"generator": "heads", "images_per_identity": 2, "image_size": 64, "seed": 9},
    "train_recognizer": {"backbone": "tiny", "image_size": 64},
    "evaluate": {"benchmarks": ["heads-v1"]},
    "report": {},
}


def wired(**changes):
    data = {k: v for k, v in {**FULL, **changes}.items() if v is not None}
    return steps(build(PipelineConfig, data))


def test_sections_are_wired_in_order():
    stages = wired()
    assert list(stages) == ["pool", "embed", "pack", "generate", "train_recognizer", "evaluate", "report"]
    assert stages["embed"].images == stages["pool"].output == "/runs/x/pool_images"
    assert stages["pack"].pool == stages["embed"].output
    assert stages["generate"].identities == stages["pack"].output
    assert stages["train_recognizer"].images == [stages["generate"].output]
    assert stages["evaluate"].weights == stages["train_recognizer"].output
    assert stages["report"].evaluation == stages["evaluate"].output


def test_the_seed_reaches_every_section_that_sets_none():
    stages = wired()
    assert stages["pool"].seed == 5 and stages["generate"].seed == 9


def test_without_packing_the_pool_is_rendered():
    assert wired(pack=None)["generate"].identities == "/runs/x/pool"


def test_a_fault_in_the_last_section_is_found_before_work():
    with pytest.raises(InputError, match=r"(?s)section evaluate.*did you mean 'benchmarks'"):
        wired(evaluate={"benchmark": ["heads-v1"]})


def test_no_section_at_all():
    with pytest.raises(InputError, match="no section given"):
        steps(build(PipelineConfig, {"output": "/x"}))


def test_a_generator_is_trained_on_its_own_people_and_calibrated_on_the_pool():
    recipe = read_recipe(str(ROOT / "jobs/configs/cemiface_tiny.yaml"), (*STEPS, "pool"))
    sections = {k: v for k, v in recipe.items() if k in STEPS}
    stages = steps(build(PipelineConfig, {"output": "/runs/c", **sections}))
    assert list(stages) == ["pool", "embed", "generate", "train_autoencoder", "train_generator", "calibrate"]
    assert stages["generate"].identities is None and stages["generate"].num_identities == 3000
    assert stages["train_autoencoder"].images == stages["train_generator"].images == ["/runs/c/images"]
    assert stages["train_generator"].autoencoder == "/runs/c/autoencoder"
    assert stages["calibrate"].weights == "/runs/c/generator" and stages["calibrate"].identities == "/runs/c/pool"
    # nobody who is trained on is measured on
    assert stages["pool"].heads.split == "val" != stages["generate"].heads.split
    wanted = stages["calibrate"].num_identities + stages["calibrate"].test_identities
    assert stages["pool"].num_identities >= wanted


LOOP = {"weights": "w", "variation": {"m": 0.7}}
DRAWN = {"generator": "cemiface", "images_per_identity": 2, "image_size": 64, "variation": {"m": 0.7}}


def test_the_closed_loop_stands_between_packing_and_images():
    stages = wired(closed_loop=LOOP, generate={**DRAWN, "cemiface": {"weights": "w"}})
    assert list(stages)[2:5] == ["pack", "closed_loop", "generate"]
    assert stages["closed_loop"].identities == "/runs/x/identities" and stages["closed_loop"].weights == "w"
    assert stages["generate"].identities == stages["closed_loop"].output == "/runs/x/apart"


def test_a_loop_waits_for_the_generator_that_the_recipe_trains():
    trained = {
        "generator_images": {**FULL["pool"], "first_seed": 100},
        "train_autoencoder": {},
        "train_generator": {},
        "calibrate": {},
        "closed_loop": {k: v for k, v in LOOP.items() if k != "weights"},
        "generate": DRAWN,
    }
    stages = wired(**trained)
    assert list(stages)[3:] == [
        "generator_images", "train_autoencoder", "train_generator", "calibrate", "closed_loop", "generate",
        "train_recognizer", "evaluate", "report",
    ]  # fmt: skip
    assert stages["closed_loop"].weights == stages["generate"].cemiface.weights == "/runs/x/calibrated"


def test_a_generator_with_images_from_outside_is_trained_before_it_draws():
    stages = wired(train_generator={"images": ["/data/real"]}, generate=DRAWN)
    assert list(stages)[-5:] == ["train_generator", "generate", "train_recognizer", "evaluate", "report"]
    assert stages["train_generator"].images == ["/data/real"]
    assert stages["generate"].cemiface.weights == stages["train_generator"].output


def test_a_second_dataset_of_other_people_is_trained_on_too():
    more = {
        "generator_images": {**FULL["pool"], "first_seed": 100},
        "train_autoencoder": {},
        "train_generator": {},
        "generate": DRAWN,
        "pool_more": {**FULL["pool"], "first_seed": 50},
        "embed_more": FULL["embed"],
        "generate_more": {**DRAWN, "images_per_identity": 1},
    }
    stages = wired(**more)
    assert list(stages)[2:4] == ["pool_more", "embed_more"]
    assert list(stages)[-5:-2] == ["generate", "generate_more", "train_recognizer"]
    assert stages["generate_more"].identities == stages["embed_more"].output == "/runs/x/pool_more"
    assert stages["generate_more"].cemiface.weights == stages["generate"].cemiface.weights == "/runs/x/generator"
    assert stages["train_recognizer"].images == ["/runs/x/images", "/runs/x/images_more"]


def test_groups_by_similarity_are_parts_of_the_embedded_pool():
    training = {**FULL["train_recognizer"], "similarity_group": {"group": 2}}
    stages = wired(pack=None, generate=None, report=None, train_recognizer=training)
    assert stages["train_recognizer"].images == ["/runs/x/pool_images"]
    assert stages["train_recognizer"].similarity_group.identities == "/runs/x/pool"


def test_the_papers_recipe_is_a_paper_generator():
    recipe = read_recipe(str(ROOT / "jobs/configs/cemiface_tiny_paper.yaml"), (*STEPS, "pool"))
    config = build(TrainGeneratorConfig, {"images": ["i"], "output": "o", **recipe["train_generator"]})
    assert config.denoiser == "cemiface-tiny-paper" and config.m_range == (-1, 1) and config.mode is None


def test_the_papers_second_part_goes_on_from_the_first():
    first, second = (
        read_recipe(str(ROOT / f"jobs/configs/cemiface_tiny_paper{part}.yaml"), (*STEPS, "pool"))
        for part in ("", "_more")
    )
    after = steps(build(PipelineConfig, {"output": "/r", **{k: v for k, v in second.items() if k in STEPS}}))
    assert [s for s in after if s not in ("pool", "embed")] == ["generate", "train_generator", "calibrate"]
    assert second["generate"] == first["generate"]
    assert after["train_generator"].start.endswith("runs/cemiface_tiny_paper/generator")
    names = {*first["train_generator"], *second["train_generator"]} - {"how"}
    differ = {k for k in names if first["train_generator"].get(k) != second["train_generator"].get(k)}
    assert differ == {"autoencoder", "start", "steps", "seed", "weight"}


def test_the_papers_generator_learns_from_the_same_people():
    """Equal data and latents as CemiFace's, so that the generators may be compared."""
    recipe, reference = (read_recipe(str(ROOT / f"jobs/configs/{n}.yaml"), (*STEPS, "pool")) for n in PAPER)
    stages = steps(build(PipelineConfig, {"output": "/r", **{k: v for k, v in recipe.items() if k in STEPS}}))
    assert [s for s in stages if s not in ("pool", "embed", "calibrate")] == ["generate", "train_generator"]
    assert recipe["generate"] == reference["generate"]
    training = stages["train_generator"]
    assert (training.images, training.autoencoder) == (["/r/images"], "cemiface-tiny")
    assert DENOISERS[training.denoiser].mode == "paper"


@pytest.mark.parametrize(("name", "mode"), [("idiffface_tiny", "identity"), ("dcface_tiny", "style")])
def test_the_other_tiny_generators_learn_from_some_of_the_same_people(name, mode):
    """In the same latents, from the weights of one that has seen all of them."""
    recipe, reference = (read_recipe(str(ROOT / f"jobs/configs/{n}.yaml"), STEPS) for n in (name, PAPER[1]))
    training = recipe["train_generator"]
    build(TrainGeneratorConfig, {**training, "images": ["/r/images"], "output": "/r"})
    assert {k for k, v in recipe["generate"].items() if reference["generate"][k] != v} == {"num_identities"}
    assert recipe["generate"]["num_identities"] < reference["generate"]["num_identities"]
    assert (training["start"], training.get("autoencoder")) == ("cemiface-tiny-paper", None)
    assert DENOISERS[training["denoiser"]].mode == mode
    latents = [generators.autoencoder_from_pretrained(n)[0].state_dict() for n in (training["start"], "cemiface-tiny")]
    assert all(torch.equal(latents[0][k], latents[1][k]) for k in latents[1])


@pytest.mark.parametrize("name", ["idiffface", "dcface"])
def test_a_trained_generator_draws_whatever_it_is(name):
    trained = {
        "generator_images": {**FULL["pool"], "first_seed": 100},
        "train_autoencoder": {},
        "train_generator": {"denoiser": f"{name}-tiny"},
        "generate": {"generator": name, "images_per_identity": 2, "image_size": 64},
    }
    stages = wired(**trained)
    assert getattr(stages["generate"], name).weights == "/runs/x/generator"
    assert stages["generate"].cemiface.weights is None
    assert stages["generate"].dcface.style_images == ("/runs/x/generator_images" if name == "dcface" else None)


def test_balance_knows_the_pools_people():
    asked = {**FULL, "generate": {**FULL["generate"], "balance": {"by": ["sex"]}}}
    balance = wired(**asked)["generate"].balance
    assert balance is not None and balance.by == ("sex",)
    assert (balance.people, balance.labels) == ("/runs/x/pool", "/runs/x/pool_images")
    asked["generate"]["balance"] = {}
    assert wired(**asked)["generate"].balance.by == ("sex", "ancestry")
    assert wired(**FULL)["generate"].balance is None
