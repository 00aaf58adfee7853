"""`wastejax eval`: a run or bundle, scored on a folder of images or on its run's own test split."""

import argparse
from typing import Any

from wastejax.bundle import Bundle
from wastejax.cli import SHARED, check_written, only, options, write_out
from wastejax.data.formats.boxes import MULTILABEL
from wastejax.data.split import shorten
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report.sources import source_table
from wastejax.evaluation.run import evaluate_labels, evaluate_model
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--model", "RUN_OR_BUNDLE", "(default: the bundled model)")
    add("--taxonomy", *SHARED["--taxonomy"])
    add("--data", "DATA", "labeled images, in any layout of config.data.dir (default: the run's own images)")
    add("--split", *SHARED["--split"])
    add("--ood", "DIR", "out-of-distribution images: how well does the model detect them?")
    add("--calibrate", None, "first calibrate the model on the validation images", action="store_true")
    add("--labels", *SHARED["--labels"])
    add("--corrections", *SHARED["--corrections"])
    add("--review", "HTML", "write a page with the mistakes, for correcting labels in a browser")
    add("--out", "JSON", "also write the scores to this file")
    add("--skip-bad", *SHARED["--skip-bad"], action="store_true")


def run(args: argparse.Namespace, say: Say) -> None:
    """Evaluates and prints."""
    asked = Asked(args.model, args.data, args.split, args.skip_bad, args.corrections)
    read = ("data", "labels", "corrections", "ood")
    check_written(args, "out", *read)
    check_written(args, "review", *read, "out")
    only(args, bool(args.data), "with --data, the folder whose labels it explains", labels=None)
    if args.labels:
        _run_labels(args, asked, say)
        return
    bundle, scores = evaluate_model(asked, args.taxonomy, args.ood, args.calibrate, say, args.review)
    if scores.get("kind") == MULTILABEL:
        _say_several(bundle, scores, say)
        write_out(args, scores, say)
        return
    if "top1" in scores:
        _say_one_class(bundle, scores, say)
    if "per_source" in scores:
        say("by source, also images whose label means several classes or none:")
        for line in source_table(scores["per_source"]):
            say(line)
    write_out(args, scores, say)


def _say_one_class(bundle: Bundle, scores: dict[str, Any], say: Say) -> None:
    """Says what a model scores on images whose label means one class."""
    low, high = scores["ci95"]
    classes = sum(1 for of_class in scores["per_class"].values() if of_class["support"])
    say(f"{scores['num_images']:,} images of {classes} classes")
    say(f"top-1 {scores['top1']:.1%}  (95 % interval {low:.1%} to {high:.1%})   top-5 {scores['top5']:.1%}")
    told = scores["calibration"]  # what `predict` says: with the temperature
    say(f"macro-F1 {scores['macro_f1']:.1%}   loss {told['loss']:.3f}   calibration error {told['ece']:.1%}")
    _say_trust(bundle, scores, say)
    _say_bins(bundle, scores, say)
    for domain, of_domain in scores["per_domain"].items():
        say(f"  {domain}: top-1 {of_domain['top1']:.1%} of {of_domain['num_images']:,}")


def _say_several(bundle: Bundle, scores: dict[str, Any], say: Say) -> None:
    """Says what a multi-label model scores."""
    classes = {name: c for name, c in scores["per_class"].items() if c["support"]}
    say(f"{scores['num_images']:,} images that show any of {len(classes)} classes")
    low, high = scores["macro_ap_ci95"]
    say(f"macro average precision {scores['macro_ap']:.1%}  (95 % interval {low:.1%} to {high:.1%})")
    low, high = scores["exact_ci95"]
    say(
        f"macro-F1 {scores['macro_f1']:.1%}   micro-F1 {scores['micro_f1']:.1%}   exactly the right classes "
        f"{scores['exact']:.1%}  (95 % interval {low:.1%} to {high:.1%})"
    )
    if not bundle.class_thresholds:
        say(
            "no thresholds were chosen: each class is named from 50 % on; --calibrate chooses on validation images"
        )
    for name, c in classes.items():
        say(
            f"  {name}: average precision {c['average_precision']:.1%} of {c['support']:,}; named from "
            f"{c['threshold']:.1%} on: precision {c['precision']:.1%}, recall {c['recall']:.1%}"
        )
    _say_bins(bundle, scores, say)


def _run_labels(args: argparse.Namespace, asked: Asked, say: Say) -> None:
    for name in ("split", "ood", "calibrate", "corrections", "review"):
        if getattr(args, name):
            raise UserError(f"--labels and --{name}: give one of them")
    scores = evaluate_labels(asked, args.labels, args.taxonomy, say)
    for line in source_table(scores):
        say(line)
    write_out(args, scores, say)


def _say_trust(bundle: Bundle, scores: dict[str, Any], say: Say) -> None:
    calibrated = scores["calibration"]
    if scores["selective"]["at"]:
        if calibrated["temperature"] != 1:
            say(
                f"that is with its temperature, {calibrated['temperature']:.2f}, as in predict; without it: "
                f"loss {scores['loss']:.3f}   calibration error {scores['ece']:.1%}"
            )
    else:
        say("the model was never calibrated; --calibrate does it, on validation images")
    for wanted, kept in scores["selective"]["at"].items():
        if kept["threshold"] is None:
            say(f"  {float(wanted):.0%} right: out of reach on the validation images")
        elif kept["accuracy"] is None:
            say(f"  {float(wanted):.0%} right aimed at: answers none")
        else:
            say(
                f"  {float(wanted):.0%} right aimed at: answers {kept['coverage']:.1%}, of these "
                f"{kept['accuracy']:.1%} right (reject below {kept['threshold']:.1%})"
            )
        of_bins = scores.get("selective_bins", {}).get(wanted, {"accuracy": None})
        if of_bins["accuracy"] is not None:
            what = "bin" if bundle.bins else "bin, or a class without a rule,"
            say(
                f"    names the {what} of {of_bins['coverage']:.1%}, of these {of_bins['accuracy']:.1%} right"
            )
    if "ood" in scores:
        say(
            f"detection of {scores['ood']['num_images']:,} out-of-distribution images "
            f"({scores['ood']['pictures']}):"
        )
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
    several = "bin_exact" in scores
    low, high = scores["bin_exact_ci95" if several else "bin_ci95"]
    what, right = ("exactly the right bins", "bin_exact") if several else ("right bin", "bin_top1")
    say(f"{what} {scores[right]:.1%}  (95 % interval {low:.1%} to {high:.1%})")
    for name, of_bin in scores["per_bin"].items():
        if of_bin["support"]:
            english = bundle.taxonomy.bins[name].name()
            say(f"  {english}: {of_bin['recall']:.1%} of {of_bin['support']:,} found")
