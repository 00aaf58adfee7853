"""How far a model's answers can be trusted: what is fitted on validation images, and how it does on others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from wastejax.bundle import Bundle, keep_calibration, keep_class_thresholds
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import Source
from wastejax.data.taxonomy import all_known, some_known
from wastejax.evaluation.calibration import fit_temperature, helps, score_calibration
from wastejax.evaluation.evaluate import evaluate, evaluate_several
from wastejax.evaluation.metrics import log_softmax, score_bins
from wastejax.evaluation.metrics.multilabel import choose_class_thresholds, sigmoid
from wastejax.evaluation.ood import bin_probability, max_probability, score_ood
from wastejax.evaluation.prior import trained_on
from wastejax.evaluation.selective import choose_thresholds, score_selective


class Calibration(NamedTuple):
    """What validation images say about a model's confidence.

    Attributes:
        temperature: what logits are divided by before they become probabilities.
        thresholds: see `selective.choose_thresholds`; empty where the model was never calibrated.
    """

    temperature: float
    thresholds: Mapping[str, float | None]


def calibrate(logits: np.ndarray, labels: np.ndarray, bins: Sequence[str] | None = None) -> Calibration:
    """Fits the temperature, and with it chooses the thresholds.

    A temperature that helps on these images no more than chance would is 1: none. A threshold holds both for
    classes and for bins: those that are at least as likely are right as often as wanted.

    Args:
        logits: float [N, C] of images that the network was not trained on.
        labels: int [N], true classes.
        bins: the bin of each class, see `Taxonomy.bins_or_own`; None: each is one of its own.
    """
    temperature = fit_temperature(logits, labels) if helps(logits, labels) else 1.0
    confidence, correct = [max_probability(logits, temperature)], [logits.argmax(axis=1) == labels]
    if bins is not None:
        confidence.append(bin_probability(logits, temperature, bins))
        correct.append(right_bin(logits, labels, bins))
    return Calibration(temperature, choose_thresholds(np.array(confidence), np.array(correct)))


def right_bin(logits: np.ndarray, labels: np.ndarray, bins: Sequence[str]) -> np.ndarray:
    """Returns whether each answer's bin is that of its label, bool [N]."""
    names = np.array(bins)
    return names[logits.argmax(axis=1)] == names[labels]


def calibrate_bundle(bundle: Bundle, source: Source, indices: np.ndarray, cache: bool = False) -> Calibration:
    """Calibrates a bundle on images of a source, indices int [N], and keeps the result in its folder.

    `cache` reads the squares that training has left; see `EvalBatches`.
    """
    batch_size = bundle.config["eval"]["batch_size"]
    batches = EvalBatches(source, indices, bundle.preprocessing, batch_size, cache)
    result = evaluate(bundle.logits, batches, source, bundle.classes, indices)
    calibration = calibrate(result.logits, result.labels, bundle.bins_or_own)
    prior = trained_on(bundle.path, bundle.config, bundle.classes)
    keep_calibration(
        bundle.path,
        calibration.temperature,
        dict(calibration.thresholds),
        confusion=result.scores["confusion"],
        prior=None if prior is None else prior.tolist(),
    )
    return calibration


def choose_thresholds_of(bundle: Bundle, source: Source, indices: np.ndarray, cache: bool = False) -> Bundle:
    """Chooses from which probability on each class of a multi-label bundle is named, and keeps it in its folder.

    Args:
        bundle: the model.
        source: images.
        indices: int [N], those that it was not trained on.
        cache: see `calibrate_bundle`.

    Returns:
        The bundle with its thresholds.
    """
    batches = EvalBatches(source, indices, bundle.preprocessing, bundle.config["eval"]["batch_size"], cache)
    _, logits, shown = evaluate_several(bundle, batches, source, indices)
    thresholds = choose_class_thresholds(sigmoid(logits), shown)
    keep_class_thresholds(bundle.path, thresholds)
    return replace(bundle, class_thresholds=thresholds)


def score_trust(
    logits: np.ndarray,
    labels: np.ndarray,
    calibration: Calibration,
    outside: np.ndarray | None = None,
    bins: Sequence[str] | None = None,
    bootstrap: int = 1000,
) -> dict:
    """Scores confidence, the reject option and the recognition of out-of-distribution images, on test images.

    Args:
        logits: float [N, C].
        labels: int [N], true classes.
        calibration: of the model, from other images.
        outside: float [M, C], logits of images that show none of the classes, if there are any.
        bins: see `calibrate`.
        bootstrap: number of resamples of the intervals.

    Returns:
        `calibration`, `selective` and, with images from outside, `ood`: what `score_calibration`,
        `score_selective` and `score_ood` return. Where any class has a rule `selective_bins` beside, as
        `score_selective`'s `at`: the answers whose bin is at least as likely as the threshold, and how many of
        these bins are right. Where all have one also what `score_bins` returns, now for the probabilities that
        `predict` adds up.
    """
    temperature, thresholds = calibration
    confidence = max_probability(logits, temperature)
    correct = logits.argmax(axis=1) == labels
    scores = {
        "calibration": score_calibration(logits, labels, temperature),
        "selective": score_selective(confidence, correct, thresholds, bootstrap),
    }
    if bins is not None and some_known(bins):
        sure = bin_probability(logits, temperature, bins)
        right = right_bin(logits, labels, bins)
        scores["selective_bins"] = score_selective(sure, right, thresholds, bootstrap)["at"]
    if bins is not None and all_known(bins):
        log_probabilities = log_softmax(np.asarray(logits, np.float64) / temperature)
        scores |= score_bins(log_probabilities, labels, bins, bootstrap)
    if outside is not None:
        scores["ood"] = score_ood(logits, outside, temperature, thresholds, bins, bootstrap)
    return scores
