"""A trained model that answers, whatever form it came in; `formats` loads it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundled import name_of
from wastejax.data.taxonomy import Taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.evaluation.metrics.multilabel import UNCALIBRATED

DEFAULT_ACCURACY = 0.95  # of the answers that are not rejected, where nothing else is asked for


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready to answer.

    Attributes:
        path: where it came from.
        runtime: what computes it, e.g. 'jax' or 'onnxruntime'.
        classes: class names in the order of the probabilities.
        preprocessing: what its images go through.
        taxonomy: which bin a class belongs to, as far as there are rules.
        probabilities: uint8 [B, S, S, 3], RGB -> float32 [B, C], calibrated; every row sums to 1, but of a
            multi-label model.
        thresholds: see `Bundle.thresholds`.
        dense: uint8 [B, H, W, 3] -> logits at every position, float32 [B, h, w, C], see `Bundle.dense`; None where
            the model is an exported file without a class map.
        any_side: whether `dense` takes other H and W than S, multiples of `STRIDE`.
        class_thresholds: C probabilities from which on each class is named, of a multi-label model; None where an
            image shows one class.
    """

    path: Path
    runtime: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    taxonomy: Taxonomy
    probabilities: Callable[[np.ndarray], np.ndarray]
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    dense: Callable[[np.ndarray], Any] | None = None
    any_side: bool = False
    class_thresholds: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """See `name_of`."""
        return name_of(self.path)

    @property
    def multilabel(self) -> bool:
        """Whether an image shows any number of classes."""
        return self.class_thresholds is not None

    def naming(
        self, accuracy: float | None = None, reject_below: float | None = None
    ) -> tuple["Predictor", float]:
        """Returns the predictor to answer with, and the probability under which its answers are rejected.

        Args:
            accuracy: see `reject_below`; a multi-label model has none.
            reject_below: that probability, if not the model's own; of a multi-label model, the one from which on
                each of its classes is named.

        Raises:
            UserError: as of `reject_below`, or it is no probability.
        """
        if reject_below is not None:
            check_probability(reject_below)
        if self.class_thresholds is None:
            return self, self.reject_below(accuracy) if reject_below is None else reject_below
        if accuracy is not None:
            raise UserError(
                f"--accuracy={accuracy}: {self.path} is a multi-label model, which names each class from a "
                "probability of its own on; --reject-below=P sets one for all"
            )
        if reject_below is None:
            return self, 0.0
        return replace(self, class_thresholds=(reject_below,) * len(self.classes)), 0.0

    def needs_one_label(self, what: str) -> None:
        """Raises a UserError where images show any number of classes, for what only one makes sense of."""
        if self.multilabel:
            raise UserError(f"{what}: {self.path} is a multi-label model; this needs one class per image")

    def batched(self, squares: Sequence[np.ndarray] | np.ndarray, size: int) -> np.ndarray:
        """Returns float32 [N, C] for uint8 [N, S, S, 3]; all batches have one size, as each size is compiled."""
        side = self.preprocessing.image_size
        rows = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(squares), size):
            part = squares[start : start + size]
            batch = np.zeros((size, side, side, 3), np.uint8)
            batch[: len(part)] = part
            rows.append(self.probabilities(batch)[: len(part)])
        return np.concatenate(rows)

    def bin_of(self, label: str) -> str:
        """Returns the bin of a class, a key of `taxonomy.bins`; '' where there is no rule for it."""
        item = self.taxonomy.find(label)
        return item.bin if item else ""

    def bin_probability(self, row: np.ndarray) -> float:
        """Returns how likely the bin of the likeliest class is: the sum over its classes.

        Args:
            row: the probabilities of one image, float32 [C].
        """
        best = int(row.argmax())
        bins = self.taxonomy.bins_or_own(self.classes)
        return float(sum(p for p, name in zip(row, bins, strict=True) if name == bins[best]))

    def reject_below(self, accuracy: float | None = None) -> float:
        """Returns the probability from which on a bin, and a class, is named, so that these are right that often.

        Args:
            accuracy: a key of `thresholds`; None for 0.95, or for a plain probability of one half where the model
                was never calibrated.

        Returns:
            The threshold; infinity where none was high enough, so that every answer is rejected.

        Raises:
            UserError: no threshold was chosen for this accuracy.
        """
        if accuracy is None and not self.thresholds:
            return UNCALIBRATED
        wanted = str(float(DEFAULT_ACCURACY if accuracy is None else accuracy))
        if wanted not in self.thresholds:
            advice = (
                f"choices: {', '.join(self.thresholds)}"
                if self.thresholds
                else f"the model was never calibrated: `wastejax eval --model={self.path} --calibrate` does it"
            )
            raise UserError(f"--accuracy={wanted}: no threshold is known for it; {advice}")
        threshold = self.thresholds[wanted]
        return math.inf if threshold is None else threshold


def nothing_named(reject_below: float, accuracy: float | None = None) -> str | None:
    """Returns why every answer is "not sure", where no answer can reach the threshold; else None.

    Args:
        reject_below: of `Predictor.naming`.
        accuracy: what that was asked for.
    """
    if reject_below <= 1:
        return None
    wanted = DEFAULT_ACCURACY if accuracy is None else accuracy
    return (
        f"no threshold keeps {100 * wanted:g} % right on the validation images, so every answer is 'not sure'; "
        "give --reject-below=P, or calibrate with more images"
    )


def check_probability(reject_below: float) -> None:
    """Raises a UserError for a threshold that is no probability, such as a percentage."""
    if not 0 <= reject_below <= 1:
        raise UserError(f"--reject-below={reject_below:g}: must be a probability, from 0 to 1")


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns float32 probabilities of logits [B, C], computed in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def named_from(thresholds: Sequence[float], classes: Sequence[str]) -> tuple[float, ...]:
    """Returns the probability from which on each class is named, 0.5 where nobody chose any."""
    return tuple(thresholds) or (UNCALIBRATED,) * len(classes)
