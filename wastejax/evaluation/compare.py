"""Two models on the same images, and whether the difference may be chance."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wastejax.bundle import Bundle, load_bundle
from wastejax.data.corrections import Changes
from wastejax.data.description.meant import Meant, meant_by
from wastejax.data.drawing.dataset import embedded
from wastejax.data.formats.boxes import Reading
from wastejax.data.pipeline import EvalBatches
from wastejax.data.prepare import one_class
from wastejax.data.sources import Source
from wastejax.data.split import load_manifest
from wastejax.errors import UserError
from wastejax.evaluation.by_source import answers_to, right_of, score_meant, tell_uncalibrated
from wastejax.evaluation.evaluate import Evaluation, evaluate
from wastejax.evaluation.images import (
    Asked,
    explained_images,
    given_images,
    own_source,
    readable,
    run_changes,
)
from wastejax.evaluation.metrics import LEVEL, bin_answers, log_softmax, score
from wastejax.progress import Say

SCORES = ("top1", "bin_top1", "macro_f1", "loss", "ece")  # those of each model in the table


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the p-value of McNemar's exact test (McNemar 1947): two-sided, binomial.

    If the models were equally good, each image that one of them alone gets right would be a coin toss.

    Args:
        only_a: images that only the first model gets right.
        only_b: images that only the second one gets right.
    """
    from scipy.stats import binomtest

    tosses = only_a + only_b
    return float(binomtest(only_a, tosses).pvalue) if tosses else 1.0


def paired_interval(only_a: int, only_b: int, count: int, resamples: int = 1000) -> tuple[float, float]:
    """Percentile bootstrap interval of the second model's accuracy minus the first's, on the same images.

    Images are drawn anew with both answers to them, so what both find easy or hard cancels out. As an image has
    one of three outcomes, a resample is one multinomial draw. `count` is of all images, the others are as of
    `mcnemar` and `metrics.bootstrap_interval`. Returns (low, high), fractions.
    """
    shares = np.array([only_a, only_b, count - only_a - only_b]) / count
    drawn = np.random.default_rng(17).multinomial(count, shares, resamples)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / count, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, Any]:
    """Compares the answers of two models to the same images.

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


class _Answers(NamedTuple):
    """Of one model: its scores where labels mean one class, and what it says to all images."""

    single: Evaluation | None
    logits: np.ndarray
    meant: Meant


def compare_models(
    a: str, b: str, asked: Asked, say: Say = lambda line: None, labels: str | Path | None = None
) -> dict[str, Any]:
    """Scores two models on the same images and compares their answers.

    Args:
        a: a run; with `asked.data` also a bundle.
        b: another one.
        asked: the images; its `model` is not read.
        say: is told what is left out.
        labels: what the labels of `asked.data` mean, see `run.evaluate_labels`; None where they are classes.

    Returns:
        `num_images`; `a` and `b`: their `SCORES` and `model`; `top1`, and `bin_top1` where both follow the same
        rules: see `compare`; these of the images whose label means one class, and not with `labels`. With those, or
        of a data description, `per_source`: source -> `a` and `b`, see `score_by_source`, and `right`, see
        `compare`.

    Raises:
        UserError: models or data are not there or do not fit each other, or the runs share no test images.
    """
    bundles = [load_bundle(path) for path in (a, b)]
    for bundle in bundles:
        bundle.needs_one_label("compare")
    margins = [Reading.of(bundle.config).margin for bundle in bundles]
    if margins[0] != margins[1]:
        say(
            f"note: boxes, if there are any, are cut with the margin of {a}, {margins[0]:g}, for both; {b} has "
            f"another, {margins[1]:g}"
        )
    asked = replace(asked, partial=True)
    source, indices = _images((a, b), bundles, asked, labels, say)
    where = asked.data or source.origin
    for bundle in bundles:
        meant_by(source, bundle.classes, where, labels)  # before anything slow
    indices = readable(source, indices, asked, bundles[0], say)
    answers = [_answers(bundle, source, indices, where, labels) for bundle in bundles]
    result: dict[str, Any] = {"num_images": len(indices), "a": {"model": a}, "b": {"model": b}}
    if all(answer.single is not None for answer in answers):
        compared = _compare_single(bundles, answers)
        result |= compared | {key: result[key] | compared[key] for key in ("a", "b")}
    if labels is not None or source.members is not None:
        for bundle in bundles:
            tell_uncalibrated(bundle.path, bundle.thresholds, say)
        result["per_source"] = _compare_sources(bundles, answers)
    return result


def _images(
    paths: tuple[str, str], bundles: Sequence[Bundle], asked: Asked, labels: str | Path | None, say: Say
) -> tuple[Source, np.ndarray]:
    """Returns the images that both are scored on, and their indices."""
    if labels is not None:
        return explained_images(asked, labels, paths, bundles, say)
    if not asked.data:
        return _shared(paths, bundles, say)
    source, indices = given_images(asked, paths, bundles[0].config, say)
    if not len(indices):
        raise UserError(f"--split={asked.split}: {asked.data} has no images of it that both runs share")
    return source, indices


def _answers(
    bundle: Bundle, source: Source, indices: np.ndarray, where: str | Path, labels: str | Path | None
) -> _Answers:
    single, chosen = None, one_class(source, indices)
    if labels is None and len(chosen):
        batches = EvalBatches(source, chosen, bundle.preprocessing, bundle.config["eval"]["batch_size"])
        single = evaluate(bundle.logits, batches, source, bundle.classes, chosen, bundle.bins)
    meant = meant_by(source.select(indices), bundle.classes, where, labels)
    return _Answers(single, answers_to(bundle, source, indices, single), meant)


def _compare_single(bundles: Sequence[Bundle], answers: Sequence[_Answers]) -> dict[str, dict[str, Any]]:
    """Compares the answers to images whose label means one class."""
    scores, correct, right_bins = [], [], []
    same_bins = bundles[0].bins is not None and _rules(bundles[0]) == _rules(bundles[1])
    for bundle, answer in zip(bundles, answers, strict=True):
        result = answer.single
        assert result is not None
        calibrated = result.logits / bundle.temperature  # as `predict` gives them
        found = score(calibrated, result.labels, bundle.classes, bins=bundle.bins)
        scores.append({key: found[key] for key in SCORES if key in found})
        correct.append(result.logits.argmax(axis=1) == result.labels)
        if same_bins and bundle.bins:
            chosen, truth = bin_answers(log_softmax(calibrated), result.labels, bundle.bins)
            right_bins.append(chosen == truth)
    return {
        "a": scores[0],
        "b": scores[1],
        "top1": compare(*correct),
        **({"bin_top1": compare(*right_bins)} if same_bins else {}),
    }


def _compare_sources(bundles: Sequence[Bundle], answers: Sequence[_Answers]) -> dict[str, dict[str, Any]]:
    """Compares the answers to the images of each source, of which at least one shows a class."""
    scores = [
        score_meant(answer.logits, answer.meant, bundle.temperature, bundle.thresholds, bundle.bins_or_own)
        for bundle, answer in zip(bundles, answers, strict=True)
    ]
    right = [right_of(answer.logits, answer.meant.allowed) for answer in answers]
    members, shown = np.array(answers[0].meant.members), answers[0].meant.allowed.any(axis=1)
    result: dict[str, dict[str, Any]] = {}
    for name in scores[0]:
        mine = shown & (members == name)
        result[name] = {"a": scores[0][name], "b": scores[1][name]}
        if mine.any():
            result[name]["right"] = compare(right[0][mine], right[1][mine])
    return result


def _shared(paths: Sequence[str], bundles: Sequence[Bundle], say: Say) -> tuple[Source, np.ndarray]:
    """Returns the images that both runs test with, and says so where they have others too."""
    origins = []
    for path, bundle in zip(paths, bundles, strict=True):
        if not (Path(path) / "manifest.csv").is_file():
            raise UserError(f"{path}: a bundle alone has no test images; give some with --data=DIR")
        data = bundle.config["data"]
        origins.append((data["source"], data["dir"] or str(embedded())))
    if origins[0] != origins[1]:
        (_, a), (_, b) = origins
        raise UserError(
            f"{paths[0]} and {paths[1]} share no test images, their data are {a} and {b}; give some with "
            "--data=DIR"
        )
    source = own_source(bundles[0].config)
    changes = [run_changes(path, source) for path in paths]
    tests = []
    for path, changed in zip(paths, changes, strict=True):
        listed = load_manifest(Path(path) / "manifest.csv", source, changed.labels)
        tests.append(listed.indices[listed.splits == "test"])
    shared = np.intersect1d(*tests)
    if not len(shared):
        raise UserError(
            f"{paths[0]} and {paths[1]} share no test images, their splits differ; give some with --data=DIR"
        )
    counts = [len(test) for test in tests]
    if counts != [len(shared)] * 2:
        say(f"the runs share {len(shared):,} of {counts[0]:,} and {counts[1]:,} test images")
    source = _as_corrected(paths, changes, source.select(shared), say)
    return source, np.arange(len(source))


def _as_corrected(paths: Sequence[str], changes: Sequence[Changes], source: Source, say: Say) -> Source:
    """Returns images labeled as the corrections of both runs have them, without those that these label differently.

    By the labels of one run alone, the other would be scored by what it was not taught.
    """
    joined, apart = changes[0].joined(changes[1])
    labeled = joined.applied(source)
    if not len(labeled):
        raise UserError(
            f"{paths[0]} and {paths[1]} share no test images that their corrections agree on; give some with "
            "--data=DIR"
        )
    there = {*labeled.names}
    counts = [len(there & changed.labels.keys()) for changed in changes]
    used = [f"{path} ({n:,})" for path, n in zip(paths, counts, strict=True) if n]
    said = [f"scored by the corrected labels of {' and '.join(used)}"] if used else []
    left_out = len(apart & {*source.names})
    said += (
        [f"images that the runs' corrections label differently, left out: {left_out:,}"] if left_out else []
    )
    if said:
        say(f"note: {'; '.join(said)}")
    return labeled


def _rules(bundle: Bundle) -> dict[str, str]:
    """Returns the bin of each class."""
    return dict(zip(bundle.classes, bundle.bins or (), strict=False))
