"""Released checkpoints in each public layout, written here as their trainers write them."""

import io
import json
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from synface import cli
from synface.core.errors import InputError
from synface.models import checkpoints, recognizers, weights

DIM, SIZE = 16, 32
FACTS = {"licence": "MIT", "training_data": "random numbers", "embedding_dim": DIM, "input_size": SIZE}


class Hyperparameters(dict):
    """What Lightning checkpoints hold besides tensors: a class of the trainer's own code."""


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    torch.manual_seed(4)
    module = recognizers.build("tiny", DIM, SIZE)
    module(torch.randn(8, 3, SIZE, SIZE))
    return module.eval()


def saved(value) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink)
    return sink.getvalue()


def released(module: torch.nn.Module, layout: str):
    """The saved object of a layout."""
    state = module.state_dict()
    if layout == "insightface":
        return state
    if layout == "cvlface":
        return {f"net.{k}": v for k, v in state.items()}
    lightning = OrderedDict({f"model.{k}": v for k, v in state.items()})
    lightning["head.kernel"] = torch.randn(DIM, 10)
    more = {"hyper_parameters": Hyperparameters(lr=0.1), "args": SimpleNamespace(arch="ir_50"), "epoch": 25}
    return {"state_dict": lightning, **more}


@pytest.mark.parametrize("layout", sorted(checkpoints.LAYOUTS))
def test_every_layout_gives_the_network_that_was_released(layout, backbone, tmp_path):
    path = tmp_path / "released.ckpt"
    path.write_bytes(saved(released(backbone, layout)))
    order = {"colour_order": "RGB"} if layout == "cvlface" else {}
    result = checkpoints.convert(str(path), layout, "tiny", output=str(tmp_path / "w"), **FACTS, **order)
    loaded, config = weights.from_pretrained(str(tmp_path / "w"))
    expected_order = "BGR" if layout in ("adaface", "hyperface") else "RGB"
    assert (config.colour_order, result["colour_order"]) == (expected_order, expected_order)
    assert config.details["layout"] == layout
    rgb = torch.randn(3, 3, SIZE, SIZE)
    fed = rgb.flip(1) if expected_order == "BGR" else rgb
    with torch.no_grad():
        torch.testing.assert_close(loaded(rgb), backbone(fed), atol=1e-5, rtol=1e-5)
    stored = json.loads((tmp_path / "w" / weights.CONFIG_FILE).read_text())
    assert stored["sha256"] == result["sha256"]


def test_data_parallel_prefix_and_safetensors(backbone, tmp_path):
    path = tmp_path / "backbone.pth"
    path.write_bytes(saved({f"module.{k}": v for k, v in backbone.state_dict().items()}))
    first = checkpoints.convert(str(path), "insightface", "tiny", output=str(tmp_path / "a"), **FACTS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        weights.save_files(backbone, weights.WeightsConfig("tiny", DIM, SIZE, "", ""))[weights.MODEL_FILE]
    )
    second = checkpoints.convert(str(path), "insightface", "tiny", output=str(tmp_path / "b"), **FACTS)
    assert first["sha256"] == second["sha256"]


def test_nothing_of_the_file_is_run(backbone, tmp_path, capsys):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(saved({**released(backbone, "adaface"), "callbacks": [Evil(), {Evil: 1}]}))
    checkpoints.convert(str(path), "adaface", "tiny", output=str(tmp_path / "w"), **FACTS)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"no checkpoint", saved({"a": torch.ones(3)})[:-40]])
def test_damaged_files_are_refused(data, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.ckpt: not a checkpoint"):
        checkpoints.convert(str(path), "adaface", "tiny", output=str(tmp_path / "w"), **FACTS)


def test_the_wrong_layout_shows_what_is_there(backbone, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(saved(released(backbone, "insightface")))
    with pytest.raises(InputError, match=r"no 'state_dict' in it, but: stem\.weight.*layouts: .*adaface"):
        checkpoints.convert(str(path), "adaface", "tiny", output=str(tmp_path / "w"), **FACTS)
    path.write_bytes(saved({"state_dict": backbone.state_dict()}))
    with pytest.raises(InputError, match=r"no tensor's name begins with 'model\.'; its first names: stem\.weight"):
        checkpoints.convert(str(path), "adaface", "tiny", output=str(tmp_path / "w"), **FACTS)


def test_another_architecture_lists_the_first_differing_keys(backbone, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(saved(released(backbone, "adaface")))
    message = r"x\.ckpt \(adaface, mobilefacenet\).*first differing keys:\n  layers\.0\.layers\.0\.weight: missing"
    with pytest.raises(InputError, match=message):
        checkpoints.convert(str(path), "adaface", "mobilefacenet", output=str(tmp_path / "w"), **FACTS)
    assert not (tmp_path / "w").exists()


def test_colour_order_must_be_known(backbone, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(saved(released(backbone, "cvlface")))
    with pytest.raises(InputError, match="give --colour-order RGB or BGR"):
        checkpoints.convert(str(path), "cvlface", "tiny", output=str(tmp_path / "w"), **FACTS)


def test_other_weights_are_not_overwritten(backbone, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(saved(backbone.state_dict()))
    for _ in range(2):  # the same again is no harm
        checkpoints.convert(str(path), "insightface", "tiny", output=str(tmp_path / "w"), **FACTS)
    path.write_bytes(saved({k: v * 2 for k, v in backbone.state_dict().items()}))
    with pytest.raises(InputError, match="holds other weights"):
        checkpoints.convert(str(path), "insightface", "tiny", output=str(tmp_path / "w"), **FACTS)


def test_the_verb(backbone, tmp_path, capsys):
    path = tmp_path / "x.ckpt"
    path.write_bytes(saved(released(backbone, "hyperface")))
    arguments = ["convert", str(path), "--layout", "hyperface", "--architecture", "tiny", "--licence", "MIT"]
    arguments += ["--training-data", "random numbers", "--output", str(tmp_path / "w"), "--embedding-dim", str(DIM)]
    assert cli.main([*arguments, "--input-size", "x"]) == 2
    assert "expected a positive whole number" in capsys.readouterr().err
    assert cli.main([*arguments, "--input-size", str(SIZE)]) == 0
    assert json.loads(capsys.readouterr().out)["colour_order"] == "BGR"
