"""`wastejax eval`: a run or bundle, scored on a folder of pictures or on its run's own test split."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, default_bundle, load_bundle
from wastejax.data.drawing.dataset import embedded
from wastejax.data.pipeline import EvalBatches
from wastejax.data.prepare import pictures_of
from wastejax.data.sources import Source, open_folder, open_pictures, open_source
from wastejax.data.split import SPLITS, shorten
from wastejax.errors import UserError, nearest
from wastejax.evaluation.evaluate import evaluate, match_classes, predict_logits
from wastejax.evaluation.pictures import asked_pictures, readable
from wastejax.evaluation.trust import Calibration, calibrate_bundle, score_trust
from wastejax.files import check_file, check_folder, write_json

Say = Callable[[str], None]


def run(args: Any, say: Say) -> None:
    """Evaluates and prints.

    Args:
        args: model (run or bundle, or None for the one that comes along), data (folder, or None for the run's),
            split, taxonomy, ood (folder; each or None), calibrate (bool), skip_bad (bool), out (JSON, or None).
        say: prints a line.

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.
    """
    if args.split not in (None, *SPLITS):
        raise UserError(f"--split={args.split}: no such split{nearest(args.split, SPLITS)}")
    if args.out:
        check_file(args.out, "--out")
    bundle = load_bundle(args.model or default_bundle(), args.taxonomy)
    if args.calibrate:
        check_folder(bundle.path, "--calibrate: --model")
    source, indices = asked_pictures(args, bundle.config["data"])
    match_classes(bundle.classes, source.classes)
    foreign, origin = _foreign(args, bundle.config["data"])
    calibration = Calibration(bundle.temperature, bundle.thresholds)
    if args.calibrate:
        calibration = _calibrate(args, bundle, say)
    indices = readable(source, indices, args, bundle, say)
    batch_size = bundle.config["eval"]["batch_size"]
    batches = EvalBatches(source, indices, bundle.preprocessing, batch_size)
    result = evaluate(bundle.logits, batches, source, bundle.classes, indices, bundle.bins)
    outside = None
    if foreign is not None:
        chosen = readable(foreign, np.arange(len(foreign)), args, bundle, say)
        outside, _ = predict_logits(
            bundle.logits, EvalBatches(foreign, chosen, bundle.preprocessing, batch_size)
        )
    scores = result.scores | score_trust(result.logits, result.labels, calibration, outside)
    if outside is not None:
        scores["ood"]["pictures"] = origin
    low, high = scores["ci95"]
    say(f"{scores['num_images']:,} pictures of {len(source.classes)} classes")
    say(f"top-1 {scores['top1']:.1%}  (95 % interval {low:.1%} to {high:.1%})   top-5 {scores['top5']:.1%}")
    say(
        f"macro-F1 {scores['macro_f1']:.1%}   loss {scores['loss']:.3f}   calibration error {scores['ece']:.1%}"
    )
    _say_trust(scores, say)
    _say_bins(bundle, scores, say)
    for domain, of_domain in scores["per_domain"].items():
        say(f"  {domain}: top-1 {of_domain['top1']:.1%} of {of_domain['num_images']:,}")
    if args.out:
        write_json(Path(args.out), scores)
        say(f"written: {args.out}")


def _say_trust(scores: dict[str, Any], say: Say) -> None:
    calibrated = scores["calibration"]
    if scores["selective"]["at"]:
        say(
            f"with temperature {calibrated['temperature']:.2f}: loss {calibrated['loss']:.3f}   "
            f"calibration error {calibrated['ece']:.1%}"
        )
    else:
        say("the model was never calibrated; --calibrate does it, on validation pictures")
    for wanted, kept in scores["selective"]["at"].items():
        if kept["threshold"] is None:
            say(f"  {float(wanted):.0%} right: out of reach on the validation pictures")
        elif kept["accuracy"] is None:
            say(f"  {float(wanted):.0%} right aimed at: answers none")
        else:
            say(
                f"  {float(wanted):.0%} right aimed at: answers {kept['coverage']:.1%}, of these "
                f"{kept['accuracy']:.1%} right (reject below {kept['threshold']:.1%})"
            )
    if "ood" in scores:
        say(f"told from {scores['ood']['num_images']:,} foreign pictures ({scores['ood']['pictures']}):")
        for name, of_score in scores["ood"]["scores"].items():
            low, high = of_score["auroc_ci95"]
            say(
                f"  by {name.replace('_', ' ')}: AUROC {of_score['auroc']:.3f} (95 % interval {low:.3f} to "
                f"{high:.3f}), {of_score['fpr95']:.1%} pass where 95 % of the own do"
            )
        for wanted, rejected in scores["ood"]["rejected"].items():
            say(f"  {rejected['share']:.1%} of them rejected at the threshold for {float(wanted):.0%} right")


def _say_bins(bundle: Bundle, scores: dict[str, Any], say: Say) -> None:
    if bundle.bins is None:
        unknown = ", ".join(shorten(bundle.taxonomy.unknown(bundle.classes)))
        say(f"no bin accuracy: {bundle.taxonomy.name}'s rules lack {unknown}; see config.data.taxonomy")
        return
    low, high = scores["bin_ci95"]
    say(f"right bin {scores['bin_top1']:.1%}  (95 % interval {low:.1%} to {high:.1%})")
    for name, of_bin in scores["per_bin"].items():
        if of_bin["support"]:
            english = bundle.taxonomy.bins[name].name()
            say(f"  {english}: {of_bin['recall']:.1%} of {of_bin['support']:,} found")


def _foreign(args: Any, data: dict[str, Any]) -> tuple[Source | None, str]:
    """Returns pictures that show none of the classes, if there are any, and what to call them."""
    if args.ood:
        return open_pictures(args.ood, "--ood"), Path(args.ood).resolve().name
    names = data.get("leave_out", ())
    if args.data or not names:
        return None, ""
    source = open_source(data["source"], data["dir"] or str(embedded()))
    return source.select(pictures_of(source, names)), f"left out of training: {', '.join(names)}"


def _calibrate(args: Any, bundle: Bundle, say: Say) -> Calibration:
    """Calibrates the bundle on the validation pictures of the run, or of the folder that is given."""
    if args.data and "val" not in (open_folder(args.data, key="--data").splits or ()):
        raise UserError(f"--calibrate: {args.data} has no val/ folder of pictures to do it on")
    asked = SimpleNamespace(model=args.model, data=args.data, split="val")
    source, indices = asked_pictures(asked, bundle.config["data"])
    match_classes(bundle.classes, source.classes)
    indices = readable(source, indices, args, bundle, say)
    calibration = calibrate_bundle(bundle, source, indices)
    say(f"calibrated on {len(indices):,} validation pictures; kept in {bundle.path}")
    return calibration
