"""Whether an exported model answers as the model it was made from."""

import statistics
import time
from typing import NamedTuple

import numpy as np

from wastejax.deployment.export.images import Sample
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError

DTYPE = "float32"  # what files compute in, and the model that they are checked against, whatever it was trained in
BATCH = 8
LATENCY_RUNS = 15
# At least this share of images must get the same class, and no probability may differ by more.
NEAR = 1e-5  # rounding may turn two classes round that are as near: among very many images some are
LIMITS = {"none": (1.0, 1e-4), "fp16": (0.98, 0.02), "int8": (0.93, 0.4), "integer": (0.93, 0.4)}


class Comparison(NamedTuple):
    """An exported model against the model it was made from, on the same images.

    Attributes:
        images: how many.
        agreement: share of them with the same likeliest class, or with the same classes where they show any number;
            probabilities within `NEAR` count as the same.
        difference: the largest between two probabilities.
        accuracy: top-1 before and after, or the share of images with exactly the right classes where they show any
            number; None where the classes of the images are not known.
        latency: seconds for one image, before and after, on this machine.
        measure: what `accuracy` is, 'top-1' or 'exactly right'.
    """

    images: int
    agreement: float
    difference: float
    accuracy: tuple[float, float] | None
    latency: tuple[float, float]
    measure: str = "top-1"


def compare(reference: Predictor, exported: Predictor, sample: Sample) -> Comparison:
    """Runs two forms of a model over the same images, and times both on one image."""
    pair = (reference, exported)
    before, after = (probabilities(predictor, sample.images) for predictor in pair)
    return judge(pair, (before, after), sample.labels, sample.images[:1])


def judge(
    pair: tuple[Predictor, Predictor],
    answers: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray | None,
    image: np.ndarray,
) -> Comparison:
    """Compares what two forms of a model answered, and times both on one image.

    Args:
        pair: the model and what was exported.
        answers: probabilities of both, float32 [N, C].
        labels: see `Sample`.
        image: uint8 [1, S, S, 3].
    """
    before, after = answers
    one, other = (_named(predictor, rows) for predictor, rows in zip(pair, answers, strict=True))
    apart = np.abs(before - after)
    accuracy = None
    if labels is not None:
        truth = labels if labels.ndim == 2 else labels[:, None] == np.arange(before.shape[1])
        hits = [float((named == truth).all(axis=1).mean()) for named in (one, other)]
        accuracy = (hits[0], hits[1])
    return Comparison(
        len(before),
        float(((one == other) | (apart <= NEAR)).all(axis=1).mean()),
        float(apart.max()) if np.isfinite(after).all() else float("inf"),
        accuracy,
        (_latency(pair[0], image), _latency(pair[1], image)),
        "exactly right" if pair[0].multilabel else "top-1",
    )


def probabilities(predictor: Predictor, squares: np.ndarray) -> np.ndarray:
    """Returns float32 [N, C], what a model answers to uint8 [N, S, S, 3], in batches of one size."""
    return predictor.batched(squares, min(BATCH, len(squares) or 1))


def _named(predictor: Predictor, rows: np.ndarray) -> np.ndarray:
    """Returns bool [N, C], the classes that probabilities name."""
    if predictor.class_thresholds is not None:
        return rows >= np.asarray(predictor.class_thresholds, np.float32)
    return np.asarray(rows.argmax(axis=1)[:, None] == np.arange(rows.shape[1]))


def _latency(predictor: Predictor, image: np.ndarray) -> float:
    predictor.probabilities(image)
    seconds = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        predictor.probabilities(image)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def check(comparison: Comparison, precision: str, origin: str) -> None:
    """Raises a UserError where an exported model does not answer as the model it was made from."""
    least, most = LIMITS[precision]
    if comparison.agreement < least or not comparison.difference <= most:
        raise UserError(
            f"the exported model is not the model it was made from: on {comparison.images} {origin} the same"
            f" class in {comparison.agreement:.1%} (needed: {least:.0%}), probabilities differ by up to"
            f" {comparison.difference:.2g} (allowed: {most:g}); nothing was written"
        )
