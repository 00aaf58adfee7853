"""The numbers that say how good a classifier of several labels per image is, and its thresholds. NumPy only."""

from collections.abc import Sequence

import numpy as np

from wastejax.errors import UserError
from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic, rates

UNCALIBRATED = 0.5  # threshold of a class that nobody could choose one for


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns float32 probabilities of logits of any shape, computed in float64; stable for any finite logits."""
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)


def average_precision(scores: np.ndarray, shown: np.ndarray) -> float | None:
    """Returns the mean precision over all recalls, as scikit-learn's `average_precision_score` computes it.

    The sum over ranks of (recall gained there) x (precision so far); equal scores share a rank.

    Args:
        scores: float [N], larger where the class is likelier.
        shown: bool [N], whether the image shows it; or int [N], below 0 for images to leave out.

    Returns:
        A value in (0, 1]; None where no image shows the class.
    """
    scores, shown = scores[shown >= 0], shown[shown >= 0] > 0
    positives = int(shown.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    complete = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(shown[order])[complete]
    precision = hits / (np.flatnonzero(complete) + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / positives)


def macro_average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """Returns the plain mean of `average_precision` over the classes that some image shows; [N, C] each."""
    values = [average_precision(*column) for column in zip(scores.T, shown.T, strict=True)]
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else 0.0


def choose_class_thresholds(probabilities: np.ndarray, shown: np.ndarray) -> tuple[float, ...]:
    """Returns for each class the probability from which on to name it: the one with the best F1.

    Halfway between the last probability that is named and the next, so that the same network in another form, which
    differs in the last digits, names the same classes.

    Args:
        probabilities: float [N, C], of validation images.
        shown: bool [N, C]; or int, below 0 for what is not known.

    Returns:
        C values in (0, 1); 0.5 for a class that no image shows.
    """
    thresholds = []
    for p, y in zip(np.asarray(probabilities, np.float64).T, shown.T, strict=True):
        p, y = p[y >= 0], y[y >= 0] > 0
        if not y.any():
            thresholds.append(UNCALIBRATED)
            continue
        order = np.argsort(-p, kind="stable")
        complete = np.append(np.diff(p[order]) != 0, True)
        named = np.flatnonzero(complete) + 1
        f1 = 2 * np.cumsum(y[order])[complete] / (named + y.sum())
        best = int(named[np.argmax(f1)])
        below = p[order[best]] if best < len(p) else 0.0
        thresholds.append(float((p[order[best - 1]] + below) / 2))
    return tuple(thresholds)


def score_multilabel(
    logits: np.ndarray,
    shown: np.ndarray,
    classes: Sequence[str],
    thresholds: Sequence[float] = (),
    bins: Sequence[str] | None = None,
    bootstrap: int = 1000,
) -> dict:
    """Scores a classifier on images that show any number of classes, each image appearing once.

    Args:
        logits: float [N, C]; their sigmoid is the probability of a class.
        shown: bool [N, C]; or int, 1 for shown, 0 for not, and -1 where nobody said, which no score counts.
        classes: C names.
        thresholds: C probabilities from which on a class is named; 0.5 each where empty.
        bins: the sorting bin of each class; an image's are those of its classes together. None leaves them out.
        bootstrap: resamples of the intervals; 0 leaves the intervals out.

    Returns:
        A dict ready for `json.dumps`, every rate in [0, 1]: `kind`, 'multilabel'; `macro_ap` and its interval
        `macro_ap_ci95`; `exact`, the share of images with exactly the right classes, and `exact_ci95`; `macro_f1`
        over the classes that occur, `micro_f1`; `top1`, the share of images whose likeliest class is shown; `loss`,
        mean binary cross entropy, nats; `per_class` {name: {average_precision (None without positives), precision,
        recall, f1, support, threshold}}; `num_images`. With `bins` also `bin_exact`, its interval and `per_bin`.

    Raises:
        UserError: there are no images, or some logits are not finite.
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(shown, np.int8)
    if not len(logits):
        raise UserError("there are no images to score: the split or the folder is empty")
    if not np.isfinite(logits).all():
        raise UserError(
            "the model's output is not finite: its weights have diverged; train again with a smaller learning rate"
        )
    shown, said, thresholds = truth > 0, truth >= 0, thresholds or (UNCALIBRATED,) * len(classes)
    named = (sigmoid(logits) >= np.asarray(thresholds)) & said
    per_class = _per_class(logits, truth, named, classes, thresholds)
    exact = (named == shown).all(axis=1)
    scores = {
        "kind": "multilabel",
        "macro_ap": macro_average_precision(logits, truth),
        "exact": float(exact.mean()),
        "macro_f1": float(np.mean([c["f1"] for c in per_class.values() if c["support"]] or [0.0])),
        "micro_f1": float(2 * (named & shown).sum() / max(named.sum() + shown.sum(), 1)),
        "top1": float(shown[np.arange(len(logits)), np.where(said, logits, -np.inf).argmax(axis=1)].mean()),
        "loss": float(np.mean((np.logaddexp(0, logits) - shown * logits)[said])),
        "per_class": per_class,
        "num_images": len(logits),
    }
    if bins:
        scores |= _score_bins(named, truth, bins, bootstrap)
    if bootstrap:
        scores["exact_ci95"] = list(bootstrap_interval(exact, bootstrap))
        interval = bootstrap_statistic(macro_average_precision, logits, truth, resamples=bootstrap)
        scores["macro_ap_ci95"] = list(interval)
    return scores


def _per_class(
    logits: np.ndarray,
    truth: np.ndarray,
    named: np.ndarray,
    classes: Sequence[str],
    thresholds: Sequence[float],
) -> dict[str, dict]:
    per_class = _rates(named, truth > 0, classes)
    for i, name in enumerate(classes):
        per_class[name]["average_precision"] = average_precision(logits[:, i], truth[:, i])
        per_class[name]["threshold"] = float(thresholds[i])
    return per_class


def _score_bins(named: np.ndarray, truth: np.ndarray, bins: Sequence[str], bootstrap: int) -> dict:
    """Scores the union of the bins of an image's classes; a bin is not known where none is shown and one may be."""
    names = list(dict.fromkeys(bins))
    into = np.array(bins)[:, None] == np.array(names)  # bool [C, bins]
    shown = (truth > 0) @ into
    answers = named @ into & (shown | ~((truth < 0) @ into))
    exact = (answers == shown).all(axis=1)
    scores = {"bin_exact": float(exact.mean()), "per_bin": _rates(answers, shown, names)}
    if bootstrap:
        scores["bin_exact_ci95"] = list(bootstrap_interval(exact, bootstrap))
    return scores


def _rates(named: np.ndarray, shown: np.ndarray, names: Sequence[str]) -> dict[str, dict]:
    """Returns precision, recall and F1 by column of bool [N, C]."""
    return rates((named & shown).sum(0), shown.sum(0), named.sum(0), names)
