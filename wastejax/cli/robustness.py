"""`wastejax robustness`: how a model's accuracy falls as its images get worse, by kind and by degree."""

import argparse
from functools import partial
from pathlib import Path

from wastejax.cli import SHARED, options
from wastejax.data.sources import check_outside
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report.robustness import draw, headlines, report
from wastejax.evaluation.robustness import measure_model
from wastejax.files import check_folder, write_json, write_text
from wastejax.progress import Bars, Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--model", "RUN_OR_BUNDLE", "a run, or with --data a bundle (default: the bundled model)")
    add("--data", "DATA", "labeled images, in any layout of config.data.dir (default: the run's test images)")
    add("--split", *SHARED["--split"])
    add("--corrections", *SHARED["--corrections"])
    add("--out", "DIR", "folder for robustness.json, .md and .png", required=True)
    add("--limit", "N", "only N images, evenly spread over all (default: all)", type=int)
    add("--skip-bad", *SHARED["--skip-bad"], action="store_true")


def run(args: argparse.Namespace, say: Say) -> None:
    """Measures, prints, and writes figure, JSON and Markdown."""
    asked = Asked(args.model, args.data, args.split, args.skip_bad, args.corrections)
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit={args.limit}: must be at least 1")
    out = Path(args.out)
    check_folder(out, "--out")
    if args.data:
        check_outside(out, "--out", args.data, "its figure")
    with Bars() as progress:
        result = measure_model(asked, args.limit, partial(progress, "corruptions"), say)
    out.mkdir(parents=True, exist_ok=True)
    draw({result["model"]: result}, out / "robustness.png")
    write_text(out / "robustness.md", report(result))
    write_json(out / "robustness.json", result)
    for line in headlines(result):
        say(line)
    say(f"written: {out / 'robustness.md'}, {out / 'robustness.json'}, {out / 'robustness.png'}")
