"""`wastejax train`: trains a recipe, or resumes a run."""

import argparse
import ast

from wastejax.cli import only, options
from wastejax.config import recipe_names, recipes_dir
from wastejax.progress import Say
from wastejax.runtime.stop import Stop

OVERRIDES = """
A recipe is a Python file whose get_config() returns every setting. Override any of them:
  --config.data.dir=DIR           images, DIR/<class>/*.jpg (default: a small drawn set)
  --config.train.epochs=20        how long to train
  --config.model.size=xxs         a smaller network of the same family
Every key, with its default and meaning, is in configs/common.py and docs/reference/configuration.md. The
same command resumes a stopped run; other settings need another --workdir.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command; `--config.key=value` arguments are left to the recipe."""
    add = options(parser)
    add("--config", "RECIPE", "a recipe's file or name", required=True)
    add(
        "--workdir", "DIR", "the run's folder (default: runs/<recipe>, and runs/<recipe>-demo without images)"
    )
    add("--coordinator", "HOST:PORT", "several machines: address of process 0, or auto")
    add("--processes", "N", "several machines: number of processes", type=int)
    add("--process", "K", "several machines: number of this process, from 0", type=int)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _recipes() + OVERRIDES


def _recipes() -> str:
    """Returns the recipes and what each is, as its docstring begins."""
    lines = []
    for name in recipe_names():
        text = ast.get_docstring(ast.parse((recipes_dir() / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:27} {text.partition(chr(10))[0]}\n")
    return "recipes:\n" + "".join(lines)


def run(args: argparse.Namespace, say: Say) -> None:
    """Trains."""
    from wastejax.training.devices import Cluster
    from wastejax.training.train import train

    where = "with --coordinator=HOST:PORT, which says where process 0 is"
    only(args, bool(args.coordinator), where, processes=None, process=None)
    cluster = Cluster(args.coordinator, args.processes, args.process) if args.coordinator else None
    with Stop(say, exits=True) as stop:
        train(args.config, args.overrides, args.workdir, say, cluster, stop)
