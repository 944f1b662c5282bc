"""The full-scale HyperFace recipe is a valid pipeline, wired from gallery to images, and says what the paper says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import graph
from PIL import Image

from synface import cli
from synface.flows.config import PipelineConfig
from synface.flows.pipeline import run
from synface.flows.wiring import steps
from synface.generate.generators.arc2face import settings
from synface.models.arc2face.model import Arc2faceSettings
from synface.models.checkpoints import convert
from synface.settings import build, merge, read_recipe
from synface.store import schemas, tables

RECIPE = Path(__file__).parents[2] / "jobs" / "configs" / "hyperface_10k.yaml"


def sections():
    return cli._recipe_as_pipeline(read_recipe(str(RECIPE), cli._sections()))


def test_the_recipe_goes_from_gallery_to_images():
    found = steps(build(PipelineConfig, {**sections(), "output": "/runs/h"}))
    assert list(found) == ["embed", "pack", "generate"]
    embed, pack, generate = found.values()
    assert pack.gallery == embed.output and generate.identities == pack.output
    assert (pack.num_identities, pack.alpha, pack.solver) == (10_000, 0.5, "lse")
    assert (generate.generator, generate.images_per_identity, generate.variation.beta) == ("arc2face", 64, 0.01)
    # mean cosine of the perturbed to the reference, which the recipe states
    cosine = 1 / (1 + generate.variation.beta**2 * 511) ** 0.5
    assert cosine == pytest.approx(0.975, abs=5e-4)
    asked = settings(generate)
    assert asked == Arc2faceSettings(25, 3.0, False, "float16", micro_batch=8)
    # the recognizer's recipe takes what this one makes
    trained = read_recipe(str(RECIPE.with_name("train_hyperface.yaml")), cli._sections())["train_recognizer"]
    assert trained["image_size"] == generate.image_size == 112


@pytest.mark.slow
@pytest.mark.ray
def test_the_recipe_runs_on_small_weights(miniature, ray_cluster, tmp_path):
    """A folder of pictures, an ONNX recognizer, Arc2Face of random weights: from the gallery to perturbed pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    (tmp_path / "gallery").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "gallery" / f"{i}.png")
    own = tmp_path / "weights"
    shutil.copytree(miniature["weights"], own)
    (own / "arcface.onnx").write_bytes(graph(dim=512))
    recognizer = str(tmp_path / "arcface")
    convert(str(own / "arcface.onnx"), "onnx", "onnx", licence="none", training_data="none", output=recognizer)
    small = {
        "embed": {"images": str(tmp_path / "gallery"), "weights": recognizer, "numerics": {"device": "cpu"}},
        "pack": {"num_identities": 5, "passes": 5},
        "generate": {
            "images_per_identity": 2, "image_size": 32, "format": "png", "numerics": {"device": "cpu"},
            "arc2face": {"weights": str(own), "base": miniature["base"], "steps": 2, "dtype": "float32"},
            "how": {"gpus_per_actor": 0, "max_actors": 1},
        },
        "output": str(tmp_path / "run"),
    }  # fmt: skip
    result = run(build(PipelineConfig, merge(sections(), small)))
    assert result["sections"]["generate"]["images"] == 10 and result["sections"]["generate"]["failed"] == 0
    packed = tables.read_identities(str(tmp_path / "run" / "identities"))
    assert schemas.embeddings(packed).shape == (5, 512)
    rows = [row for table in tables.iter_images(str(tmp_path / "run" / "images")) for row in table.to_pylist()]
    cosines = [row["attributes"]["embedding_cosine"] for row in rows]
    assert np.mean(cosines) == pytest.approx(0.975, abs=0.01)
