"""What a user did wrong, in one line: what, where, and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend. `main` prints it on one line and exits with 2."""


class ConfigError(UserError):
    """A config key with an impossible value.

    Args:
        key: the full key, e.g. `config.train.epochs`.
        problem: what is wrong with it and what would be right.
    """

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}: {problem}")
        self.key = key


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns a hint for a mistyped word: the nearest choice, or all of them where none is near."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; choices: {', '.join(choices)}"
