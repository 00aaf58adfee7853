"""`wastejax add`: reviewed images that a server has kept become training images."""

import argparse

from wastejax.auditing.collected import add_collected
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--collected", required=True, metavar="DIR", help="the folder given to `serve --collect`")
    add(
        "--corrections",
        required=True,
        metavar="CSV",
        help="corrections saved by the review page of `audit --collected`",
    )
    add("--data", required=True, metavar="DIR", help="class folders, to which the reviewed images are copied")


def run(args: argparse.Namespace, say: Say) -> None:
    """Copies, and says how many.

    Raises:
        UserError: a folder or the corrections are not there, or do not fit each other.
    """
    add_collected(args.collected, args.corrections, args.data, say)
