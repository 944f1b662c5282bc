"""Generators: what turns an identity and a key into pixels, and the registry of them."""

import importlib

from synface.core.errors import InputError, unknown_name
from synface.generate.generators.types import Description, Failure, Generator, Sample

__all__ = ["GENERATORS", "Description", "Failure", "Generator", "Sample", "find_generator"]

#: name -> where its class is; only the one that is used is imported (numba here, torch there)
GENERATORS: dict[str, str] = {
    "heads": "synface.generate.generators.heads:HeadsGenerator",
    "arc2face": "synface.generate.generators.arc2face:Arc2faceGenerator",
    "cemiface": "synface.generate.generators.cemiface:CemifaceGenerator",
    "dcface": "synface.generate.generators.dcface:DcfaceGenerator",
    "idiffface": "synface.generate.generators.idiffface:IdifffaceGenerator",
}


def find_generator(name: str) -> type[Generator]:
    """The generator class of a known name, or of ``package.module:attribute``.

    Raises:
        InputError: unknown, not importable, or not a generator.
    """
    if ":" not in name and name not in GENERATORS:
        raise unknown_name("generator", name, [*GENERATORS, "package.module:attribute"])
    module, _, attribute = GENERATORS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"generator {name!r}: cannot be imported ({error})") from error
    missing = [m for m in ("describe", "own_identities", "render") if not callable(getattr(found, m, None))]
    if missing:
        raise InputError(f"generator {name!r}: has no {missing[0]}(); see synface.generate.generators.types.Generator")
    return found
