"""`wastejax compare`: two models on the same pictures, and whether the difference may be chance."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, load_bundle
from wastejax.data.drawing.dataset import embedded
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import Source, open_source
from wastejax.data.split import SPLITS, load_manifest
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import evaluate, match_classes
from wastejax.evaluation.metrics import bin_answers, log_softmax
from wastejax.evaluation.pictures import asked_pictures, readable
from wastejax.files import check_file, write_json

Say = Callable[[str], None]
SCORES = ("top1", "bin_top1", "macro_f1", "loss", "ece")  # those of each model in the table


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the p-value of McNemar's exact test (McNemar 1947): two-sided, binomial.

    If the models were equally good, each picture that one of them alone gets right would be a coin toss.

    Args:
        only_a: pictures that only the first model gets right.
        only_b: pictures that only the second one gets right.
    """
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses)


def paired_interval(
    only_a: int, only_b: int, count: int, resamples: int = 1000, seed: int = 17, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the second model's accuracy minus the first's, on the same pictures.

    Pictures are drawn anew with both answers to them, so what both find easy or hard cancels out. As a picture has
    one of three outcomes, a resample is one multinomial draw.

    Args:
        only_a: see `mcnemar`.
        only_b: see `mcnemar`.
        count: of all pictures.
        resamples: see `metrics.bootstrap_interval`.
        seed: see `metrics.bootstrap_interval`.
        level: see `metrics.bootstrap_interval`.

    Returns:
        (low, high), fractions.
    """
    shares = np.array([only_a, only_b, count - only_a - only_b]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, resamples)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / count, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, Any]:
    """Compares the answers of two models to the same pictures.

    Args:
        correct_a: bool [N], whether the first model's answers are right.
        correct_b: bool [N], the second model's, in the same order.

    Returns:
        `difference` of accuracy, second minus first, with `difference_ci95`; `both_right`, `only_a_right`,
        `only_b_right` and `both_wrong` counts; `p_value` of McNemar's exact test.
    """
    only_a, only_b = int(np.sum(correct_a & ~correct_b)), int(np.sum(correct_b & ~correct_a))
    return {
        "difference": (only_b - only_a) / len(correct_a),
        "difference_ci95": list(paired_interval(only_a, only_b, len(correct_a))),
        "both_right": int(np.sum(correct_a & correct_b)),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "both_wrong": int(np.sum(~correct_a & ~correct_b)),
        "p_value": mcnemar(only_a, only_b),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("a", metavar="RUN_A", help="a run, or with --data a bundle")
    parser.add_argument("b", metavar="RUN_B", help="another one")
    parser.add_argument(
        "--data", metavar="DIR", help="class folders (default: the test pictures that the two runs share)"
    )
    parser.add_argument("--split", choices=SPLITS, help="of DIR (default: all of it)")
    parser.add_argument("--out", metavar="JSON", help="also write the comparison there")
    parser.add_argument("--skip_bad", action="store_true", help="leave unreadable pictures out")


def run(args: Any, say: Say) -> None:
    """Compares and prints.

    Args:
        args: a, b, data (or None), split (or None), out (or None), skip_bad.
        say: prints a line.

    Raises:
        UserError: models or data are not there or do not fit each other, or the runs share no test pictures.
    """
    if args.out:
        check_file(args.out, "--out")
    bundles = [load_bundle(path) for path in (args.a, args.b)]
    if args.data:
        asked = SimpleNamespace(model=None, data=args.data, split=args.split)
        source, indices = asked_pictures(asked, {})
    else:
        source, indices = _shared((args.a, args.b), bundles, say)
    for bundle in bundles:
        match_classes(bundle.classes, source.classes)
    indices = readable(source, indices, args, bundles[0], say)
    scores, correct, right_bins = [], [], []
    same_bins = bundles[0].bins is not None and _rules(bundles[0]) == _rules(bundles[1])
    for bundle in bundles:
        batches = EvalBatches(source, indices, bundle.preprocessing, bundle.config["eval"]["batch_size"])
        result = evaluate(bundle.logits, batches, source, bundle.classes, indices, bundle.bins)
        scores.append({key: result.scores[key] for key in SCORES if key in result.scores})
        correct.append(result.logits.argmax(axis=1) == result.labels)
        if same_bins and bundle.bins:
            chosen, truth = bin_answers(log_softmax(result.logits), result.labels, bundle.bins)
            right_bins.append(chosen == truth)
    answer = {
        "num_images": len(indices),
        "a": {"model": args.a, **scores[0]},
        "b": {"model": args.b, **scores[1]},
        "top1": compare(*correct),
        **({"bin_top1": compare(*right_bins)} if same_bins else {}),
    }
    for line in lines(answer):
        say(line)
    if args.out:
        write_json(Path(args.out), answer)
        say(f"written: {args.out}")


def lines(answer: dict[str, Any]) -> list[str]:
    """Returns a comparison for people; see `run` for its keys."""
    a, b = answer["a"], answer["b"]
    text = [f"{answer['num_images']:,} pictures", f"A: {a['model']}", f"B: {b['model']}", ""]
    text.append(f"{'':12} {'A':>8} {'B':>8} {'B - A':>9}")
    text += [_row(key, a[key], b[key], answer.get(key)) for key in SCORES if key in a and key in b]
    for key, what in (("top1", "class"), ("bin_top1", "bin")):
        if key in answer:
            text += ["", *_verdict(what, answer[key])]
    return text


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


def _shared(paths: Sequence[str], bundles: Sequence[Bundle], say: Say) -> tuple[Source, np.ndarray]:
    """Returns the pictures that both runs test with, and says so where they have others too."""
    origins = []
    for path, bundle in zip(paths, bundles, strict=True):
        if not (Path(path) / "manifest.csv").is_file():
            raise UserError(f"{path}: a bundle alone has no test pictures; give some with --data=DIR")
        data = bundle.config["data"]
        origins.append((data["source"], data["dir"] or str(embedded())))
    if origins[0] != origins[1]:
        (_, a), (_, b) = origins
        raise UserError(
            f"{paths[0]} and {paths[1]} share no test pictures, their data are {a} and {b}; give some with "
            "--data=DIR"
        )
    source = open_source(*origins[0])
    tests = []
    for path in paths:
        listed = load_manifest(Path(path) / "manifest.csv", source)
        tests.append(listed.indices[listed.splits == "test"])
    shared = np.intersect1d(*tests)
    if not len(shared):
        raise UserError(
            f"{paths[0]} and {paths[1]} share no test pictures, their splits differ; give some with --data=DIR"
        )
    counts = [len(test) for test in tests]
    if counts != [len(shared)] * 2:
        say(f"the runs share {len(shared):,} of {counts[0]:,} and {counts[1]:,} test pictures")
    source = source.select(shared)
    return source, np.arange(len(source))


def _rules(bundle: Bundle) -> dict[str, str]:
    """Returns the bin of each class."""
    return dict(zip(bundle.classes, bundle.bins or (), strict=False))
