"""`wastejax add`: reviewed images that a server has kept become training images."""

import argparse

from wastejax.auditing.collected import add_collected
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("--collected", required=True, metavar="DIR", help="the folder of `serve --collect`")
    parser.add_argument(
        "--corrections",
        required=True,
        metavar="CSV",
        help="as the review page of `audit --collected` saves it",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="class folders, which get copies of what was reviewed"
    )


def run(args: argparse.Namespace, say: Say) -> None:
    """Copies, and says how many.

    Raises:
        UserError: a folder or the corrections are not there, or do not fit each other.
    """
    add_collected(args.collected, args.corrections, args.data, say)
