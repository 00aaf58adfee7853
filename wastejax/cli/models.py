"""`wastejax models`: what each network costs, and which published weights it can take."""

import argparse

from wastejax.models import MODELS
from wastejax.models.cost import NUM_CLASSES, cost, image_size
from wastejax.models.weights.published import published_weights
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command: none."""


def run(args: argparse.Namespace, say: Say) -> None:
    """Prints the table."""
    say(
        f"parameters for {NUM_CLASSES} classes, multiply-adds at the default size, published weights that fit"
    )
    say(f"{'name':28} {'parameters':>12} {'size':>5} {'GMACs':>7}  weights")
    for name, config in MODELS.items():
        size = image_size(config)
        parameters, macs = cost(config, size)
        say(f"{name:28} {parameters:12,} {size:5} {macs / 1e9:7.3f}  {' '.join(published_weights(config))}")
