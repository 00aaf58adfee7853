"""`wastejax add`: reviewed images that a server has kept become training images."""

import argparse

from wastejax.auditing.collected import add_collected
from wastejax.cli import options
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--collected", "DIR", "the folder given to `serve --collect`", required=True)
    add("--corrections", "CSV", "corrections saved by the review page of `audit --collected`", required=True)
    add("--data", "DIR", "class folders, to which the reviewed images are copied", required=True)


def run(args: argparse.Namespace, say: Say) -> None:
    """Copies, and says how many."""
    add_collected(args.collected, args.corrections, args.data, say)
