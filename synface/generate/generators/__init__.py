"""Generators: what turns an identity and a key into pixels, and the registry of them."""

import importlib

from synface.core.errors import InputError, unknown_name
from synface.generate.generators.heads import HeadsGenerator
from synface.generate.generators.types import Description, Failure, Generator, Sample

__all__ = ["GENERATORS", "Description", "Failure", "Generator", "Sample", "find_generator"]

GENERATORS: dict[str, type[Generator]] = {
    "heads": HeadsGenerator,
}


def find_generator(name: str) -> type[Generator]:
    """The generator class of a known name, or of ``package.module:attribute``.

    Raises:
        InputError: unknown, not importable, or not a generator.
    """
    if ":" not in name:
        if name not in GENERATORS:
            raise unknown_name("generator", name, [*GENERATORS, "package.module:attribute"])
        return GENERATORS[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"generator {name!r}: cannot be imported ({error})") from error
    missing = [m for m in ("describe", "own_identities", "render") if not callable(getattr(found, m, None))]
    if missing:
        raise InputError(f"generator {name!r}: has no {missing[0]}(); see synface.generate.generators.types.Generator")
    return found
