import json
from typing import ClassVar

import pytest

from synface.core.errors import InputError
from synface.settings import InputUri, StageConfig
from synface.store import artifact
from synface.store import uri as uris


class Demo(StageConfig):
    verb: ClassVar[str] = "demo"

    source: InputUri | None = None
    size: int = 1


def finish(output, size=1, data=b"payload"):
    config = Demo(output=str(output), size=size)
    opened = artifact.open_output(config)
    entry = artifact.write_file(config.output, "data/x.bin", data)
    return artifact.commit(config, opened, "demo", [entry], {"n": 1})


def test_finished_work_is_found_again_and_equal_bytes(tmp_path):
    first = finish(tmp_path / "o")
    again = artifact.open_output(Demo(output=str(tmp_path / "o")))
    assert again.finished == first
    finish(tmp_path / "p")
    assert (tmp_path / "o" / artifact.MANIFEST).read_bytes() == (tmp_path / "p" / artifact.MANIFEST).read_bytes()


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    finish(tmp_path / "o")
    before = sorted(p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.is_file())
    with pytest.raises(InputError, match=r"fields\.size: '\(default\)' -> 2"):
        artifact.open_output(Demo(output=str(tmp_path / "o"), size=2))
    assert sorted(p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.is_file()) == before


def test_a_plan_without_any_work_gives_way(tmp_path):
    """A run that was refused after its plan was written must not block the output for the corrected one."""
    artifact.open_output(Demo(output=str(tmp_path / "o"), size=3))
    opened = artifact.open_output(Demo(output=str(tmp_path / "o"), size=2))
    assert json.loads((tmp_path / "o" / artifact.PLAN).read_text())["config"] == opened.fields


def test_no_manifest_means_not_there(tmp_path):
    config = Demo(output=str(tmp_path / "o"))
    artifact.open_output(config)
    artifact.write_file(config.output, "data/x.bin", b"half")
    with pytest.raises(InputError, match="no finished synface result"):
        artifact.require(config.output)
    with pytest.raises(InputError, match="nothing stands there"):
        artifact.require(str(tmp_path / "none"))


def test_a_lost_or_shortened_file_is_work_to_redo(tmp_path):
    finish(tmp_path / "o")
    (tmp_path / "o" / "data" / "x.bin").write_bytes(b"pay")
    assert artifact.open_output(Demo(output=str(tmp_path / "o"))).finished is None


def test_the_digest_of_an_input_is_its_content(tmp_path):
    finish(tmp_path / "o")
    finish(tmp_path / "p")
    assert artifact.content_digest(str(tmp_path / "o")) == artifact.content_digest(str(tmp_path / "p"))
    finish(tmp_path / "q", data=b"other")
    assert artifact.content_digest(str(tmp_path / "o")) != artifact.content_digest(str(tmp_path / "q"))


def test_missing_input_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="nothing stands there"):
        artifact.open_output(Demo(output=str(tmp_path / "o"), source=str(tmp_path / "none")))
    assert not (tmp_path / "o").exists()


def test_damaged_manifest_and_plan(tmp_path):
    finish(tmp_path / "o")
    (tmp_path / "o" / artifact.MANIFEST).write_text("{")
    with pytest.raises(InputError, match="damaged manifest"):
        artifact.load_manifest(str(tmp_path / "o"))
    (tmp_path / "o" / artifact.PLAN).write_text("[]")
    with pytest.raises(InputError, match="damaged plan"):
        artifact.open_output(Demo(output=str(tmp_path / "o")))


def test_wrong_kind(tmp_path):
    finish(tmp_path / "o")
    with pytest.raises(InputError, match="holds 'demo', expected 'images'"):
        artifact.require(str(tmp_path / "o"), "images")


def test_writes_are_whole(tmp_path):
    target = uris.join(str(tmp_path), "a", "b.bin")
    uris.write_bytes(target, b"1")
    uris.write_bytes(target, b"22")
    assert uris.read_bytes(target) == b"22" and uris.list_files(str(tmp_path)) == [("a/b.bin", 2)]


def test_the_manifest_holds_no_times(tmp_path):
    finish(tmp_path / "o")
    text = (tmp_path / "o" / artifact.MANIFEST).read_text()
    assert not {"time", "seconds", "date", "created"} & set(json.loads(text))
