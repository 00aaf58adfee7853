"""Temperature scaling: one number that brings a network's confidence in line with how often it is right."""

import numpy as np

from wastejax.evaluation.metrics import (
    CALIBRATION_BINS,
    calibration_bins,
    expected_calibration_error,
    log_softmax,
)

TEMPERATURES = (0.1, 10.0)  # where the best is looked for; beyond, there is nothing to learn from
FOLDS = 10  # in which images are divided to see whether a temperature helps


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the T whose softmax(logits / T) has the least cross-entropy (Guo et al. 2017, section 4.2).

    In b = 1 / T the loss is convex: its slope is the mean over images of (expected logit - logit of the truth), and
    the root of the slope is the one minimum. Where there is none, as for a network that is always right, the nearer
    end of `TEMPERATURES` is returned.

    Args:
        logits: float [N, C] of images that the network was not trained on.
        labels: int [N], true classes.
    """
    from scipy.optimize import brentq

    logits = np.asarray(logits, np.float64)
    truth = logits[np.arange(len(labels)), labels]

    def slope(temperature: float) -> float:
        expected = (np.exp(log_softmax(logits / temperature)) * logits).sum(axis=1)
        return float((expected - truth).mean())

    low, high = TEMPERATURES
    if slope(low) <= 0:
        return low
    if slope(high) >= 0:
        return high
    return float(brentq(slope, low, high, xtol=1e-6))


def helps(logits: np.ndarray, labels: np.ndarray) -> bool:
    """Returns whether a temperature lowers the loss of images that it was not fitted on, by more than chance.

    Each fold is scored with the temperature of the others. The mean gain per image is to be above zero at the
    one-sided 5 % level of a paired t test. See `fit_temperature` for the arguments.
    """
    from scipy.stats import ttest_1samp

    logits = np.asarray(logits, np.float64)
    count, every = len(labels), np.arange(len(labels))
    if count < 2:
        return False
    folds = min(FOLDS, count)
    part = np.random.default_rng(17).permutation(count) % folds
    gain = np.zeros(count)
    for fold in range(folds):
        rows = part == fold
        temperature = fit_temperature(logits[~rows], labels[~rows])
        own = every[rows], labels[rows]
        gain[rows] = (log_softmax(logits / temperature) - log_softmax(logits))[own]
    if np.allclose(gain, gain[0]):
        return bool(gain[0] > 1e-12)
    return bool(ttest_1samp(gain, 0, alternative="greater").pvalue < 0.05)


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> list[dict[str, float]]:
    """Groups answers by how sure the model was, as a reliability diagram shows them.

    Args:
        confidence: float [N], the probability of the predicted class.
        correct: bool [N].
        bins: number of bins of equal width.

    Returns:
        One {confidence, accuracy, num_images} per bin that has any image, in order; the first two are means.
    """
    which = calibration_bins(confidence, bins)
    return [
        {
            "confidence": float(np.mean(confidence[which == b])),
            "accuracy": float(np.mean(correct[which == b])),
            "num_images": int(np.sum(which == b)),
        }
        for b in np.unique(which)
    ]


def score_calibration(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict:
    """Scores probabilities after division by the temperature; `metrics.score` has `loss` and `ece` before it.

    Args:
        logits: float [N, C].
        labels: int [N], true classes.
        temperature: of the model.

    Returns:
        `temperature`; `loss` and `ece` with it; `reliability`, see there.
    """
    log_probabilities = log_softmax(np.asarray(logits, np.float64) / temperature)
    confidence = np.exp(log_probabilities.max(axis=1))
    correct = logits.argmax(axis=1) == labels
    return {
        "temperature": float(temperature),
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "ece": expected_calibration_error(confidence, correct),
        "reliability": reliability(confidence, correct),
    }
