"""`wastejax predict --out=DIR`: any number of images, in parts, by this process or by a Ray cluster."""

import argparse
import os
import sys
import time
from itertools import islice
from pathlib import Path

from wastejax.cli import add_ray_arguments, only, options
from wastejax.deployment.answers import printable
from wastejax.deployment.camera import is_stream
from wastejax.deployment.images import STDIN, among, beside
from wastejax.deployment.many.job import PART_SIZE, Answerer, Asked, Done, predict_parts
from wastejax.deployment.many.part_file import Counts, unreadable
from wastejax.errors import UserError
from wastejax.files import check_folder
from wastejax.progress import number_of

NAMED = 20  # unreadable images that are named on standard error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of answers in parts."""
    add = options(parser)
    add(
        "--out",
        "DIR",
        "write answers to this folder as Parquet files; the same command continues a stopped job. IMAGE may "
        "then be a tar shard, a Parquet file with images, or a URL (extra `remote`)",
    )
    add("--part-size", "N", f"with --out: images per file ({PART_SIZE:,})", type=int, default=PART_SIZE)
    add_ray_arguments(parser, "with --out: ", "compute")
    add("--cores", "N", "with --workers=ray: cores per worker (default: all cores of a machine)", type=int)


def check(args: argparse.Namespace) -> None:
    """Raises a UserError where options do not go together."""
    out = bool(args.out)
    only(args, out, "with --out", workers="local", address=None, cores=None, part_size=PART_SIZE)
    if not out:
        return
    for name in args.images:
        if is_stream(name) or name == STDIN:
            what = "standard input" if name == STDIN else "a camera or video"
            raise UserError(f"--out: answers files of images, and {name} is {what}; leave --out out")
    for option in ("heatmap", "regions", "draw"):
        if getattr(args, option):
            raise UserError(f"--out and --{option}: give one of them")
    if args.format != "table":
        raise UserError("--out writes Parquet files; leave --format off")
    only(args, args.workers == "ray", "with --workers=ray", address=None, cores=None)
    for option in ("part_size", "cores"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')}: must be >= 1, is {value}")
    # A glob may be expanded by the shell or here; either finds what is written among the images the next time.
    files = [name for name in args.images if os.path.isfile(name)]  # noqa: PTH113 - Path's raises
    if where := beside(args.out, args.images, files):
        raise among("out", args.out, where)
    check_folder(args.out, "--out")


def run(args: argparse.Namespace) -> int:
    """Answers in parts; returns the exit code, 1 where an image could not be read."""
    asked = Asked(
        args.model,
        args.engine,
        args.taxonomy,
        args.threads,
        args.accuracy,
        args.reject_below,
        args.max_pixels,
        args.batch_size,
    )
    start = time.perf_counter()
    answerer = _ray(args, asked) if args.workers == "ray" else None
    done = predict_parts(args.images, args.out, asked, args.part_size, answerer, _progress, _say)
    _report(done, Path(args.out), time.perf_counter() - start)
    return 1 if done.counts.unreadable else 0


def _ray(args: argparse.Namespace, asked: Asked) -> Answerer:
    from wastejax.deployment.many.on_ray import on_ray

    return on_ray(asked, args.address, args.cores)


def _report(done: Done, out: Path, seconds: float) -> None:
    if sys.stderr.isatty():
        _say("")
    if done.counts.unreadable:
        rows = (row for file in sorted(out.glob("part-*.parquet")) for row in unreadable(file))
        for name, reason in islice(rows, NAMED):
            _say(f"unreadable: {printable(name)}: {reason}")
        if done.counts.unreadable > NAMED:
            _say(f"and {done.counts.unreadable - NAMED:,} more: see column `reason`")
    earlier = done.counts.images - done.now.images
    _say(
        f"{number_of(done.counts.images, 'image')} in {number_of(done.parts, 'file')} in {out}"
        + (f", {earlier:,} of them answered before" if earlier else "")
        + f"; {done.now.images:,} in {seconds:.1f} s, {done.now.images / seconds:.1f} images/s"
    )


def _progress(counts: Counts) -> None:
    if sys.stderr.isatty():
        print(f"\r{number_of(counts.images, 'image')}", end="", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
