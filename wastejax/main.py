"""The one entry point: `python -m wastejax.main [COMMAND] --config=…`. It parses and dispatches, no more."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from wastejax import __version__
from wastejax.errors import MissingPackage, UserError
from wastejax.files import expand_home, reason
from wastejax.runtime import process

EXAMPLES = """\
examples:
  wastejax --config=mobilevit_ir                            a quick check on drawn images
  wastejax --config=mobilevit_ir --config.data.dir=DIR      train on DIR/<class>/*.jpg, or resume
  wastejax eval --model=runs/mobilevit_ir --data=DIR --out=report.json

Every key of configs/common.py can be set: --config.train.epochs=3. `wastejax COMMAND --help` lists options.
"""

# Commands that run a network with jax.
COMPUTING = ("train", "eval", "crossval", "adapt", "compare", "robustness", "export", "web", "benchmark")
# Commands that may run one with another engine than jax; their modules import none.
ANSWERING = ("predict", "serve")

# A line of help, and the module, which is imported for that command alone.
COMMANDS = {
    "train": ("train a recipe, or resume a run (the default)", "wastejax.cli.train"),
    "eval": ("score a run or bundle on images", "wastejax.cli.evaluate"),
    "audit": ("find unreadable files, duplicates, leaks and label errors", "wastejax.cli.audit"),
    "shard": ("write images as shards, for training on very many", "wastejax.cli.many.shard"),
    "add": ("add reviewed images from a server to class folders", "wastejax.cli.add"),
    "crossval": (
        "score a network on each source with a classifier fitted to the others",
        "wastejax.cli.cameras.crossval",
    ),
    "adapt": ("fit a model to images of your own camera, in minutes", "wastejax.cli.cameras.adapt"),
    "compare": ("compare two models on the same images", "wastejax.cli.compare"),
    "robustness": ("measure accuracy on degraded images", "wastejax.cli.robustness"),
    "predict": ("classify images, a video or a camera", "wastejax.cli.predict"),
    "export": ("write a model as a file for other programs, and check it", "wastejax.cli.export"),
    "serve": ("answer over HTTP, with a web page", "wastejax.cli.serve"),
    "web": ("write the web page with a model inside, for any web host", "wastejax.cli.web"),
    "models": (
        "list the networks: parameters, multiply-adds, weights they can take",
        "wastejax.cli.models",
    ),
    "benchmark": ("time networks, on this machine, against each other", "wastejax.cli.benchmark"),
}


# Options that had another name.
RENAMED = {"--pictures": "--images"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to look."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads options as argparse does; `--skip_bad`, as options used to be spelled, means `--skip-bad`.

        The shell leaves `~` as it is behind `--out=`; here it is the home folder, for every option and key.
        """
        given = [_hyphenated(argument) for argument in (sys.argv[1:] if args is None else args)]
        if empty := _empty(given):
            self.error(f"{empty} is empty; give a value, or leave the option out")
        return super().parse_known_args(given, namespace)


def _hyphenated(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    if not name.startswith("--config."):
        name = name.replace("_", "-")
    return RENAMED.get(name, name) + equals + expand_home(value)


def _empty(arguments: Sequence[str]) -> str:
    """Returns the first option with nothing after its `=`, as an unset variable leaves it; '' for none."""
    options = [word.partition("=") for word in arguments if word.startswith("--")]
    names = (name for name, equals, value in options if equals and not value)
    return next((name for name in names if not name.startswith("--config.")), "")


def parser(asked: str = "") -> argparse.ArgumentParser:
    """Returns the parser of all commands, with the options of the one that is asked for.

    `--config.key=value` arguments are left to the recipe.
    """
    top = Parser(
        "wastejax",
        description="Train and use small, fast image classifiers that sort waste.",
        epilog=EXAMPLES,
        allow_abbrev=False,
    )
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    top.add_argument("--version", action="version", version=f"wastejax {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    for name, (text, module) in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == asked:
            importlib.import_module(module).add_arguments(own)
    return top


def dispatch(argv: Sequence[str]) -> None:
    """Runs the command that the arguments ask for; `train` where they name none."""
    arguments = list(argv)
    if arguments and arguments[0].startswith("--config"):
        arguments.insert(0, "train")
    if arguments[:1] and arguments[0] in COMPUTING and not {"-h", "--help"} & set(arguments):
        process.prepare()  # before the command's module, which may bring in jax
    args, rest = parser(*arguments[:1]).parse_known_args(arguments)
    if rest and args.command != "train":
        hint = f"; the file of that name is ./{rest[0]}" if os.path.lexists(rest[0]) else ""
        raise UserError(f"{rest[0]}: unknown option; see wastejax {args.command or ''} --help{hint}")
    if args.command in ANSWERING and not _without_jax(args):
        process.prepare()
    if args.command is None:
        parser().print_help()
        return
    args.overrides = rest
    sys.exit(importlib.import_module(COMMANDS[args.command][1]).run(args, say))


def _without_jax(args: argparse.Namespace) -> bool:
    """Returns whether another engine than jax answers, for which starting the process anew only costs time."""
    from wastejax.deployment import engines

    inside = getattr(args, "heatmap", None) or getattr(args, "regions", None)
    return not inside and engines.choose(args.model, args.engine) != "jax"


def say(line: str) -> None:
    """Prints a line at once, so that a log file shows it as it happens."""
    # In one piece: `print` writes the line's end by itself, and another thread's line may come between.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Runs, and turns a user's mistake into one line and exit code 2."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "wastejax", "configs"):
            raise
        command = next((word for word in sys.argv[1:2] if not word.startswith("-")), "train")
        fail(str(MissingPackage(command, package)))
    except OSError as error:
        # What was checked beforehand may fail later all the same: a disk fills up, a share goes away.
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{reason(error)}; what was complete before is kept")


def fail(message: str) -> NoReturn:
    """Says what is wrong in one line and ends with exit code 2."""
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
