"""Typed configuration: base models, YAML files, dotted overrides, and the hash that names a result.

Defaults < ``--config file.yaml`` < ``--a.b value``. A stage's model has three kinds of field:

* *what*: its own fields; they decide the result and are hashed (input URIs by their content digest);
* ``numerics``: a sub-model; it decides the last bits and is hashed;
* ``how``: a sub-model; it decides only speed and is not hashed. Nor is ``output``.

Fields at their default are left out of the hash, so that a new field does not rename old data.
"""

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from synface.core.errors import InputError


class _InputMarker:
    """Marks a field that holds the URI of an input artifact (hashed by content, not by place)."""


InputUri = Annotated[str, _InputMarker()]

#: of a stage's `how`; None: unknown
MeasuredRate = Annotated[
    float | None,
    Field(
        gt=0,
        description="images (pack: operations) a second of one actor or worker, as you measured it: for --dry-run",
    ),
]


class Settings(BaseModel):
    """Base of every configuration model: frozen, unknown keys and non-finite numbers refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, data: Any) -> Any:
        """A list field accepts ``a,b`` or ``[a, b]`` as text, which is what a command line gives."""
        if not isinstance(data, dict):
            return data
        out = dict(data)
        for name, field in cls.model_fields.items():
            value = out.get(name)
            if not isinstance(value, str):
                continue
            if _holds(field.annotation, list, tuple, dict) and value.lstrip()[:1] in ("[", "{"):
                out[name] = yaml.safe_load(value)
            elif _holds(field.annotation, list, tuple) and not _holds(field.annotation, str):
                out[name] = [part.strip() for part in value.split(",")]
        return out


class Numerics(Settings):
    """Fields that decide the last bits of a result (hashed): threads, dtype, micro-batch, device."""


class How(Settings):
    """Fields that decide only speed (never hashed): actors, concurrency, retries, intervals."""


#: a value of Ray's label selectors: ``x``, ``!x``, ``in(x, y)``, ``!in(x, y)``
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelValue = Annotated[str, Field(pattern=rf"^!?(?:{_LABEL}|in\({_LABEL}(?:, ?{_LABEL})*\))$")]


class PlacedHow(How):
    """How of a stage whose work may be held to some nodes of a cluster."""

    labels: dict[str, LabelValue] = Field(
        default={},
        description="labels that a node must have for this work: {pool: gpu, market: '!spot'}; values as Ray's label "
        "selectors take them: x, !x, in(x, y), !in(x, y)",
    )


class StageConfig(Settings):
    """Base of a verb's configuration. Subclasses set ``verb`` and may raise ``algorithm_version``.

    ``algorithm_version`` is raised when the same fields give another result than before.
    """

    verb: ClassVar[str]
    config_version: ClassVar[int] = 1
    algorithm_version: ClassVar[int] = 1

    output: str


ConfigT = TypeVar("ConfigT", bound=Settings)


def _holds(annotation: Any, *kinds: type) -> bool:
    """Whether a (possibly optional or annotated) annotation is one of `kinds`."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _holds(typing.get_args(annotation)[0], *kinds)
    if origin in (typing.Union, types.UnionType):
        return any(_holds(a, *kinds) for a in typing.get_args(annotation))
    return (origin or annotation) in kinds


def input_uris(config: Settings) -> dict[str, str]:
    """Dotted field path -> URI, for every input URI that is set (lists get ``field.0`` ...)."""
    found: dict[str, str] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marked = _marked(field)
        for path, item in _items(name, value):
            if isinstance(item, Settings):
                found |= {f"{path}.{k}": v for k, v in input_uris(item).items()}
            elif marked and isinstance(item, str):
                found[path] = item
    return found


def with_input_uris(config: ConfigT, change: Callable[[str], str]) -> ConfigT:
    """The configuration with `change` applied to every URI of `input_uris`."""

    def changed(value: Any, marked: bool) -> Any:
        if isinstance(value, Settings):
            return with_input_uris(value, change)
        if isinstance(value, list | tuple):
            return type(value)(changed(item, marked) for item in value)
        if isinstance(value, dict):
            return {name: changed(item, marked) for name, item in value.items()}
        return change(value) if marked and isinstance(value, str) else value

    update = {
        name: changed(getattr(config, name), _marked(field)) for name, field in type(config).model_fields.items()
    }
    return config.model_copy(update=update)


def _marked(field: FieldInfo) -> bool:
    return any(isinstance(m, _InputMarker) for m in field.metadata) or _annotated_input(field.annotation)


def _annotated_input(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return any(isinstance(m, _InputMarker) for m in annotation.__metadata__)
    return any(_annotated_input(a) for a in typing.get_args(annotation))


def _items(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(f"{name}.{i}", v) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return [(f"{name}.{k}", v) for k, v in value.items()]
    return [(name, value)]


def hashed_fields(config: StageConfig, input_digests: dict[str, str]) -> dict[str, Any]:
    """The part of a configuration that names its result, as plain JSON data.

    Args:
        config: a validated stage configuration.
        input_digests: content digest for every path of `input_uris(config)`.
    """
    missing = set(input_uris(config)) ^ set(input_digests)
    if missing:
        raise ValueError(f"input digests do not match the input URIs: {sorted(missing)}")
    fields = config.model_dump(mode="json", exclude_defaults=True, exclude={"how", "output"})
    for path, digest in input_digests.items():
        _assign(fields, path.split("."), digest)
    return {
        "verb": config.verb,
        "config_version": config.config_version,
        "algorithm_version": config.algorithm_version,
        "fields": fields,
    }


def _assign(tree: Any, path: list[str], value: str) -> None:
    for part in path[:-1]:
        tree = tree[int(part)] if isinstance(tree, list) else tree.setdefault(part, {})
    if isinstance(tree, list):
        tree[int(path[-1])] = value
    else:
        tree[path[-1]] = value


def canonical_json(data: Any) -> str:
    """One text for equal data: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def config_hash(fields: dict[str, Any]) -> str:
    """sha256 hex of `hashed_fields`."""
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def read_recipe(path: str, known_sections: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The sections of a recipe file (YAML by the safe loader): one mapping per verb.

    ``recipe`` (its name) and ``description`` may stand beside the sections.

    Raises:
        InputError: no such file, not YAML, or a section that is not a known verb.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: cannot be read ({error})") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--config {path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"--config {path}: expected a mapping with one section per verb")
    allowed = (*known_sections, "recipe", "description")
    for key, value in data.items():
        if key not in allowed:
            raise InputError(
                f"--config {path}: unknown section {key!r}{_hint(str(key), allowed)}; known: {', '.join(allowed)}"
            )
        if key in known_sections and not isinstance(value, dict):
            raise InputError(f"--config {path}: section {key!r} must be a mapping, got {value!r}")
    return data


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """``--a.b value``, ``--a.b=value`` or ``--flag`` to a nested mapping; hyphens equal underscores."""
    tree: dict[str, Any] = {}
    index = 0
    while index < len(arguments):
        token = arguments[index]
        if not token.startswith("--") or len(token) < 3:
            raise InputError(f"unexpected argument {token!r}; options look like --field value or --a.b value")
        name, has_value, value = token[2:].partition("=")
        index += 1
        if not has_value:
            if index < len(arguments) and not arguments[index].startswith("--"):
                value = arguments[index]
                index += 1
            else:
                value = "true"
        _insert(tree, name.replace("-", "_").split("."), value, token)
    return tree


def _insert(tree: dict[str, Any], path: list[str], value: str, token: str) -> None:
    for part in path[:-1]:
        child = tree.setdefault(part, {})
        if not isinstance(child, dict):
            raise InputError(f"{token}: {part!r} was already given a value")
        tree = child
    tree[path[-1]] = None if value in ("null", "none", "None") else value


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A new mapping: `over` on top of `base`, mappings merged key by key, everything else replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def build(model: type[ConfigT], data: dict[str, Any]) -> ConfigT:
    """Validate `data` as `model`.

    Raises:
        InputError: one line per fault: field, value, what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, e) for e in error.errors(include_url=False)]
        raise InputError("refused configuration:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(model: type[BaseModel], error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_fields(model, error["loc"][:-1])
        return f"{path}: unknown field{_hint(str(error['loc'][-1]), known)}; known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{path}: required; give it in the config file or as --{path.replace('_', '-')} VALUE"
    return f"{path or 'config'} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _known_fields(model: Any, path: tuple[Any, ...]) -> list[str]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        inner = _settings_in(field.annotation) if field else None
        model = inner or model
    return sorted(getattr(model, "model_fields", {}))


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for a in typing.get_args(annotation) if (s := _settings_in(a))), None)


def _hint(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
