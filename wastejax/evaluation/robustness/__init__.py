"""How a model's accuracy falls as its images get worse, by kind and by degree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, default_bundle, load_bundle
from wastejax.bundled import name_of
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import Source
from wastejax.evaluation.evaluate import evaluate, match_classes
from wastejax.evaluation.images import Asked, asked_images, readable
from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic
from wastejax.evaluation.robustness.corruptions import KINDS, corrupted
from wastejax.progress import Count, Say

Point = tuple[str, float]  # kind and severity of a corruption
CLEAN: Point = ("rotation", KINDS["rotation"].clean)  # any kind's would do


def measure_model(
    asked: Asked,
    limit: int | None = None,
    progress: Count = lambda done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measures a run or bundle on the images that are asked for.

    Args:
        asked: the model and the images.
        limit: at most so many of them, evenly spread; None for all.
        progress: called with (done, total) corruptions.
        say: is told what is left out.

    Returns:
        `model` and `data`, their names; `available_images`; and what `summary` returns.

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.
    """
    bundle = load_bundle(asked.model or default_bundle())
    bundle.needs_one_label("robustness")
    source, indices = asked_images(asked, bundle.config, say)
    match_classes(bundle.classes, source.classes)
    indices = readable(source, indices, asked, bundle, say)
    available = len(indices)
    correct, labels = measure(bundle, source, spread(indices, limit), progress)
    return {
        "model": name_of(asked.model),
        "data": _name(asked.data, bundle.config["data"]),
        "available_images": available,
        **summary(correct, labels, bundle.classes),
    }


def _name(given: str | Path | None, own: Mapping[str, Any]) -> str:
    """Returns what images are called: those given, or the run's own by its `config.data`."""
    if given:
        return Path(given).resolve().name
    kind, _, behind = own["source"].partition(":")
    return behind if kind == "tfds" else Path(behind or own["dir"] or "drawn").resolve().name


def spread(indices: np.ndarray, limit: int | None) -> np.ndarray:
    """Returns at most `limit` of the indices, evenly spaced; images lie by class, so each keeps its share."""
    if limit is None or limit >= len(indices):
        return indices
    return indices[np.arange(limit) * len(indices) // limit]


def points() -> list[Point]:
    """Returns every corruption that is measured, the clean one first."""
    return [CLEAN, *((name, severity) for name, kind in KINDS.items() for severity in kind.severities)]


def measure(
    bundle: Bundle,
    source: Source,
    indices: np.ndarray,
    progress: Count = lambda done, total: None,
) -> tuple[dict[Point, np.ndarray], np.ndarray]:
    """Asks a model about the same images at every kind and severity of corruption.

    The decoded image is corrupted; then comes the bundle's own preprocessing.

    Args:
        bundle: the model.
        source: the images.
        indices: int64 [N], which of them.
        progress: called with (done, total) corruptions.

    Returns:
        For each of `points()`, whether each answer is right, bool [N]; and the true classes, int [N], indices into
        the model's classes.

    Raises:
        UserError: there are no images.
    """
    correct, labels = {}, np.zeros(0, np.int32)
    for done, point in enumerate(points()):
        batches = EvalBatches(
            corrupted(source, *point), indices, bundle.preprocessing, bundle.config["eval"]["batch_size"]
        )
        answers = evaluate(bundle.logits, batches, source, bundle.classes, indices)
        labels = answers.labels
        correct[point] = answers.logits.argmax(axis=1) == labels
        progress(done + 1, len(points()))
    return correct, labels


def summary(
    correct: Mapping[Point, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Returns what the answers to corrupted images say about a model.

    Args:
        correct: see `measure`.
        labels: int [N], true classes.
        classes: the names of the model's classes.

    Returns:
        A dict ready for `json.dumps`; rates are fractions, intervals 95 % bootstrap intervals over images.
        `num_images`; `clean` {top1, ci95}; `relative_accuracy`, the mean over the kinds of the mean top-1 over
        their severities, divided by the clean top-1 (1: nothing is lost; every kind counts the same), with
        `relative_ci95`; `kinds` {kind: {unit, relative_accuracy, points: [{severity, top1, ci95}]}}; `per_class`
        {class: {num_images, clean, worst, kind, severity}}, the share recognized on clean images and under the
        corruption that hurts the class most.
    """
    clean = correct[CLEAN]
    kinds = {}
    for name, kind in KINDS.items():
        rows = [correct[name, severity] for severity in kind.severities]
        kinds[name] = {
            "unit": kind.unit,
            "relative_accuracy": relative_accuracy(np.stack([clean, *rows], 1), [len(rows)]),
            "points": [
                {"severity": severity, **_rate(row)}
                for severity, row in zip(kind.severities, rows, strict=True)
            ],
        }
    matrix = np.stack([correct[point] for point in points()], 1)
    sizes = [len(kind.severities) for kind in KINDS.values()]
    interval = bootstrap_statistic(lambda rows: relative_accuracy(rows, sizes), matrix)
    return {
        "num_images": len(labels),
        "clean": _rate(clean),
        "relative_accuracy": relative_accuracy(matrix, sizes),
        "relative_ci95": list(interval),
        "kinds": kinds,
        "per_class": _per_class(correct, labels, classes),
    }


def relative_accuracy(correct: np.ndarray, sizes: Sequence[int]) -> float:
    """Mean over the kinds of their mean accuracy, relative to clean images; 0 where none of these is right.

    Args:
        correct: bool [N, 1 + sum(sizes)], a row per image; the clean answers, then those of kind after kind.
        sizes: how many severities each kind has.
    """
    rates = correct.mean(axis=0)
    of_kinds = [part.mean() for part in np.split(rates[1:], np.cumsum(sizes)[:-1])]
    return float(np.mean(of_kinds) / rates[0]) if rates[0] else 0.0


def _rate(correct: np.ndarray) -> dict[str, Any]:
    return {"top1": float(correct.mean()), "ci95": list(bootstrap_interval(correct))}


def _per_class(
    correct: Mapping[Point, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    rows = {}
    for label in np.unique(labels):
        mine = labels == label
        rates = {point: float(right[mine].mean()) for point, right in correct.items()}
        kind, severity = min(rates, key=lambda point: rates[point])
        rows[classes[label]] = {
            "num_images": int(mine.sum()),
            "clean": rates[CLEAN],
            "worst": rates[kind, severity],
            "kind": kind,
            "severity": severity,
        }
    return rows
