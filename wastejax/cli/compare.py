"""`wastejax compare`: two models on the same images, and whether the difference may be chance."""

import argparse
from typing import Any

from wastejax.cli import SHARED, check_written, only, options, write_out
from wastejax.data.split import SPLITS
from wastejax.evaluation.compare import SCORES, compare_models
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report.markdown import table
from wastejax.evaluation.report.sources import COLUMNS, FACTS, with_interval
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("a", "RUN_A", "a run, or with --data a bundle")
    add("b", "RUN_B", "another one")
    add(
        "--data",
        "DATA",
        "labeled images, in any layout of config.data.dir (default: the test images that the two runs share)",
    )
    add("--split", None, "of DATA (default: all that neither run has learned from)", choices=SPLITS)
    add("--labels", *SHARED["--labels"])
    add("--corrections", "CSV", "corrected labels of DATA, as the review page saves them")
    add("--out", "JSON", "also write the comparison to this file")
    add("--skip-bad", *SHARED["--skip-bad"], action="store_true")


def run(args: argparse.Namespace, say: Say) -> None:
    """Compares and prints."""
    check_written(args, "out", "data", "labels", "corrections")
    only(args, bool(args.data), "with --data", split=None, labels=None, corrections=None)
    only(args, not args.labels, "without --labels", split=None, corrections=None)
    asked = Asked(None, args.data, args.split, args.skip_bad, args.corrections)
    answer = compare_models(args.a, args.b, asked, say, args.labels)
    for line in lines(answer):
        say(line)
    write_out(args, answer, say)


def lines(answer: dict[str, Any]) -> list[str]:
    """Returns a comparison for people; see `compare_models` for its keys."""
    a, b = answer["a"], answer["b"]
    text = [f"{answer['num_images']:,} images", f"A: {a['model']}", f"B: {b['model']}", ""]
    if "top1" in answer:
        text.append(f"{'':12} {'A':>8} {'B':>8} {'B - A':>9}")
        text += [_row(key, a[key], b[key], answer.get(key)) for key in SCORES if key in a and key in b]
    for key, what in (("top1", "class"), ("bin_top1", "bin")):
        if key in answer:
            text += ["", *_verdict(what, answer[key])]
    if "per_source" in answer:
        text += [""] if "top1" in answer else []
        text += _sources(answer["per_source"])
    return text


def _sources(sources: dict[str, dict[str, Any]]) -> list[str]:
    """Returns a table of what A and B do on each source."""
    rows = []
    for name, both in sources.items():
        facts = [" / ".join(with_interval(both[model], fact) for model in "ab") for fact in FACTS]
        gain = "–"
        if "right" in both:
            low, high = both["right"]["difference_ci95"]
            gain = f"{100 * both['right']['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        count = both["a"]["num_images"] + both["a"]["num_outliers"]
        rows.append((name, f"{count:,}", gain, *facts))
    return [
        "by source, A / B, in brackets 95 % intervals:",
        *table(("source", "images", "right: B - A", *COLUMNS[1:]), rows),
    ]


def _row(key: str, a: float, b: float, compared: dict[str, Any] | None) -> str:
    if key == "loss":
        return f"{key:12} {a:8.3f} {b:8.3f} {b - a:+9.3f}"
    interval = ""
    if compared:
        low, high = compared["difference_ci95"]
        interval = f"  (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    return f"{key:12} {a:8.1%} {b:8.1%} {100 * (b - a):+9.1f}{interval}"


def _verdict(what: str, compared: dict[str, Any]) -> list[str]:
    p = compared["p_value"]
    said = "unlikely to be chance" if p < 0.05 else "may be chance"
    return [
        f"the right {what}: both {compared['both_right']:,}, only A {compared['only_a_right']:,}, only B "
        f"{compared['only_b_right']:,}, neither {compared['both_wrong']:,}",
        f"McNemar's exact test: p = {p:.2g}, the difference {said}",
    ]
