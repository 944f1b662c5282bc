"""Options of the tools in store/, which come from a command line as text."""

from synface.core.errors import InputError


def number(name: str, value: float | str, least: float, whole: bool = False) -> float:
    """A number of at least `least`.

    Raises:
        InputError: not a number, not a whole one where that is asked, or too small.
    """
    kind = "a whole number" if whole else "a number"
    try:
        found = float(value)
        if not found >= least or (whole and found != int(found)):
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{name} = {value!r}: expected {kind} from {least:g} on") from None
    return found


def flag(name: str, value: bool | str) -> bool:
    """``true`` or ``false``. InputError for anything else."""
    if value not in (True, False, "true", "false"):
        raise InputError(f"{name} = {value!r}: expected true or false")
    return value in (True, "true")
