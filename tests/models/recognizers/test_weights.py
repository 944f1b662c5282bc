import dataclasses
import json
from pathlib import Path

import pytest
import torch

from synface.core.errors import InputError
from synface.models import recognizers, weights
from synface.models.weights import WeightsConfig

CONFIG = WeightsConfig("tiny", 32, 64, licence="Apache-2.0", training_data="none: random numbers")


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(1)
    module = recognizers.build("tiny", 32, 64)
    module(torch.randn(8, 3, 64, 64))  # running statistics that are not the defaults
    return module.eval()


def edit(folder: Path, **changes):
    path = folder / weights.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip_is_exact(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    loaded, config = weights.from_pretrained(str(tmp_path))
    assert dataclasses.replace(config, sha256="") == CONFIG
    assert not loaded.training
    for key, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_half_precision_storage_rounds_once(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, dataclasses.replace(CONFIG, dtype="float16"))
    loaded, _ = weights.from_pretrained(str(tmp_path))
    full = sum(len(b) for b in weights.save_files(module, CONFIG).values())
    assert (tmp_path / weights.MODEL_FILE).stat().st_size < 0.55 * full
    for key, value in module.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[key], expected), key


def test_equal_weights_give_equal_bytes(module):
    assert weights.save_files(module, CONFIG) == weights.save_files(module, CONFIG)


def test_loading_leaves_the_global_generator_alone(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    weights.from_pretrained(str(tmp_path))
    assert torch.equal(torch.rand(1), expected)


def test_other_architecture_lists_the_first_differing_keys(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    edit(tmp_path, architecture="mobilefacenet")
    with pytest.raises(InputError, match=r"first differing keys:\n  layers\.0\.layers\.0\.weight: missing(.|\n)*more"):
        weights.from_pretrained(str(tmp_path))


def test_other_width_names_both_shapes(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    edit(tmp_path, embedding_dim=64)
    with pytest.raises(InputError, match=r"fc\.weight: \[32, 3072\], expected \[64, 3072\]"):
        weights.from_pretrained(str(tmp_path))


def test_the_header_alone_tells_another_architecture(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    assert weights.read_checked(str(tmp_path)) == weights.read_config(str(tmp_path))
    path = tmp_path / weights.MODEL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: 8 + int.from_bytes(whole[:8], "little")])  # no tensor is read
    assert weights.read_checked(str(tmp_path)).architecture == "tiny"
    edit(tmp_path, embedding_dim=64)
    with pytest.raises(InputError, match=r"another architecture; first differing keys:\n  fc\.weight: \[32, 3072\]"):
        weights.read_checked(str(tmp_path))
    edit(tmp_path, architecture="mobilefacenet")
    with pytest.raises(InputError, match=r"first differing keys:\n  layers\.0\.layers\.0\.weight: missing(.|\n)*more"):
        weights.read_checked(str(tmp_path))
    edit(tmp_path, architecture="my.code:network")
    assert weights.read_checked(str(tmp_path)).embedding_dim == 64
    edit(tmp_path, architecture="tiny")
    for damage in (
        b"",
        b"short",
        b"\xff" * 60,
        (4).to_bytes(8, "little") + b"null",
        (7).to_bytes(8, "little") + b'{"a":1}',
    ):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="not a safetensors file"):
            weights.read_checked(str(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        weights.read_checked(str(tmp_path))


def test_exchanged_bytes_are_found(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    path = tmp_path / weights.MODEL_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="sha256"):
        weights.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"colour_order": "GBR"},
        {"crop": "mtcnn"},
        {"normalisation": {"mean": 0.0, "scale": 255.0}},
        {"kind": "denoiser"},
        {"dtype": "int4"},
        {"format_version": 9},
        {"surprise": 1},
    ],
)
def test_other_conventions_are_refused(module, tmp_path, change):
    weights.save_pretrained(str(tmp_path), module, CONFIG)
    edit(tmp_path, **change)
    with pytest.raises(InputError, match=next(iter(change))):
        weights.from_pretrained(str(tmp_path))


def test_weights_trained_on_bgr_take_rgb(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, dataclasses.replace(CONFIG, colour_order="BGR"))
    loaded, config = weights.from_pretrained(str(tmp_path))
    assert config.colour_order == "BGR"
    rgb = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(rgb), module(rgb[:, [2, 1, 0]]), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(loaded(rgb), module(rgb), atol=1e-2)


def test_only_recognizers_may_take_bgr(module, tmp_path):
    weights.save_pretrained(str(tmp_path), module, dataclasses.replace(CONFIG, colour_order="BGR", kind="denoiser"))
    with pytest.raises(InputError, match="colour_order = 'BGR'"):
        weights.read_config(str(tmp_path), "denoiser")


def test_missing_weights(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json there"):
        weights.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(
        InputError,
        match="unknown pretrained weights 'heads-fr-big'; known: cemiface-tiny, cemiface-tiny-paper, heads-",
    ):
        weights.from_pretrained("heads-fr-big")


def test_weights_that_are_not_finite_are_not_saved(module):
    broken = recognizers.build("tiny", 32, 64)
    with torch.no_grad():
        broken.fc.weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match=r"'fc\.weight' are not finite"):
        weights.save_files(broken, CONFIG)


def test_old_files_without_batch_counters_load(module):
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    fresh = recognizers.build("tiny", 32, 64)
    weights.load_state(fresh, state, "here")
    assert torch.equal(fresh.state_dict()["features.running_var"], state["features.running_var"])


def test_shipped_weights_load_and_are_small():
    module, config = weights.from_pretrained("heads-fr-tiny")
    assert config.licence == "Apache-2.0"
    assert config.training_data
    folder = Path(weights.locate("heads-fr-tiny"))
    assert sum(f.stat().st_size for f in folder.iterdir()) < 4 << 20
    assert recognizers.parameter_count(module) > 1e6
