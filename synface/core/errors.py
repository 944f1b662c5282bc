"""The errors that a user meets, and the exit code of each."""


class SynfaceError(Exception):
    """A failure with a message for the user: what happened, and how to mend it."""

    exit_code = 1


class InputError(SynfaceError, ValueError):
    """Refused input: the message names the field or file, the value, what is allowed and the fix."""

    exit_code = 2


class DivergedError(SynfaceError):
    """A training whose numbers stopped being finite: what was asked must change, so it counts as refused input."""

    exit_code = 2


class PartialError(SynfaceError):
    """Finished in part: what is done is valid and kept, the message says what is missing."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: object) -> InputError:
    """The error for a name that a registry does not hold; it lists the known ones."""
    choices = ", ".join(sorted(str(k) for k in known))  # type: ignore[attr-defined]
    return InputError(f"unknown {kind} {name!r}; known: {choices}")
