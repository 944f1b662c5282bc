import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from synface.cli import main
from synface.core import rng, sphere
from synface.core.errors import InputError
from synface.flows import realised
from synface.models import recognizers, weights
from synface.pack import bounds
from synface.store.schemas import embeddings, identities_table
from synface.store.tables import read_identities
from tests.train.conftest import write_toy

SIZE = 32


def unit(n: int, d: int, seed: int) -> np.ndarray:
    return sphere.uniform(rng.generator(seed, "test"), n, d)


def test_measured_equals_the_naive():
    x_nd = unit(30, 8, 0)
    cos_nn = x_nd @ x_nd.T - 3 * np.eye(30)
    found = realised.measured(x_nd)
    assert found["max_cosine"] == pytest.approx(cos_nn.max(), abs=1e-6)
    assert found["mean_nearest_cosine"] == pytest.approx(cos_nn.max(1).mean(), abs=1e-6)
    assert found["gap"] == found["max_cosine"] - bounds.best(30, 8)
    json.dumps(found, allow_nan=False)


def test_against_what_was_asked():
    asked_md = unit(20, 16, 1)
    ids = [f"i{k}" for k in range(20)]
    order = [3, 5, 9]
    same = realised.against_asked([ids[k] for k in order], asked_md[order], ids, asked_md)
    assert same["cosine_to_asked_least"] == pytest.approx(1.0) and same["nearer_to_another"] == 0.0
    wrong = asked_md[[3, 5, 10]]  # the third came out as another one
    found = realised.against_asked([ids[k] for k in order], wrong, ids, asked_md)
    assert found["nearer_to_another"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="1 of the images' identities are not among them, first 'x'"):
        realised.against_asked(["x"], wrong[:1], ids, asked_md)


@pytest.mark.ray
def test_command(ray_cluster, tmp_path, capsys):
    torch.manual_seed(4)
    folder = str(tmp_path / "weights")
    module = recognizers.build("tiny", 16, SIZE)
    module(torch.rand(32, 3, SIZE, SIZE) * 2 - 1)
    config = weights.WeightsConfig("tiny", 16, SIZE, licence="none", training_data="none: random numbers")
    weights.save_pretrained(folder, module.eval(), config)
    images = write_toy(str(tmp_path / "images"), identities=5, per_identity=4, shard=6)
    asked = identities_table([f"toy-{i:03d}" for i in range(5)], unit(5, 16, 0), ["x"] * 5, [0] * 5)
    pq.write_table(asked, tmp_path / "asked.parquet")
    output = str(tmp_path / "realised")
    command = ["pack", "--verify-realised", images, "--weights", folder, "--output", output]
    command += ["--identities", str(tmp_path / "asked.parquet")]
    assert main(command) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    x_nd = embeddings(read_identities(f"{output}/embedded"))
    assert line["max_cosine"] == pytest.approx(sphere.nearest_cosine(x_nd)[0].max(), abs=1e-6)
    assert line["num_identities"] == 5 and line["images"] == 20 and not line["cached"]
    assert line["max_cosine_asked"] == pytest.approx(sphere.nearest_cosine(embeddings(asked))[0].max(), abs=1e-6)
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["cached"] and again["max_cosine"] == line["max_cosine"]
    other = asked.replace_schema_metadata({"embedder_sha256": "0" * 64})
    pq.write_table(other, tmp_path / "asked.parquet")
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "(weights 000000000000), but the judge is" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()
    assert main(["pack", "--verify-realised", str(tmp_path / "nothing"), "--output", output]) == 2
