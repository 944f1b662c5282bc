"""Which files are asked for, and what is said where they are missing."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest

from synface.core.errors import InputError
from synface.models.arc2face import files


def test_nothing_given_lists_everything_with_size_source_and_licence():
    with pytest.raises(InputError) as caught:
        files.find({"weights": None, "base": None})
    text = str(caught.value)
    for part in files.PARTS[:2]:
        assert part.hub in text and part.licence in text and f"arc2face.{part.option}" in text
        for expected in part.files:
            assert all(name in text for name in expected.names) and expected.size in text
    assert "lcm-lora" not in text and "ControlNet" not in text  # not asked for
    with pytest.raises(InputError, match=r"controlnet/config.json or config.json \(1 kB\): missing") as caught:
        files.find({"weights": None, "base": None, "controlnet": "/nowhere"})
    assert all(text in str(caught.value) for text in ("(1.45 GB): missing", "FoivosPar/Arc2Face", "FLAME"))


def test_the_pictures_size_stands_in_the_configurations(miniature, tmp_path):
    found = files.find({**miniature, "lcm_lora": None})
    assert files.image_size(found) == 64
    shutil.copytree(miniature["base"], tmp_path / "base")
    (tmp_path / "base" / "vae" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="not the configurations of a U-Net and its VAE"):
        files.image_size(files.find({"weights": miniature["weights"], "base": str(tmp_path / "base")}))


def test_what_is_there_and_what_is_missing(miniature, tmp_path):
    shutil.copytree(miniature["weights"], tmp_path / "w")
    (tmp_path / "w" / files.UNET).unlink()
    with pytest.raises(InputError) as caught:
        files.find({"weights": str(tmp_path / "w"), "base": miniature["base"], "lcm_lora": None})
    lines = str(caught.value).splitlines()
    assert any(files.UNET in line and line.endswith("(3.44 GB): missing") for line in lines)
    assert any("encoder/config.json" in line and line.endswith(": there") for line in lines)
    assert not any("vae" in line for line in lines)
    with pytest.raises(InputError, match=r"no such folder; the hub's are written hf://"):
        files.find({"weights": "FoivosPar/Arc2Face", "base": miniature["base"]})


def test_digests_are_of_what_decides_pixels(miniature, tmp_path):
    places = {"weights": str(tmp_path / "w"), "base": miniature["base"], "lcm_lora": None}
    shutil.copytree(miniature["weights"], tmp_path / "w")
    first = files.find(places)["weights"].sha256
    assert first == files.find({**miniature, "lcm_lora": None})["weights"].sha256  # wherever they stand
    (tmp_path / "w" / files.EMBEDDER).unlink()
    assert files.find(places)["weights"].sha256 == first
    place = tmp_path / "w" / files.UNET
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    assert files.find(places)["weights"].sha256 != first
    assert set(files.find(miniature)) == {"weights", "base", "lcm_lora"}


def test_a_hub_id_goes_through_the_hubs_cache(miniature, monkeypatch):
    asked = {}

    def download(name, revision, allow_patterns):
        asked[name] = (revision, allow_patterns)
        return miniature["weights"]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = files.find({"weights": "hf://FoivosPar/Arc2Face@abc", "base": miniature["base"]})
    assert found["weights"].folder == Path(miniature["weights"])
    revision, patterns = asked["FoivosPar/Arc2Face"]
    assert revision == "abc" and files.UNET in patterns and not any("*" in p for p in patterns)


def test_a_hub_that_cannot_be_reached_is_one_clear_error(miniature, monkeypatch):
    def offline(name, revision, allow_patterns):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"arc2face\.base hf://a/b: cannot be fetched .*no route.*give the folder"):
        files.find({"weights": miniature["weights"], "base": "hf://a/b"})
