"""What a set of images is made of: shares of classes, corrected for what the model is known to confuse.

Counting answers is biased: a model that takes a tenth of the cans for jars finds jars where there are none. Its
confusions on labeled images say how answers come about, `answers = confusionᵀ · shares`, and that is solved for the
shares: adjusted counting (Forman 2008, "Quantifying counts and costs via classification", section 3), for several
classes by least squares under the constraints that shares are >= 0 and sum to 1. It assumes that each class looks
as it did there, that only the shares differ, and that every image shows one of the classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ILL_CONDITIONED = (
    30.0  # condition number from which on small differences of counts become large ones of shares
)
FEW = 5  # images of a class, below which its row of the confusion matrix says little
RESAMPLES = 1000
_SUM = 1e3  # weight of the equation that shares sum to 1


@dataclass(frozen=True)
class Confusion:
    """How a model answers to images of known classes.

    Attributes:
        counts: int [C, C], rows are the true classes.
        origin: the images: 'validation' or 'test'.
    """

    counts: np.ndarray
    origin: str

    @property
    def rates(self) -> np.ndarray:
        """Float64 [C, C], the probability of each answer (columns) to each true class (rows).

        One image is added to each class, answered rightly: a class without images is taken to be recognized.
        """
        return _rates(self.counts.astype(np.float64))

    @property
    def condition(self) -> float:
        """The condition number of `rates`: 1 where nothing is confused."""
        return float(np.linalg.cond(self.rates))


@dataclass(frozen=True)
class Shares:
    """Shares of several names, each with a 95 % interval.

    Attributes:
        plain: float [K], by counting answers.
        plain_ci95: float [K, 2].
        corrected: float [K], for confusions; None where these are not known.
        corrected_ci95: float [K, 2]; None likewise.
    """

    plain: np.ndarray
    plain_ci95: np.ndarray
    corrected: np.ndarray | None = None
    corrected_ci95: np.ndarray | None = None


def stored_confusion(bundle: Path, num_classes: int) -> Confusion | None:
    """Returns the confusion matrix that a bundle has from its validation images, or else from its test images.

    Args:
        bundle: its folder; of an exported file nothing is known.
        num_classes: of the model.
    """
    for name, keys, origin in (
        ("bundle.json", ("confusion",), "validation"),
        ("evaluation.json", ("test", "confusion"), "test"),
    ):
        try:
            found: Any = json.loads((bundle / name).read_bytes())
            for key in keys:
                found = found[key]
            counts = np.array(found, np.int64)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if counts.shape == (num_classes, num_classes) and (counts >= 0).all() and counts.any():
            return Confusion(counts, origin)
    return None


def doubts(confusion: Confusion | None, classes: Sequence[str]) -> list[str]:
    """Returns why corrected shares are not to be had, or are to be taken with care; one line each."""
    if confusion is None:
        return [
            "no correction: the model has no confusion matrix; `wastejax eval --model=RUN --calibrate` stores one, "
            "an exported file holds none"
        ]
    lines = []
    few = [
        name for name, row in zip(classes, confusion.counts.sum(axis=1).tolist(), strict=True) if row < FEW
    ]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        lines.append(
            f"its confusions are known from fewer than {FEW} images of {', '.join(few[:5])}{more}: their shares "
            "are uncertain"
        )
    if confusion.condition > ILL_CONDITIONED:
        lines.append(
            f"the model confuses some classes so much that their shares can hardly be told apart (condition number "
            f"{confusion.condition:.0f}): trust sums over bins or materials more than single classes"
        )
    return lines


def estimate(
    counts: np.ndarray,
    confusion: Confusion | None,
    groups: Sequence[np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 17,
) -> list[Shares]:
    """Estimates shares of classes and of sums of them.

    Args:
        counts: int [C], images by the class that was answered.
        confusion: of the model; None where it is not known.
        groups: bool [K, C] each: K names, and the classes that count for each.
        resamples: bootstrap resamples, of the images and of the confusion matrix alike.
        seed: of these.

    Returns:
        For each of `groups` the shares of its K names.

    Raises:
        ValueError: there are no images.
    """
    counts = np.asarray(counts, np.int64)
    if not counts.sum():
        raise ValueError("there are no images to count")
    rng = np.random.default_rng(seed)
    plain = counts / counts.sum()
    drawn = rng.multinomial(counts.sum(), plain, resamples) / counts.sum()
    corrected, corrected_drawn = None, None
    if confusion is not None:
        corrected = adjusted(plain, confusion.rates, int(counts.sum()))
        corrected_drawn = np.stack(
            [adjusted(row, _rates(_resampled(confusion.counts, rng)), int(counts.sum())) for row in drawn]
        )
    return [_shares(group, plain, drawn, corrected, corrected_drawn) for group in groups]


def adjusted(answers: np.ndarray, rates: np.ndarray, num_images: int) -> np.ndarray:
    """Returns float64 [C], the shares that explain the answers best: >= 0, of sum 1.

    Args:
        answers: float [C], shares of the answers.
        rates: float [C, C], see `Confusion.rates`.
        num_images: that were answered; each answer counts by how exactly its share is known.
    """
    from scipy.optimize import nnls

    weights = 1 / np.sqrt(answers + 1 / num_images)
    equations = np.vstack([weights[:, None] * rates.T, np.full((1, len(answers)), _SUM * weights.max())])
    shares, _ = nnls(equations, np.append(weights * answers, _SUM * weights.max()))
    return shares / shares.sum()


def _rates(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + np.eye(len(counts))
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def _resampled(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a confusion matrix of as many images of each class, drawn from those there are."""
    rows = [rng.multinomial(row.sum(), row / row.sum()) if row.any() else row for row in counts]
    return np.array(rows, np.float64)


def _shares(
    group: np.ndarray,
    plain: np.ndarray,
    drawn: np.ndarray,
    corrected: np.ndarray | None,
    corrected_drawn: np.ndarray | None,
) -> Shares:
    group = np.asarray(group, np.float64)

    def interval(resampled: np.ndarray) -> np.ndarray:
        return np.percentile(resampled @ group.T, [2.5, 97.5], axis=0).T

    if corrected is None or corrected_drawn is None:
        return Shares(group @ plain, interval(drawn))
    return Shares(group @ plain, interval(drawn), group @ corrected, interval(corrected_drawn))


def grouped(names: Sequence[str], of_class: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Returns bool [K, C], which classes count for each name; see `estimate`."""
    return np.array([[of_class.get(label, "") == name for label in classes] for name in names], bool)
