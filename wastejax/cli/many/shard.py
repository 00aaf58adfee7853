"""`wastejax shard`: checks, groups and splits images once, and writes them as shards to train from."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import config as configs
from wastejax.cli import only, options
from wastejax.data.cache import cache_dir
from wastejax.data.collections.shards import INDEX, PREFIX, SHARD_SIZE, Rows, write_shards
from wastejax.data.description import is_description
from wastejax.data.prepare import Dataset, prepare
from wastejax.data.prepare.checks import made_with
from wastejax.data.sources import check_outside
from wastejax.data.split import SPLITS
from wastejax.errors import ConfigError, UserError
from wastejax.files import check_folder
from wastejax.progress import Bars, Say

# Keys of the config, and the options that set them here; unreadable images are a fault of the data.
OPTIONS = {
    "seed": "--seed",
    "data.dir": "--data",
    "data.on_bad_image": "--data",
    "data.split.ratios": "--ratios",
    "data.split.group": "--group",
    "data.split.hamming": "--hamming",
    "data.split.manifest": "--manifest",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--data", "DIR", "images, in any layout of config.data.dir; they are not changed", required=True)
    add("--out", "DIR", "folder for the shards and their index", required=True)
    add("--seed", "N", "seed of the split (17, as in the recipes)", type=int, default=17)
    add("--ratios", "R", "ratios of train, val and test (3,1,1)", default="3,1,1")
    add(
        "--group",
        None,
        "what keeps images on one side of the split: near-duplicates, or nothing (phash)",
        choices=("phash", "none"),
        default="phash",
    )
    add("--hamming", "N", "see config.data.split.hamming (8)", type=int, default=8)
    add("--manifest", "CSV", "a split of your own; see audit", default="")
    add("--skip-bad", None, "leave unreadable images out and count them", action="store_true")
    add("--shard-size", "N", f"images per file ({SHARD_SIZE:,})", type=int, default=SHARD_SIZE)


def run(args: argparse.Namespace, say: Say) -> None:
    """Writes the shards."""
    folder = Path(args.out)
    if is_description(args.data):
        raise UserError(
            f"--data={args.data}: a data description cannot be written as shards; give one of its sources"
        )
    check_outside(folder, "--out", args.data, "its files")
    split = {"ratios": "3,1,1", "group": "phash", "hamming": 8, "seed": 17}
    only(args, not args.manifest, "without --manifest, which says the split", **split)
    only(args, args.group == "phash", "with --group=phash", hamming=8)
    if args.shard_size < 1:
        raise UserError(f"--shard-size: must be >= 1, is {args.shard_size}")
    check_folder(folder, "--out")
    if (folder / INDEX).is_file():
        raise UserError(f"--out={args.out}: holds shards already; name another folder, or remove it")
    found, made = _prepare(args, say)
    with Bars() as progress:
        write_shards(
            folder,
            Rows(found.source, found.groups, np.asarray(found.splits), np.asarray(found.phash)),
            {"notes": found.notes, "skipped": found.skipped, "made": made},
            args.shard_size,
            lambda done, total: progress("writing", done, total),
        )
    found.tell(lambda line: say(_by_options(line)))
    say(f"written: {folder}; train with --config.data.source={PREFIX}{folder}")


def _prepare(args: argparse.Namespace, say: Say) -> tuple[Dataset, dict[str, Any]]:
    """Returns the images, checked, grouped and split, and what `made_with` says of that, with the seed that dealt.

    Raises:
        UserError: they or an option are wrong; the message names options where `prepare` names keys.
    """
    config = configs.load_recipe("mobilevit_ir")  # of any: only what it says of the split is used
    given = {
        "seed": args.seed,
        "data.dir": args.data,
        "data.on_bad_image": "skip" if args.skip_bad else "raise",
        "data.split.ratios": args.ratios,
        "data.split.group": args.group,
        "data.split.hamming": args.hamming,
        "data.split.manifest": args.manifest,
    }
    try:
        configs.apply_overrides(config, [f"--config.{key}={value}" for key, value in given.items()])
        configs.check(config)
        found = prepare(config.data, config.seed, cache_dir(), say)
    except ConfigError as error:
        raise UserError(_by_options(str(error))) from None
    is_given = args.manifest or set(SPLITS) <= set(found.source.splits or ())
    return found, made_with(config.data) | ({} if is_given else {"seed": config.seed})


def _by_options(text: str) -> str:
    """Returns a message with the options of this command in place of the keys that they set."""
    text = text.replace("--config.data.on_bad_image=skip", "--skip-bad")
    return re.sub(r"(--)?config\.(\w+(\.\w+)*)", lambda found: OPTIONS.get(found[2], found[0]), text)
