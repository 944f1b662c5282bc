from typing import ClassVar

import pytest
from pydantic import Field

from synface import settings
from synface.core.errors import InputError
from synface.settings import How, InputUri, Numerics, Settings, StageConfig


class DemoNumerics(Numerics):
    threads: int = 1


class DemoHow(How):
    actors: int = 2


class Inner(Settings):
    images: InputUri
    weight: float = 1.0


class Demo(StageConfig):
    verb: ClassVar[str] = "demo"

    gallery: InputUri | None = None
    mixed: list[Inner] = []
    names: list[str] = []
    alpha: float = Field(0.5, ge=0, le=1)
    seed: int = 0
    note: str = ""
    numerics: DemoNumerics = DemoNumerics()
    how: DemoHow = DemoHow()


def demo(text: str = "", **data):
    return settings.build(Demo, settings.merge({"output": "o", **data}, settings.parse_overrides(text.split())))


def name_of(config, **digests):
    return settings.config_hash(settings.hashed_fields(config, digests))


def test_overrides_reach_nested_fields_and_lists():
    config = demo("--numerics.threads 3 --how.actors=9 --names a,b --alpha 1e-1")
    assert (config.numerics.threads, config.how.actors, config.names, config.alpha) == (3, 9, ["a", "b"], 0.1)
    assert demo("--names [x,y]").names == ["x", "y"]
    assert demo("--note 12").note == "12"
    assert demo("--gallery none", gallery="g").gallery is None


def test_output_and_how_do_not_name_a_result_everything_else_does():
    plain = name_of(demo())
    assert plain == name_of(demo("--output elsewhere --how.actors 7"))
    for change in ("--alpha 0.25", "--seed 1", "--numerics.threads 2", "--names a"):
        assert name_of(demo(change)) != plain


def test_a_field_at_its_default_does_not_rename_old_data():
    assert name_of(demo()) == name_of(demo("--alpha 0.5 --numerics.threads 1"))


def test_inputs_are_named_by_content_not_by_place():
    one, two = demo("--gallery /a"), demo("--gallery /b")
    assert name_of(one, gallery="d1") == name_of(two, gallery="d1") != name_of(one, gallery="d2")
    mixed = demo(mixed=[{"images": "/x"}, {"images": "/y", "weight": 2}])
    assert settings.input_uris(mixed) == {"mixed.0.images": "/x", "mixed.1.images": "/y"}
    fields = settings.hashed_fields(mixed, {"mixed.0.images": "dx", "mixed.1.images": "dy"})
    assert "/x" not in settings.canonical_json(fields) and "dy" in settings.canonical_json(fields)


def test_the_places_of_inputs_may_be_changed_wherever_they_stand():
    given = demo("--gallery a", mixed=[{"images": "x"}, {"images": "y", "weight": 2}])
    changed = settings.with_input_uris(given, lambda uri: f"/home/{uri}")
    assert settings.input_uris(changed) == {k: f"/home/{v}" for k, v in settings.input_uris(given).items()}
    assert settings.with_input_uris(changed, lambda uri: uri.removeprefix("/home/")) == given
    assert settings.with_input_uris(demo(), str.upper) == demo()


def test_the_hash_is_pinned():
    """Finished datasets are found by it: a change makes every one of them unknown."""
    assert name_of(demo("--alpha 0.25"))[:16] == "b968a90bb320657d"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--alpha 2", ["alpha", "'2'", "less than or equal to 1"]),
        ("--alpa 1", ["alpa", "did you mean 'alpha'"]),
        ("--numerics.thread 1", ["numerics.thread", "did you mean 'threads'"]),
        ("--seed x", ["seed", "'x'", "integer"]),
        ("--alpha nan", ["alpha", "finite"]),
        ("stray", ["stray", "--field value"]),
    ],
)
def test_bad_input_names_field_value_and_what_is_allowed(text, says):
    with pytest.raises(InputError) as error:
        demo(text)
    assert all(part in str(error.value) for part in says)


def test_missing_required_field():
    with pytest.raises(InputError, match=r"output: required.*--output"):
        settings.build(Demo, {})


def test_recipes(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("recipe: x\ndemo: {alpha: 0.1}\n")
    assert settings.read_recipe(str(path), ("demo",))["demo"] == {"alpha": 0.1}
    for text, says in [
        ("demoo: {}", "did you mean 'demo'"),
        ("demo: 3", "must be a mapping"),
        ("- 1", "mapping"),
        ("a: [", "not valid YAML"),
        ("demo: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            settings.read_recipe(str(path), ("demo",))
    with pytest.raises(InputError, match="cannot be read"):
        settings.read_recipe(str(tmp_path / "none.yaml"), ("demo",))


def test_configs_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        demo().seed = 3
