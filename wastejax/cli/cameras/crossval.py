"""`wastejax crossval`: how well does a network carry over to a source that it did not learn from?"""

import argparse

import numpy as np

from wastejax.bundle import default_bundle, load_bundle
from wastejax.cli import check_written, options, write_out
from wastejax.data.description import is_description
from wastejax.errors import UserError
from wastejax.evaluation.report.sources import source_table
from wastejax.progress import Say
from wastejax.training.cameras import crossval_by_source, look, sources_in_turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--data", "TOML", "a data description with at least two sources", required=True)
    add(
        "--model",
        "RUN_OR_BUNDLE",
        "model whose network is scored; its classifier is refitted (default: the bundled model)",
    )
    add("--by", None, "what is left out in turn (source)", choices=("source",), default="source")
    add("--out", "JSON", "also write the scores to this file")


def run(args: argparse.Namespace, say: Say) -> None:
    """Leaves each source out in turn and prints its scores."""
    check_written(args, "out", "data")
    if not is_description(args.data):
        raise UserError(
            f"--data={args.data}: is no data description, a .toml file that names two sources or more"
        )
    bundle = load_bundle(args.model or default_bundle())
    bundle.needs_one_label("crossval")
    scores = crossval_by_source(bundle, look(bundle, args.data, None, say, sources_in_turn))
    say("Each source by a classifier that was fitted to the others, on the network as it is:")
    for line in source_table(scores):
        say(line)
    right = [row["right"] for row in scores.values()]
    say(f"right: {np.mean(right):.1%} in the mean of the sources, {min(right):.1%} in the worst")
    write_out(args, scores, say)
