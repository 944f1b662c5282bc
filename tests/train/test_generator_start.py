"""Training that goes on from a generator."""

import pytest
import torch

from synface.core.errors import InputError
from synface.models import denoisers, weights
from synface.models.denoisers import generator as generators
from synface.train import average_loop, generator_run, generator_setup, generator_start
from synface.train.average_loop import Place
from tests.train.generator_helpers import SMALL, config_of, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(toy_images, networks, tmp_path_factory):
    """A weights folder after two steps, and the denoiser in it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("start")
    config = config_of(toy_images, networks, steps=2)
    average = train(config, folder / "training").average
    found = generator_setup.load_networks(config, "cpu")
    save(folder / "weights", average, found, found.embedder.sha256)
    save(folder / "other", average, found, "0" * 64)
    return folder, average


def save(place, denoiser, found, embedder_sha256):
    module = generators.Generator(denoiser, found.autoencoder)
    provenance = generators.Provenance("fr", embedder_sha256, "Apache-2.0", "toys")
    stated = generators.weights_config(module, "cemiface-tiny", provenance, "float32")
    weights.save_pretrained(str(place), module, stated)


def begun(toy_images, networks, folder, **changes):
    return config_of(toy_images, {**networks, "autoencoder": None}, start=str(folder), **changes)


def test_it_goes_on_from_the_averaged_weights(toy_images, networks, trained, tmp_path):
    folder, average = trained
    config = begun(toy_images, networks, folder / "weights", output=str(tmp_path / "out"))
    generator_run.plan(config)
    found = generator_setup.load_networks(config, "cpu")
    state = average_loop.build_state(config, lambda: generator_setup.make_trainee(config, found), Place())
    for own in (state.model.network, state.average):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), average.parameters(), strict=True))
    own = generator_setup.load_networks(config_of(toy_images, networks), "cpu").autoencoder
    assert all(torch.equal(a, b) for a, b in zip(found.autoencoder.parameters(), own.parameters(), strict=True))
    result = generator_run.run(config)
    assert (result["steps"], result["cached"]) == (4, False)
    assert generators.from_pretrained(config.output)[0].autoencoder is not None
    assert generator_run.run(config)["cached"]
    stated = weights.read_config(str(folder / "weights"), generators.GENERATOR_KIND)
    assert generator_start.sha256(str(folder / "weights")) == stated.sha256


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("other", {}, "start .*other: was trained for embeddings of fr"),
        ("weights", {"denoiser": "idiffface-tiny"}, "'idiffface-tiny' .*: ridge = True, asked False"),
        ("weights", {"architecture": {}}, r"is another network .*: .*widths = \(16, 32\), asked \(64, 128, 192\)"),
        ("weights", {"autoencoder": "own"}, "brings its own; leave one of them out"),
        ("nowhere", {}, "nothing stands there|no such file|not found"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(toy_images, networks, trained, place, change, message):
    change = {k: networks["autoencoder"] if v == "own" else v for k, v in change.items()}
    config = begun(toy_images, networks, trained[0] / place, **change)
    with pytest.raises(InputError, match=message):
        generator_run.plan(config)


def test_it_may_learn_poses_now(toy_images, networks, trained, tmp_path):
    """The posed network draws what the plain one does, until it has learned otherwise."""
    folder, average = trained
    posed = {**SMALL, "pose": ["yaw", "pitch"]}
    config = begun(toy_images, networks, folder / "weights", architecture=posed, output=str(tmp_path / "out"))
    generator_run.plan(config)
    network = generator_setup.make_trainee(config, generator_setup.load_networks(config, "cpu")).network
    x, t, m = torch.randn(2, *average.shape), torch.tensor([100, 900]), torch.tensor([0.2, 0.9])
    e = torch.nn.functional.normalize(torch.randn(2, average.config.embedding_dim), dim=1)
    with torch.no_grad():
        asked = network.condition(e, m, pose_na=torch.tensor([[30.0, 5.0], [-10.0, 0.0]]))
        assert torch.equal(network(x, t, asked), average(x, t, average.condition(e, m)))
    assert generator_run.run(config)["steps"] == config.steps
    again = begun(toy_images, networks, config.output, output=str(tmp_path / "again"))
    with pytest.raises(InputError, match=r"is another network .*: pose = \('yaw', 'pitch'\), asked \(\)"):
        generator_run.plan(again)


def test_another_network_may_work_in_a_generators_latents(toy_images, networks, trained, tmp_path):
    folder = str(trained[0] / "weights")
    config = config_of(toy_images, {**networks, "autoencoder": folder}, output=str(tmp_path / "out"))
    taken = generator_setup.load_networks(config, "cpu").autoencoder
    own = generator_setup.load_networks(config_of(toy_images, networks), "cpu").autoencoder
    assert all(torch.equal(a, b) for a, b in zip(taken.parameters(), own.parameters(), strict=True))
    assert generator_run.run(config)["steps"] == config.steps
    assert generator_run.run(config)["cached"]


@pytest.mark.parametrize(
    ("denoiser", "shared"), [("dcface-tiny", {"resnets", "attentions"}), ("idiffface-tiny", {"resnets"})]
)
def test_other_conditions_start_from_the_same_trunk(toy_images, networks, tmp_path, denoiser, shared):
    """DCFace and IDiff-Face from CemiFace by attention: the U-Net's tensors that both have, and nothing else."""
    attending = {**SMALL, "attention": [False, True]}
    config = config_of(toy_images, networks, denoiser="cemiface-tiny-paper", architecture=attending, steps=2)
    average = train(config, tmp_path / "first").average
    found = generator_setup.load_networks(config, "cpu")
    save(tmp_path / "weights", average, found, found.embedder.sha256)
    config = begun(
        toy_images, networks, tmp_path / "weights", denoiser=denoiser, architecture=attending,
        output=str(tmp_path / "out"), licence="CC0-1.0",
    )  # fmt: skip
    torch.manual_seed(5)
    fresh = denoisers.build(generator_setup.load_networks(config, "cpu").description).state_dict()
    torch.manual_seed(5)
    network = generator_setup.make_trainee(config, generator_setup.load_networks(config, "cpu")).network
    old, new = average.state_dict(), network.state_dict()
    same = {name for name in new if name in old and torch.equal(new[name], old[name])}
    untouched = {name for name in new if torch.equal(new[name], fresh[name])}
    assert same | untouched == set(new)
    assert {
        kind for kind in ("resnets", "attentions") if any(f".{kind}.0." in name for name in same - untouched)
    } == shared
    assert all(name in untouched for name in new if name.startswith("conditioner."))
    assert generator_run.run(config)["steps"] == config.steps
    before = weights.read_config(str(tmp_path / "weights"), generators.GENERATOR_KIND).sha256[:12]
    stated = weights.read_config(config.output, generators.GENERATOR_KIND)
    assert stated.training_data.endswith(f"before that, weights {before} (Apache-2.0): toys")
