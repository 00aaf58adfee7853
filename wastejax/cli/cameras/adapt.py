"""`wastejax adapt`: a model learns one's own camera from some tens of labeled images, in minutes."""

import argparse
from pathlib import Path

from wastejax.bundle import default_bundle, load_bundle
from wastejax.cli import SHARED, options
from wastejax.data.sources import check_outside
from wastejax.errors import Unlabeled, UserError
from wastejax.files import check_folder
from wastejax.progress import Say
from wastejax.training.cameras import adapt, check_enough, look


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--data", "DIR", "labeled images from your own camera, a folder per class", required=True)
    add("--out", "DIR", "folder for the new bundle; must not exist", required=True)
    add("--model", "RUN_OR_BUNDLE", "model to adapt (default: the bundled model)")
    add("--labels", *SHARED["--labels"])


def run(args: argparse.Namespace, say: Say) -> None:
    """Adapts, says what it gained by cross-validation, and writes the bundle where it gained anything."""
    out = Path(args.out)
    if out.exists():
        raise UserError(f"--out={out}: exists; give a new folder")
    check_outside(out, "--out", args.data, "its files")
    check_folder(out, "--out")
    bundle = load_bundle(args.model or default_bundle())
    bundle.needs_one_label("adapt")
    try:
        seen = look(bundle, args.data, args.labels, say, check_enough)
    except Unlabeled as error:
        raise UserError(
            f"{error}: without labels a model does not get better (docs/guides/another-camera.md says what was "
            "tried), with ten or more it may"
        ) from None
    found = adapt(bundle, seen, out)
    low, high = found["gain_ci95"]
    say(
        f"right of {found['num_images']:,} images: {found['before']:.1%} before, {found['after']:.1%} after, "
        f"each by a model that had not seen it (gain {found['gain']:+.1%}, 95 % interval {low:+.1%} to {high:+.1%})"
    )
    if not found["written"]:
        say("no gain that is surely more than chance, so nothing was written; more images may tell")
        return
    if low <= 0:
        say("the gain may be due to chance; more images would tell")
    right = "" if found["right_of_kept"] is None else f", {found['right_of_kept']:.1%} of these right"
    say(f"answered above the threshold: {found['kept']:.1%}{right}")
    if found["outliers_kept"] is not None:
        say(
            f"of {found['num_outliers']:,} images of none of the classes, which it learned from too, "
            f"{found['outliers_kept']:.1%} were answered"
        )
    say(f"written: {out}; use it with --model={out}")
