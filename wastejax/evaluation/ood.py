"""Images that show none of the classes: scores that tell them from the others, and how well they do."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic, log_softmax


def max_probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Calibrated probability of the answer, float [N] (Hendrycks & Gimpel 2017)."""
    return np.exp(log_softmax(np.asarray(logits, np.float64) / temperature).max(axis=1))


def bin_probability(logits: np.ndarray, temperature: float, bins: Sequence[str] | None) -> np.ndarray:
    """Calibrated probability of the answer's bin, float [N], the sum over its classes; what `predict` rejects by.

    `bins` names that of each class, see `Taxonomy.bins_or_own`; None: each class is a bin of its own.
    """
    logits = np.asarray(logits, np.float64)
    if bins is None:
        return max_probability(logits, temperature)
    same = np.array(bins)[:, None] == np.array(bins)
    return (np.exp(log_softmax(logits / temperature)) * same[logits.argmax(axis=1)]).sum(axis=1)


def max_logit(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Largest logit, float [N] (Hendrycks et al. 2022); the temperature does not change its order."""
    return np.asarray(logits, np.float64).max(axis=1)


def energy(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Negative energy, the log-sum-exp of the logits, float [N] (Liu et al. 2020, eq. 4, with their T = 1)."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


# Each is higher for images like those of the training: logits [N, C], temperature -> [N].
SCORES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "max_probability": max_probability,
    "max_logit": max_logit,
    "energy": energy,
}


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Returns the chance that an image from inside scores higher than one from outside; a tie counts half.

    Args:
        inside: float [N], scores of images that show a class.
        outside: float [M], scores of images that do not.
    """
    ordered = np.sort(outside)
    lower, not_higher = (np.searchsorted(ordered, inside, side) for side in ("left", "right"))
    return float((lower + not_higher).mean() / (2 * len(ordered)))


def false_positive_rate(inside: np.ndarray, outside: np.ndarray) -> float:
    """Returns the share of images from outside that pass where 95 % of those from inside do (FPR95).

    Args:
        inside: float [N].
        outside: float [M].
    """
    needed = math.ceil(round(0.95 * len(inside), 9))  # 0.95 * 60 is 57, whatever floats say
    return float((outside >= np.sort(inside)[len(inside) - needed]).mean())


def score_ood(
    logits: np.ndarray,
    outside: np.ndarray,
    temperature: float,
    thresholds: Mapping[str, float | None],
    bins: Sequence[str] | None = None,
    bootstrap: int = 1000,
) -> dict:
    """Scores how well a model tells images of its classes from others.

    Args:
        logits: float [N, C] of images of its classes.
        outside: float [M, C] of images that show none of them.
        temperature: of the model.
        thresholds: see `selective.choose_thresholds`; may be empty.
        bins: see `bin_probability`.
        bootstrap: number of resamples of the intervals.

    Returns:
        `num_images`, M; `scores` {score: {auroc, auroc_ci95, fpr95}}; `rejected`, for each threshold {share, ci95}
        of the M images that it rejects, which would be 1 at best.
    """
    scores = {}
    for name, function in SCORES.items():
        a, b = function(logits, temperature), function(outside, temperature)
        scores[name] = {
            "auroc": auroc(a, b),
            "auroc_ci95": list(_auroc_interval(a, b, bootstrap)),
            "fpr95": false_positive_rate(a, b),
        }
    confidence = bin_probability(outside, temperature, bins)
    rejected = {}
    for wanted, threshold in thresholds.items():
        is_rejected = ~(confidence >= (np.inf if threshold is None else threshold))
        rejected[wanted] = {
            "share": float(is_rejected.mean()),
            "ci95": list(bootstrap_interval(is_rejected, bootstrap)),
        }
    return {"num_images": len(outside), "scores": scores, "rejected": rejected}


def _auroc_interval(inside: np.ndarray, outside: np.ndarray, resamples: int) -> tuple[float, float]:
    """Both kinds of images are drawn anew, each for itself."""
    is_inside = np.arange(len(inside) + len(outside)) < len(inside)
    return bootstrap_statistic(
        lambda values, which: auroc(values[which], values[~which]),
        np.concatenate([inside, outside]),
        is_inside,
        strata=is_inside,
        resamples=resamples,
    )
