"""`wastejax eval`: a run or bundle, scored on a folder of pictures or on its run's own test split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, default_bundle, load_bundle
from wastejax.data import pipeline
from wastejax.data.cache import cache_dir
from wastejax.data.duplicates import scan
from wastejax.data.sources import Source, open_folder, open_source
from wastejax.data.split import SPLITS, load_manifest, shorten
from wastejax.data.synthetic import embedded
from wastejax.errors import UserError, nearest
from wastejax.evaluation.evaluate import evaluate, match_classes
from wastejax.files import write_json


def run(args: Any, say: Callable[[str], None]) -> None:
    """Evaluates and prints.

    Args:
        args: model (run or bundle, or None for the one that comes along), data (folder, or None for the run's),
            split (or None), out (JSON, or None).
        say: prints a line.

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.
    """
    if args.split not in (None, *SPLITS):
        raise UserError(f"--split={args.split}: no such split{nearest(args.split, SPLITS)}")
    bundle = load_bundle(args.model or default_bundle())
    source, indices = asked_pictures(args, bundle.config["data"])
    match_classes(bundle.classes, source.classes)
    bad = scan(source.select(indices), cache_dir()).bad
    if bad:
        names = "; ".join(f"{source.names[indices[i]]}: {reason}" for i, reason in sorted(bad.items()))
        if bundle.config["data"]["on_bad_image"] == "raise" and not args.skip_bad:
            raise UserError(f"{len(bad)} pictures cannot be read ({names}); mend them, or use --skip_bad")
        say(f"left out: {names}")
        indices = np.delete(indices, list(bad))
    batches = pipeline.EvalBatches(source, indices, bundle.preprocessing, bundle.config["eval"]["batch_size"])
    scores = evaluate(bundle.logits, batches, source, bundle.classes, indices, bundle.bins).scores
    low, high = scores["ci95"]
    say(f"{scores['num_images']:,} pictures of {len(source.classes)} classes")
    say(f"top-1 {scores['top1']:.1%}  (95 % interval {low:.1%} to {high:.1%})   top-5 {scores['top5']:.1%}")
    say(
        f"macro-F1 {scores['macro_f1']:.1%}   loss {scores['loss']:.3f}   calibration error {scores['ece']:.1%}"
    )
    _say_bins(bundle, scores, say)
    for domain, of_domain in scores["per_domain"].items():
        say(f"  {domain}: top-1 {of_domain['top1']:.1%} of {of_domain['num_images']:,}")
    if args.out:
        write_json(Path(args.out), scores)
        say(f"written: {args.out}")


def _say_bins(bundle: Bundle, scores: dict[str, Any], say: Callable[[str], None]) -> None:
    if bundle.bins is None:
        unknown = ", ".join(shorten(bundle.taxonomy.unknown(bundle.classes)))
        say(f"no bin accuracy: {bundle.taxonomy.name}'s rules lack {unknown}; see config.data.taxonomy")
        return
    low, high = scores["bin_ci95"]
    say(f"right bin {scores['bin_top1']:.1%}  (95 % interval {low:.1%} to {high:.1%})")
    for name, of_bin in scores["per_bin"].items():
        if of_bin["support"]:
            english = bundle.taxonomy.bins[name].en
            say(f"  {english}: {of_bin['recall']:.1%} of {of_bin['support']:,} found")


def asked_pictures(args: Any, data: dict[str, Any]) -> tuple[Source, np.ndarray]:
    """Returns a source and the pictures of it that are asked for, indices int64; see `run`.

    Args:
        args: model, data and split.
        data: the `data` section of the model's config.
    """
    if args.data:
        source = open_folder(args.data, key="--data")
        if not args.split:
            return source, np.arange(len(source))
        if source.splits is None:
            raise UserError(
                f"--split={args.split}: {args.data} has no {args.split}/ folder; leave --split out"
            )
        return source, np.flatnonzero(np.array(source.splits) == args.split)
    manifest = Path(args.model or "") / "manifest.csv"
    if not (args.model and manifest.is_file()):
        raise UserError("--data: a bundle alone has no pictures; give a folder, one sub-folder per class")
    source = open_source(data["source"], data["dir"] or str(embedded()))
    listed = load_manifest(manifest, source)
    return source, listed.indices[listed.splits == (args.split or "test")]
