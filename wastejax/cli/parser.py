"""How the command line reads options."""

import argparse
import sys
from typing import Any, NoReturn

# Options that had another name.
RENAMED = {"--pictures": "--images"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to look."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads options as argparse does; `--skip-bad`, as they used to be spelled, means `--skip-bad`."""
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([_hyphenated(argument) for argument in given], namespace)


def _hyphenated(argument: str) -> str:
    if not argument.startswith("--") or argument.startswith("--config."):
        return argument
    name, equals, value = argument.partition("=")
    name = name.replace("_", "-")
    return RENAMED.get(name, name) + equals + value
