"""Other people's code by its import path."""

import importlib
from collections.abc import Callable
from typing import Any

from synface.core.errors import InputError


def load(kind: str, name: str) -> Callable[..., Any]:
    """The callable that ``package.module:attribute`` names; `kind` stands in errors.

    Raises:
        InputError: not of that form, not importable, or not callable.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(f"{kind} {name!r}: give a callable as package.module:attribute")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{kind} {name!r}: cannot be imported ({error})") from error
    if not callable(found):
        raise InputError(f"{kind} {name!r}: is not callable")
    return found
