"""The commands, each in a file of its own, and what their options have in common."""

import argparse
from typing import Any

from wastejax.errors import UserError


def only(args: argparse.Namespace, holds: bool, where: str, **unused: Any) -> None:
    """Refuses options that would be ignored.

    Args:
        args: of the command.
        holds: whether there is what the options need.
        where: it is, for the message: 'with --out'.
        unused: the options' names in `args`, and their values where they are not given.

    Raises:
        UserError: one is given though there is not.
    """
    for name, value in unused.items():
        if not holds and getattr(args, name) != value:
            raise UserError(f"--{name.replace('_', '-')}: only {where}; leave it out")
