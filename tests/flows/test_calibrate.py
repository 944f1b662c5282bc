"""Calibration: shapes and sums by hand, and the whole flow on small random weights."""

import json

import numpy as np
import pytest

from synface.core import dial
from synface.core.errors import InputError
from synface.flows import calibrate
from synface.flows.calibrate_config import CalibrateConfig
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.settings import build
from synface.store import artifact, schemas, tables
from tests.flows.conftest import people_table, unit


def config_of(small_cemiface, output="unused", **fields) -> CalibrateConfig:
    base = {
        "num_identities": 3, "test_identities": 2, "samples": 4, "m_range": [-0.5, 1], "m_count": 4,
        "output": str(output),
        "sampler": {"steps": 2}, "numerics": {"micro_batch": 8}, "how": {"max_actors": 1},
    }  # fmt: skip
    return build(CalibrateConfig, base | small_cemiface | fields)


def test_samples_are_compared_with_their_own_inquiry():
    table = people_table(unit(3, 5), "ab")
    x = unit(3 * 2 * 4, 5, 1)
    found = {(f"p{i}", k): x[i * 8 + k] for i in range(3) for k in range(8)}
    seen = calibrate.compare(table, found, asked=2, samples=4)
    inquiry = schemas.embeddings(table)
    for i in range(3):
        for g in range(2):
            for s in range(4):
                cos = inquiry @ found[f"p{i}", s * 2 + g]
                assert seen.realised_igk[i, g, s] == pytest.approx(float(cos[i]), abs=1e-6)
                assert seen.mislabelled_igk[i, g, s] == (cos.argmax() != i)
    line = seen.curve(np.array([0.0, 1.0]))[1]
    own = seen.realised_igk[:, 1]
    assert line["asked"] == 1 and line["realised"] == pytest.approx(own.mean(), abs=1e-6)
    assert line["std_of_samples"] == pytest.approx(np.sqrt(own.var(1, ddof=1).mean()), abs=1e-6)
    assert line["mislabelled"] == pytest.approx(seen.mislabelled_igk[:, 1].mean(), abs=1e-6)


def known_world(config, name, people, weights_uri, variation, asked_g):
    """The paper's bias: asked m realises 0.285 + 0.4 m, every second sample 0.01 less; sample 0 is mislabelled."""
    m_g = asked_g
    if "similarity" in variation:
        m_g = dial.ask(dial.Dial.from_dict(weights.read_config(weights_uri, "generator").details["dial"]), asked_g).m_n
    realised = np.broadcast_to((0.285 + 0.4 * m_g)[None, :, None], (people.num_rows, len(m_g), config.samples))
    wrong = np.zeros(realised.shape, bool)
    wrong[:, :, 0] = True
    return calibrate.Measured(realised + 0.01 * (-1.0) ** np.arange(config.samples), wrong)


def test_a_known_dial_is_fitted_stored_and_tested(small_cemiface, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "_measure", known_world)
    config = config_of(small_cemiface, tmp_path / "out", targets=[0.1, 0.2, 0.45, 0.6, 0.9])
    result = calibrate.run(config)
    assert result["dial_slope"] == pytest.approx(0.4) and result["reach"] == pytest.approx([0.085, 0.685])
    assert result["unreachable_targets"] == [0.9]
    assert result["target_mean_absolute"] == pytest.approx(0, abs=1e-6) and result["target_monotone_share"] == 1
    assert (
        result["target_sample_std"] == pytest.approx(0.01 * np.sqrt(4 / 3), abs=1e-6) and result["mislabelled"] == 0.25
    )
    _, stated = generators.from_pretrained(config.output)
    assert stated.sha256 == weights.read_config(small_cemiface["weights"], "generator").sha256
    assert stated.details["dial"]["m"] == [-0.5, 0.0, 0.5, 1.0]
    np.testing.assert_allclose(stated.details["dial"]["realised"], [0.085, 0.285, 0.485, 0.685], atol=1e-9)
    assert stated.details["dial"]["sampler"]["steps"] == 2 == stated.details["sampler"]["steps"]
    table = json.loads((tmp_path / "out" / calibrate.FILE).read_text())
    assert [line["asked"] for line in table["targets"]] == [0.1, 0.2, 0.45, 0.6]
    assert sorted(f.path for f in artifact.require(config.output, "generator").files) == [
        "calibration.json", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert not (tmp_path / "out" / calibrate.WORK / "weights" / "model.safetensors").exists()
    monkeypatch.undo()
    assert calibrate.run(config)["cached"]
    again = {"weights": config.output, "scorer": small_cemiface["scorer"], "identities": small_cemiface["identities"]}
    assert calibrate.plan(config_of(again, sampler={}))["sampler"]["steps"] == 2  # the weights' own from now on


def test_a_dead_dial_is_told(small_cemiface, tmp_path, monkeypatch):
    def dead(config, name, people, *rest):
        shape = (people.num_rows, config.m_count, config.samples)
        return calibrate.Measured(np.full(shape, 0.66), np.zeros(shape, bool))

    monkeypatch.setattr(calibrate, "_measure", dead)
    with pytest.raises(InputError, match=r"the dial reaches \[0.660, 0.660\], fewer than two"):
        calibrate.run(config_of(small_cemiface, tmp_path / "out"))
    assert artifact.load_manifest(str(tmp_path / "out")) is None


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_measured_is_what_the_generator_draws(ray_cluster, small_cemiface, tmp_path):
    config = config_of(small_cemiface, tmp_path / "out")
    people = tables.read_identities(small_cemiface["identities"]).slice(0, 2)
    grid = np.array([0.0, 0.5, 1.0])
    variation = {"m": {"schedule": grid.tolist()}, "share_noise": True}
    seen = calibrate._measure(config, "grid", people, small_cemiface["weights"], variation, grid)
    module, _ = generators.from_pretrained(small_cemiface["weights"])
    x = schemas.embeddings(people)
    settings = sampling.SamplerSettings(steps=2, micro_batch=8)
    for i, g, k in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        z = sampling.sample(module.denoiser, x[i : i + 1], grid[g : g + 1], 0, [(f"p{i}", k)], settings)
        found = Embedder.from_pretrained(small_cemiface["scorer"]).embed(sampling.to_images(z, module.autoencoder, 8))
        assert seen.realised_igk[i, g, k] == pytest.approx(float(found[0] @ x[i]), abs=2e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_identities": 9}, "need 11"),
        ({"inquiries_below": -0.5}, "2 .after the filter"),
        ({"scorer": "heads-fr-tiny"}, "but the generator understands 'fr'"),
        ({"targets": [0.5, 0.1]}, "ascending"),
        ({"m_range": [0.5, 0.5]}, "low before high"),
        ({"sampler": {"solver": "ddim", "steps": 3}}, "must divide 1000"),
    ],
)
def test_bad_input_is_refused_before_any_work(small_cemiface, tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        calibrate.run(config_of(small_cemiface, tmp_path / "o", **fields))
    assert not (tmp_path / "o").exists()


def test_the_plan_counts_images(small_cemiface):
    found = calibrate.plan(config_of(small_cemiface))
    assert found["images"] == 3 * 4 * 4 + 2 * 6 * 4 and found["sampler"]["steps"] == 2
    grid, targets = found["estimate"]["grid"], found["estimate"]["targets"]
    assert grid["generate"]["amount"] + targets["generate"]["amount"] == found["images"]
    assert grid["embed"]["amount"] == grid["generate"]["amount"]
