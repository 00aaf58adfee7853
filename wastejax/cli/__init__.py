"""The commands, each in a file of its own, and what their options have in common.

Each command has `add_arguments(parser)` and `run(args, say)`, which returns an exit code, or None for 0. It raises
UserErrors, the library's and its own for options that make no sense together; `main` prints one as a line.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wastejax.errors import UserError
from wastejax.files import check_file, check_unread, write_json
from wastejax.progress import Say

WORKERS = ("local", "ray")
# Options that several commands have: what their value is called, and their help; see `options`.
SHARED: dict[str, tuple[str | None, str]] = {
    "--corrections": (
        "CSV",
        "corrected labels, as the review page saves them (default: those the run was trained with)",
    ),
    "--labels": (
        "CSV",
        "what the folders of --data mean in the model's classes: columns label, classes (separated by ;)",
    ),
    "--skip-bad": (None, "leave unreadable images out"),
    "--split": (
        "SPLIT",
        "train, val or test (default: of DATA all that the run has not learned from, else test)",
    ),
    "--taxonomy": (
        "RULES",
        "sorting rules: korea, england, germany, japan, france, or a file (default: the model's)",
    ),
    "--threads": ("N", "threads for an exported file (default: all available cores)"),
}


def options(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """Returns what adds an option to a parser, so that a command's options read as a table.

    It takes the option's name, what its value is called (None for a flag, or where its name or choices say it), its
    help, and by name what else `add_argument` takes.
    """

    def add(name: str, value: str | None, text: str, **more: Any) -> None:
        if value is not None:
            more["metavar"] = value
        parser.add_argument(name, help=text, **more)

    return add


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


def check_written(args: argparse.Namespace, name: str, *read: str) -> None:
    """Checks that a file that an option names, if any, can be written and is none that other options have read."""
    if path := getattr(args, name):
        check_file(path, f"--{name}")
        check_unread(path, f"--{name}", {f"--{other}": getattr(args, other) for other in read})


def write_out(args: argparse.Namespace, content: Any, say: Say) -> None:
    """Writes what `--out` asks for as JSON, if anything, and says so."""
    if args.out:
        write_json(Path(args.out), content)
        say(f"written: {args.out}")


def add_ray_arguments(parser: argparse.ArgumentParser, where: str, work: str) -> None:
    """Adds the options of what a Ray cluster can do.

    Args:
        parser: of the command.
        where: begins the help where they need another option, as 'with --out: '.
        work: what is done there.
    """
    add = options(parser)
    add(
        "--workers",
        None,
        f"{where}{work} in this process, or with Ray (extra `ray`)",
        choices=WORKERS,
        default="local",
    )
    add("--address", "ADDRESS", "with --workers=ray: address of a running cluster, auto or HOST:PORT")
