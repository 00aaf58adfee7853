"""The numbers that say how good a classifier is, from logits and labels. NumPy only."""

from collections.abc import Callable, Sequence

import numpy as np

from wastejax.errors import UserError

CALIBRATION_BINS = 15
LEVEL = 0.95  # coverage of the intervals


def score(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    domains: Sequence[str] | None = None,
    bootstrap: int = 1000,
    bins: Sequence[str] | None = None,
) -> dict:
    """Scores a classifier on a set of images, each of which appears exactly once.

    Args:
        logits: float32 [N, C], one row per image.
        labels: int32 [N], the true class of each image as an index into `classes`.
        classes: the model's C class names.
        domains: per image where it was taken ('default', 'real_world', ...); '' means unknown.
        bootstrap: number of resamples for the interval of top-1.
        bins: the sorting bin of each class; None leaves the keys about bins out.

    Returns:
        A dict ready for `json.dumps`; every rate is a fraction in [0, 1].
        `top1`, `top5` (1 where there are at most 5 classes); `macro_f1`, the plain mean of F1 over the
        classes that occur in `labels`; `loss`, the mean cross-entropy in nats; `ece`; `ci95`, the 95 %
        interval of `top1` as [low, high]; `per_class` {name: {precision, recall, f1, support}}, where a
        rate whose denominator is 0 counts as 0; `per_domain` {domain: {top1, num_images}}, empty where
        no domain is known; `confusion`, a CxC list of counts whose rows are the true classes;
        `num_images`. With `bins` also what `score_bins` returns.

    Raises:
        UserError: there are no images, or some logits are not finite.
        ValueError: the shapes do not fit together or a label is outside [0, C).
    """
    logits, labels = _checked(logits, labels, classes)
    num_images, num_classes = logits.shape
    log_probabilities = log_softmax(logits)
    predictions = logits.argmax(axis=1)
    correct = predictions == labels
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = cells.reshape(num_classes, num_classes)
    per_class = _per_class(confusion, classes)
    return {
        "top1": float(correct.mean()),
        "top5": float((_ranks(logits, labels) < 5).mean()),
        "macro_f1": float(np.mean([c["f1"] for c in per_class.values() if c["support"]])),
        "loss": float(-log_probabilities[np.arange(num_images), labels].mean()),
        "ece": expected_calibration_error(np.exp(log_probabilities.max(axis=1)), correct),
        "ci95": list(bootstrap_interval(correct, bootstrap)),
        "per_class": per_class,
        "per_domain": _per_domain(correct, domains),
        "confusion": confusion.tolist(),
        "num_images": num_images,
        **(score_bins(log_probabilities, labels, bins, bootstrap) if bins else {}),
    }


def score_bins(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: Sequence[str], bootstrap: int
) -> dict:
    """Scores a classifier by the bin it would choose: the one whose classes together are most probable.

    That need not be the bin of the most probable class: two cans at 30 % each outweigh a jar at 40 %.

    Args:
        log_probabilities: float [N, C].
        labels: int [N], true classes.
        bins: C names.
        bootstrap: see `score`.

    Returns:
        `bin_top1`; `bin_ci95`, its 95 % interval; `per_bin` {name: {precision, recall, f1, support}}.
    """
    names = list(dict.fromkeys(bins))
    answers, truth = bin_answers(log_probabilities, labels, bins)
    cells = np.bincount(truth * len(names) + answers, minlength=len(names) ** 2)
    correct = answers == truth
    return {
        "bin_top1": float(correct.mean()),
        "bin_ci95": list(bootstrap_interval(correct, bootstrap)),
        "per_bin": _per_class(cells.reshape(len(names), len(names)), names),
    }


def bin_answers(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the chosen and the true bin of each image, int [N] each, numbered as they first occur in `bins`.

    See `score_bins` for the arguments.
    """
    names = list(dict.fromkeys(bins))
    bin_of = np.array([names.index(name) for name in bins])
    probabilities = np.exp(log_probabilities) @ (bin_of[:, None] == np.arange(len(names)))
    return probabilities.argmax(axis=1), bin_of[labels]


def bootstrap_interval(correct: np.ndarray, resamples: int = 1000, seed: int = 17) -> tuple[float, float]:
    """Percentile bootstrap interval of the share of true values (Efron & Tibshirani 1993, ch. 13).

    Drawing N images with replacement and counting the correct ones is a binomial draw, so a resample costs
    one number instead of N. Images are taken as independent, and where all of them are correct (or none
    is), the interval has no width, whatever their number.

    Args:
        correct: bool [N], N >= 1.
        resamples: how often the N images are drawn anew.
        seed: seed of the draws; the same seed gives the same interval.

    Returns:
        (low, high), fractions; `LEVEL` of the draws lie between them.
    """
    correct = np.asarray(correct, dtype=bool)
    shares = np.random.default_rng(seed).binomial(correct.size, correct.mean(), resamples) / correct.size
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_statistic(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    strata: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 17,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic of N images (Efron & Tibshirani 1993, ch. 13).

    Args:
        statistic: takes the resampled arrays.
        *arrays: [N, ...] each.
        strata: [N]; images are drawn within each of its values, whose numbers stay the same. None: from all.
        resamples: see `bootstrap_interval`.
        seed: see `bootstrap_interval`.
        level: coverage of the interval, in (0, 1).

    Returns:
        (low, high).
    """
    rng = np.random.default_rng(seed)
    count = len(arrays[0])
    strata = np.zeros(count, bool) if strata is None else strata
    parts = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([part[rng.integers(0, len(part), len(part))] for part in parts])
        values.append(statistic(*(array[drawn] for array in arrays)))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Mean distance between how sure the model is and how often it is right (Guo et al. 2017, eq. 3).

    Args:
        confidence: float [N], the probability of the predicted class, in (0, 1].
        correct: bool [N].
        bins: number of bins of equal width, each open below and closed above.

    Returns:
        The mean over bins of |accuracy - mean confidence|, weighted by the images in each.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    which = calibration_bins(confidence, bins)
    gap = np.bincount(which, weights=np.asarray(correct, dtype=np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / confidence.size)


def calibration_bins(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Returns the bin of each confidence, int [N]: of equal width, open below and closed above."""
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64 [N, C], of logits [N, C]; stable for any finite logits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def confident_mistakes(
    logits: np.ndarray, labels: np.ndarray, limit: int = 24
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the wrong answers that the model was most certain of.

    Args:
        logits: float [N, C].
        labels: int [N].
        limit: how many at most.

    Returns:
        rows int [K] into `logits`, surest first; the classes predicted there int [K]; and the
        probabilities given to them float [K].
    """
    predictions = np.asarray(logits).argmax(axis=1)
    confidence = np.exp(log_softmax(logits).max(axis=1))
    wrong = np.flatnonzero(predictions != labels)
    rows = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return rows, predictions[rows], confidence[rows]


def _checked(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 logits [N, C] and int64 labels [N], or raises."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or logits.shape != (labels.size, len(classes)) or labels.ndim != 1:
        raise ValueError(
            f"logits {logits.shape}, labels {labels.shape} and {len(classes)} classes do not fit"
        )
    if not labels.size:
        raise UserError("there are no images to score: the split or the folder is empty")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels must lie in [0, {len(classes)}), found {labels.min()} to {labels.max()}")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise UserError(
            f"the model's output is not finite for {broken.size} of {labels.size} images (first: row "
            f"{broken[0]}): its weights have diverged; train again with a smaller learning rate"
        )
    return logits, labels


def _ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the true one, int [N].

    Ties go to the lower index, as in argmax, so that constant logits do not count as a hit for every class.
    """
    own = logits[np.arange(labels.size), labels][:, None]
    lower_index = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & lower_index)).sum(axis=1)


def _per_class(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, dict]:
    return rates(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), classes)


def rates(
    hits: np.ndarray, support: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> dict[str, dict]:
    """Returns precision, recall, F1 and support by name, of counts int [C]; a rate over nothing is 0."""
    return {
        name: {
            "precision": float(hits[i] / max(predicted[i], 1)),
            "recall": float(hits[i] / max(support[i], 1)),
            "f1": float(2 * hits[i] / max(support[i] + predicted[i], 1)),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }


def _per_domain(correct: np.ndarray, domains: Sequence[str] | None) -> dict[str, dict]:
    if domains is None or not any(domains):
        return {}
    if len(domains) != correct.size:
        raise ValueError(f"{len(domains)} domains for {correct.size} images")
    names = np.array([domain or "unknown" for domain in domains])
    return {
        str(name): {"top1": float(correct[names == name].mean()), "num_images": int((names == name).sum())}
        for name in np.unique(names)
    }
