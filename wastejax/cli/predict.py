"""`wastejax predict`: the class, the bin and the probability for any number of images."""

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.cli import SHARED, only, options
from wastejax.cli.many import predict as predict_parts
from wastejax.data.formats.boxes import Reading
from wastejax.data.formats.source import Source
from wastejax.data.images import MAX_PIXELS, BadImage
from wastejax.deployment import summary
from wastejax.deployment.answers import WRITERS, Answer, answers, interpret, printable
from wastejax.deployment.camera import check_stream, only_stream, stream
from wastejax.deployment.engines import ENGINES, load_engine
from wastejax.deployment.heatmaps import dense_of, heat_map, save_drawn
from wastejax.deployment.images import STDIN, among, beside, find, read
from wastejax.deployment.predictor import Predictor, check_probability, nothing_named
from wastejax.errors import MissingPackage, UserError
from wastejax.files import check_folder
from wastejax.progress import Say, number_of

EVERY, EVERY_OBJECT = 1.0, 0.2  # seconds between frames: to follow objects, they must not have moved far
TOP, BATCH, SMOOTHING = 3, 32, 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add(
        "images",
        "IMAGE",
        "file, folder, glob, or - for stdin; or one video file, or camera:0 (extra `camera`)",
        nargs="*",
    )
    add(
        "--data",
        "DATA",
        "instead of IMAGE: a data set in any layout of config.data.dir; each box (COCO, …) is an image",
    )
    add("--model", "MODEL", "run, bundle or exported file (default: the bundled model)")
    add("--taxonomy", *SHARED["--taxonomy"])
    parser.add_argument(
        "--engine",
        "--runtime",
        choices=ENGINES,
        help="what runs the network (auto: the fastest that is installed)",
    )
    add("--threads", *SHARED["--threads"], type=int)
    add("--top", "N", "classes per image (3)", type=int, default=TOP)
    add("--format", None, "output format (table); json and csv are UTF-8", choices=WRITERS, default="table")
    add("--batch-size", "N", "images per batch (32)", type=int, default=BATCH)
    add(
        "--max-pixels",
        "N",
        f"refuse larger images; JPEGs up to eight times as large are read at reduced size ({MAX_PIXELS:,})",
        type=int,
        default=MAX_PIXELS,
    )
    add(
        "--accuracy",
        "A",
        'mark answers as "not sure" so that the others are right this often: 0.9, 0.95 or 0.99 (0.95)',
        type=float,
    )
    add(
        "--reject-below",
        "P",
        "name no bin or class that is less likely than this; with --regions, report no such object (0.5)",
        type=float,
    )
    _add_views(parser)
    predict_parts.add_arguments(parser)


def _add_views(parser: argparse.ArgumentParser) -> None:
    """Adds the options of what is looked at beside the answers."""
    add = options(parser)
    add("--heatmap", "DIR", "write each image with a heat map of its class to this folder")
    add(
        "--regions",
        None,
        "find several objects in each image, with boxes, each of a probability of at least 0.5 unless "
        "--reject-below or --accuracy is given; in a video, each object counts once, and the limit holds in each "
        "frame: what is reported is the mean over frames, which may be lower",
        action="store_true",
    )
    add("--draw", "DIR", "with --regions: write each image with its boxes to this folder")
    add(
        "--summary",
        "DIR",
        "also write a summary to this folder: shares of classes, bins and materials, with intervals, "
        "corrected for the model's known confusions",
    )
    add("--from", "TIME", "only images taken at this time or later (EXIF or file time)", dest="start")
    add("--to", "TIME", "and before this time, e.g. 2026-11-29T14:30; a day is included", dest="end")
    add("--every", "S", "camera, video: seconds between frames (1; with --regions 0.2)", type=float)
    add("--smoothing", "W", "camera, video: weight of earlier frames (0.5)", type=float, default=SMOOTHING)


def run(args: argparse.Namespace, say: Say) -> int:
    """Answers on standard output; progress, unreadable files and speed go to standard error.

    Returns the exit code, 1 where an image could not be read.
    """
    for name in ("top", "batch_size", "max_pixels"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}: must be >= 1, is {getattr(args, name)}")
    if args.accuracy is not None and args.reject_below is not None:
        raise UserError("--accuracy and --reject-below: give one of them")
    if args.reject_below is not None:
        check_probability(args.reject_below)
    if not (0 <= (args.every or 0) < math.inf and 0 <= args.smoothing < 1):
        raise UserError("--every must be a number of seconds >= 0, and --smoothing from 0 to below 1")
    if args.draw and not args.regions:
        raise UserError("--draw: only with --regions")
    if args.heatmap and args.regions:
        raise UserError("--heatmap and --regions: give one of them")
    _check_data(args)
    _check_places(args)
    predict_parts.check(args)
    video = only_stream(args.images)
    _check_used(args, video)
    if args.out:
        if args.summary or args.start or args.end:
            raise UserError("--out: answers in parts; leave out --summary, --from and --to")
        return predict_parts.run(args)
    _check_written(args)
    names: Sequence[str] = _names(args, video)
    predictor = load_engine(args.model, args.engine, args.taxonomy, args.threads, any_side=args.regions)
    if args.summary:
        predictor.needs_one_label("--summary")
    rows, writer, names = _rows(args, predictor, video, names)
    if args.format != "table" and isinstance(sys.stdout, io.TextIOWrapper):
        # UTF-8, whatever the locale is: what programs read is to keep every name.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    unit = "object" if video and args.regions else "frame" if video else "image"
    if not args.summary:
        return _report(rows, writer, names, (unit, predictor.runtime), say)
    counted = summary.Counted()
    code = _report(counted.watch(rows), writer, names, (unit, predictor.runtime), say)
    unit = "objects" if args.regions else f"{unit}s"
    about = {"source": ", ".join(args.images), "unit": unit, "from": args.start, "to": args.end}
    found = summary.summarize(predictor, counted, about)
    summary.write_summary(Path(args.summary), found)
    for note in found["notes"]:
        _warn(note)
    print(f"written: {Path(args.summary) / 'summary.html'}, and as JSON, CSV and PNG", file=sys.stderr)
    return code


def _names(args: argparse.Namespace, video: str | None) -> list[str]:
    """Returns the images to answer, of the span of time that is asked for; none of a stream or data set."""
    start, end = _span(args, video)
    if video:
        check_stream(video)
    if video or args.data:
        return []
    names = find(args.images, _warn)
    for option in ("summary", "heatmap", "draw"):
        folder = getattr(args, option)
        if folder and (where := beside(folder, args.images, names)):
            raise among(option, folder, where)
    return summary.within(names, start, end, _warn)


def _span(args: argparse.Namespace, video: str | None) -> tuple[datetime | None, datetime | None]:
    """Returns the span of time that is asked for."""
    start = summary.parse_time(args.start, "--from")
    end = summary.parse_time(args.end, "--to", end=True)
    if (start or end) and video:
        raise UserError(f"--from, --to: are for images, and {video} is none")
    if (start or end) and STDIN in args.images:
        raise UserError(
            "--from, --to: are for files; nothing tells when an image on standard input was taken"
        )
    if start and end and start >= end:
        raise UserError(f"--from={args.start} --to={args.end}: the end is not after the start")
    return start, end


def _rows(
    args: argparse.Namespace, predictor: Predictor, video: str | None, names: Sequence[str]
) -> tuple[Any, Any, Sequence[str]]:
    """Returns the answers to come, their writer, and the names of what is answered."""
    if video:
        mark = "#t=0000.000,0000.000" if args.regions else "#t=0000.000"
        return *_frames(args, predictor, video), [f"{video}{mark}"]
    if not args.data:
        return *(_regions if args.regions else _answers)(args, predictor, names), names
    from wastejax.data.sources import open_data  # needs what compares images, which exported files do without

    source = open_data(args.data, "--data", _reading(predictor))
    for note in source.notes:
        _warn(note)
    return *_answers(args, predictor, source.names, source), source.names


def _check_data(args: argparse.Namespace) -> None:
    """Raises a UserError where a data set meets what is for files."""
    given = {"IMAGE": args.images, "--from": args.start, "--to": args.end}
    given |= {f"--{name}": getattr(args, name) for name in ("out", "summary", "heatmap", "regions", "draw")}
    found = next((name for name, value in given.items() if value), None)
    if args.data and found:
        raise UserError(f"--data: not together with {found}")


def _check_used(args: argparse.Namespace, video: str | None) -> None:
    """Raises a UserError for options that would be ignored."""
    frames = video is not None and not args.regions
    only(args, video is not None, "with a camera or a video", every=None)
    only(args, frames, "with a camera or a video, and without --regions", smoothing=SMOOTHING)
    only(args, not args.regions, "without --regions", top=TOP)
    only(args, not args.out, "without --out", top=TOP)
    only(args, video is None, "with images", max_pixels=MAX_PIXELS, heatmap=None, draw=None)
    only(args, video is None and not args.regions, "with images, and without --regions", batch_size=BATCH)


def _check_places(args: argparse.Namespace) -> None:
    """Raises a UserError where what is written would be among the images when the command is given again."""
    for option in ("out", "summary", "heatmap", "draw"):
        folder = getattr(args, option)
        for name in args.images if folder else ():
            if os.path.isdir(name) and Path(folder).resolve().is_relative_to(Path(name).resolve()):  # noqa: PTH112
                raise among(option, folder, name)


def _check_written(args: argparse.Namespace) -> None:
    """Raises a UserError where what is asked for beside the answers could not be written in the end."""
    for option in ("draw", "heatmap", "summary"):
        if getattr(args, option):
            check_folder(getattr(args, option), f"--{option}")
    if args.summary:
        summary.check_packages()


def _reading(predictor: Predictor) -> Reading:
    """Returns how a model's own run read boxes; of an exported file, with the margin that is the default."""
    about = predictor.path / "bundle.json"
    if about.is_file():
        return Reading.of(json.loads(about.read_bytes())["config"])
    return Reading(several=predictor.multilabel)


def _answers(
    args: argparse.Namespace, predictor: Predictor, names: Sequence[str], source: Source | None = None
) -> tuple[Any, Any]:
    """Returns the answers to come and their writer."""
    predictor, reject_below = _naming(args, predictor)
    if args.heatmap:
        dense_of(predictor, "heat maps")
    batch_size = min(args.batch_size, len(names))
    size = predictor.preprocessing.image_size
    # Compiles, which is no part of the speed.
    predictor.probabilities(np.zeros((batch_size, size, size, 3), np.uint8))

    def rows() -> Iterator[Answer]:
        for answer in answers(predictor, names, args.top, batch_size, reject_below, args.max_pixels, source):
            if args.heatmap and answer.guesses:
                label = answer.guesses[0].label
                try:
                    image = read(answer.file, args.max_pixels)
                except (BadImage, OSError) as error:  # it was there a moment ago
                    yield Answer(answer.file, error=str(error))
                    continue
                save_drawn(heat_map(predictor, image, label), args.heatmap, answer.file, label)
            yield answer

    return rows(), WRITERS[args.format]


def _naming(args: argparse.Namespace, predictor: Predictor) -> tuple[Predictor, float]:
    """Returns what `Predictor.naming` does, and says where no answer can be sure."""
    predictor, reject_below = predictor.naming(args.accuracy, args.reject_below)
    if note := nothing_named(reject_below, args.accuracy):
        _warn(note)
    return predictor, reject_below


def _frames(args: argparse.Namespace, predictor: Predictor, video: str) -> tuple[Any, Any]:
    """Returns the answers to come for the frames of a camera or video, and their writer."""
    every = args.every if args.every is not None else EVERY_OBJECT if args.regions else EVERY
    if args.regions:
        answers, least = _region_answers(args, predictor)
        return answers.object_answers(predictor, video, every, least), answers.WRITERS[args.format]
    predictor, reject_below = _naming(args, predictor)
    rows = stream(predictor, video, every, args.smoothing)
    found = (
        Answer(name, error=str(row), named=() if predictor.multilabel else None)
        if isinstance(row, BadImage)
        else interpret(predictor, name, row, args.top, reject_below)
        for name, row in rows
    )
    return found, WRITERS[args.format]


def _regions(args: argparse.Namespace, predictor: Predictor, names: Sequence[str]) -> tuple[Any, Any]:
    """Returns the objects to come and their writer."""
    answers, least = _region_answers(args, predictor)
    rows = answers.region_answers(predictor, names, least, args.draw, args.max_pixels)
    return rows, answers.WRITERS[args.format]


def _region_answers(args: argparse.Namespace, predictor: Predictor) -> tuple[Any, float | None]:
    """Returns the module that finds objects, and the probability that they need; None for the usual one."""
    predictor.needs_one_label("--regions")
    dense_of(predictor, "regions", any_side=True)
    try:  # an installation for exported files need not have it
        import scipy  # noqa: F401
    except ImportError:
        raise MissingPackage("--regions", "scipy", None) from None
    from wastejax.deployment.regions import answers

    return answers, args.reject_below if args.accuracy is None else _naming(args, predictor)[1]


def _report(
    rows: Iterator[Any], writer: Callable[..., Any], names: Sequence[str], how: tuple[str, str], say: Callable
) -> int:
    """Says the rows as they come, then what failed and how fast it was; returns the exit code.

    Args:
        rows: answers to come.
        writer: of `WRITERS`.
        names: the images, empty for a stream.
        how: what a row is about, such as 'image', and the runtime.
        say: takes lines.
    """
    unit, runtime = how
    start, count = time.perf_counter(), 0
    failures: list[Any] = []

    def watched() -> Iterator[Any]:
        nonlocal count
        for answer in rows:
            count += 1
            _progress(count, len(names))
            failures.extend([answer] if answer.error else [])
            yield answer

    for line in writer(watched(), names):
        say(line)
    seconds = time.perf_counter() - start
    for failure in failures:
        print(f"unreadable: {printable(failure.file)}: {failure.error}", file=sys.stderr)
    answered = count - len(failures) if unit == "object" else count  # what cannot be read is no object
    rate = "" if unit == "object" else f", {count / seconds:.1f} {unit}s/s"
    print(f"{number_of(answered, unit)} in {seconds:.1f} s{rate} ({runtime})", file=sys.stderr)
    return 1 if failures else 0


def _warn(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)


def _progress(done: int, total: int) -> None:
    """Shows on a terminal how far it is, where the answers themselves go elsewhere."""
    if done <= total and sys.stderr.isatty() and not sys.stdout.isatty():
        print(f"\r{done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)
