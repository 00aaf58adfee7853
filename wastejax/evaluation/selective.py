"""The reject option: answering only where the model is sure enough, and what that buys."""

from collections.abc import Mapping

import numpy as np

from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic

ACCURACIES = (0.9, 0.95, 0.99)  # shares of right answers that thresholds are chosen for
CURVE_POINTS = 20
LEVEL = 0.9  # of the bound of `choose_threshold_surely`


def choose_threshold(confidence: np.ndarray, correct: np.ndarray, accuracy: float) -> float | None:
    """Returns the lowest confidence from which on the answers are right often enough.

    Args:
        confidence: float [N], calibrated probability of each answer, on validation images; or [K, N], of K kinds of
            answers that one threshold has to hold for, such as classes and bins.
        correct: bool [N] or [K, N].
        accuracy: the share of right answers that is wanted, in (0, 1).

    Returns:
        The threshold: answers at least as sure are kept. None where no threshold gets there with 1 / (1 - accuracy)
        images or more of each kind: of fewer, all must be right, which says little.
    """
    # Beyond a kind's own lowest threshold its answers may be right less often again, so all are tried for all.
    tried = np.unique(confidence)
    good = np.ones(len(tried), bool)
    for sure, right in zip(np.atleast_2d(confidence), np.atleast_2d(correct), strict=True):
        kept = len(sure) - np.searchsorted(np.sort(sure), tried)  # equally sure answers are kept together
        num_right = np.append(0, np.cumsum(right[np.argsort(-sure)]))[kept]
        good &= (kept >= round(1 / (1 - accuracy))) & (num_right / np.maximum(kept, 1) >= accuracy)
    return float(tried[good][0]) if good.any() else None


def choose_threshold_surely(
    confidence: np.ndarray,
    correct: np.ndarray,
    accuracy: float,
    counts: np.ndarray | None = None,
) -> float | None:
    """Returns the lowest confidence from which on the answers are right often enough, and not by luck.

    Thresholds are tried from the surest answers down; the last one is taken before the lower bound of the share of
    right answers (Clopper & Pearson 1934, one-sided) falls below what is wanted. Tried in this order, no more than
    a share 1 - `LEVEL` of thresholds is too low (fixed-sequence testing: Angelopoulos et al. 2021, Learn then
    Test).

    Takes one kind of answers as `choose_threshold` does, and `counts`, float [N], how much each image counts: one
    of five near-duplicates a fifth, as together they say no more than one image does; None: each counts 1.

    Returns:
        The threshold; None where there are too few answers, or too many of the surest are wrong.
    """
    from scipy.stats import beta

    order = np.argsort(-confidence, kind="stable")
    tried = confidence[order]
    each = np.ones(len(order)) if counts is None else counts[order]
    kept, right = np.cumsum(each), np.cumsum(each * correct[order])
    bound = np.where(right > 0, beta.ppf(1 - LEVEL, right, np.maximum(kept - right, 0) + 1), 0)
    complete = np.append(tried[1:] != tried[:-1], True)
    # Fewer than these cannot say it even where all are right.
    where = np.flatnonzero(complete & (kept >= np.log(1 - LEVEL) / np.log(accuracy)))
    passed = np.cumprod(bound[where] >= accuracy).astype(bool)
    return float(tried[where[passed][-1]]) if passed.any() else None


def choose_thresholds(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float | None]:
    """Returns {'0.9': threshold, ...} for each of `ACCURACIES`; see `choose_threshold`."""
    return {str(accuracy): choose_threshold(confidence, correct, accuracy) for accuracy in ACCURACIES}


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of wrong answers among the surest ones, for every number of them (El-Yaniv & Wiener 2010).

    Among equally sure answers the order is random, and the risk is what is to be expected.

    Args:
        confidence: float [N].
        correct: bool [N].

    Returns:
        coverage float [N], 1/N to 1; risk float [N], fractions.
    """
    _, block, counts = np.unique(-np.asarray(confidence), return_inverse=True, return_counts=True)
    wrong = np.bincount(block, ~np.asarray(correct, bool)) / counts
    kept = np.arange(1, len(block) + 1)
    return kept / len(block), np.cumsum(np.repeat(wrong, counts)) / kept


def area_under_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Returns AURC, the mean risk over all coverages (Geifman et al. 2019): 0 is best, the error rate is random."""
    return float(risk_coverage(confidence, correct)[1].mean())


def score_selective(
    confidence: np.ndarray,
    correct: np.ndarray,
    thresholds: Mapping[str, float | None],
    bootstrap: int = 1000,
) -> dict:
    """Scores the reject option on images that the thresholds were not chosen on.

    Args:
        confidence: float [N], calibrated probability of each answer.
        correct: bool [N].
        thresholds: see `choose_thresholds`; may be empty.
        bootstrap: number of resamples of the intervals.

    Returns:
        `aurc` and `aurc_ci95`; `curve`, [coverage, risk] at every twentieth of the coverage; `at`, for each
        threshold {threshold, coverage, coverage_ci95, num_images, accuracy, accuracy_ci95}, where `accuracy` is
        that of the `num_images` answers kept, None where there are none.
    """
    coverage, risk = risk_coverage(confidence, correct)
    places = np.ceil(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS * len(coverage)).astype(int) - 1
    return {
        "aurc": float(risk.mean()),
        "aurc_ci95": list(
            bootstrap_statistic(area_under_risk_coverage, confidence, correct, resamples=bootstrap)
        ),
        "curve": [[float(coverage[i]), float(risk[i])] for i in places],
        "at": {
            wanted: _kept(confidence, correct, threshold, bootstrap)
            for wanted, threshold in thresholds.items()
        },
    }


def _kept(confidence: np.ndarray, correct: np.ndarray, threshold: float | None, bootstrap: int) -> dict:
    kept = np.zeros(len(correct), bool) if threshold is None else confidence >= threshold
    right = correct[kept]
    return {
        "threshold": threshold,
        "coverage": float(kept.mean()),
        "coverage_ci95": list(bootstrap_interval(kept, bootstrap)),
        "num_images": int(kept.sum()),
        "accuracy": float(right.mean()) if right.size else None,
        "accuracy_ci95": list(bootstrap_interval(right, bootstrap)) if right.size else None,
    }
