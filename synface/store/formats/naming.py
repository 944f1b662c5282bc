"""Names of exported files: no identity id can escape its folder or collide with another."""

import hashlib
import re
from urllib.parse import quote

LONGEST_NAME = 200


def safe_name(text: str) -> str:
    """A file name for any text: distinct texts give distinct names, harmless ones stay as they are.

    Other characters than letters, digits and ``_.-~`` are percent-encoded, as are leading dots; very long
    names end in a hash.
    """
    name = quote(text, safe="")
    bare = name.lstrip(".")
    name = "%2E" * (len(name) - len(bare)) + bare
    if not name:
        return "%"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 17]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name


def numeric_order(path: str) -> list[tuple[int, str]]:
    """Sorting key by which ``part-2`` comes before ``part-10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", path)]


def suffix_of(path: str | None) -> str:
    """The suffix of an image's own path in its table, without the dot."""
    suffix = (path or "").rsplit(".", 1)[-1].lower()
    return suffix if suffix in ("jpg", "jpeg", "png", "webp") else "jpg"
