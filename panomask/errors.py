"""The one exception for what a user can mend: config, data, files and checkpoints."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from outside the program.

    The message is one line that names the file, the entry, what was wrong, and the remedy. Command-line
    tools print it without a traceback and exit with status 1; any other exception is a bug and keeps its
    traceback.
    """


class DivergedError(InputError, FloatingPointError):
    """Training has produced NaN or infinity: mostly a matter of the learning rate, which is the user's."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` entries of `known` that look most like `name`, best first (possibly none)."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
