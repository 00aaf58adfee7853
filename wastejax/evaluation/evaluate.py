"""One function that scores a model, for training and for the `eval` command alike."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wastejax.data.formats.csv_file import composed
from wastejax.errors import UserError
from wastejax.evaluation.metrics import score
from wastejax.evaluation.metrics.multilabel import score_multilabel

if TYPE_CHECKING:
    from wastejax.bundle import Bundle
    from wastejax.data.sources import Source

Apply = Callable[[Any], Any]  # images uint8 [B, S, S, 3] -> logits [B, C], jitted


class Evaluation(NamedTuple):
    """A model's answers to a set of images, and what they are worth.

    Attributes:
        scores: see `metrics.score`.
        logits: float32 [N, C].
        labels: int32 [N], indices into the model's classes.
        indices: int64 [N], the images' places in the source.
    """

    scores: dict
    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def evaluate(
    apply: Apply,
    batches: Iterable[Mapping[str, Any]],
    source: "Source",
    classes: Sequence[str],
    expected: Sequence[int] | np.ndarray | None = None,
    bins: Sequence[str] | None = None,
    bootstrap: int = 1000,
) -> Evaluation:
    """Runs a model over batches of `source` and scores its answers.

    Args:
        apply: the model, jitted: images uint8 [B, S, S, 3] to logits [B, C].
        batches: see `predict_logits`.
        source: the images' origin: `classes`, `labels` and `domains` are used.
        classes: the model's class names.
        expected: indices into the source that must all be seen, and no others; None skips the check.
        bins: the sorting bin of each of the model's classes; None leaves bins out of the scores.
        bootstrap: number of resamples of the intervals.

    Returns:
        The scores and what they were computed from.

    Raises:
        UserError: the source has a class that the model does not know, there are no images, or some
            logits are not finite.
        ValueError: an image came twice, or not at all.
    """
    model_labels = match_classes(classes, source.classes)  # first, since it costs nothing and may fail
    logits, index = predict_logits(apply, batches, expected)
    labels = model_labels[source.labels[index]]
    scores = score(logits, labels, classes, [source.domains[i] for i in index], bootstrap, bins=bins)
    return Evaluation(scores, logits, labels, index)


def evaluate_several(
    bundle: "Bundle",
    batches: Iterable[Mapping[str, Any]],
    source: "Source",
    expected: Sequence[int] | np.ndarray | None = None,
    bootstrap: int = 1000,
) -> tuple[dict, np.ndarray, np.ndarray]:
    """Scores a model of several labels per image, as `evaluate` does one of one label.

    Returns:
        The scores of `score_multilabel`, logits float32 [N, C], and int8 [N, C] what the images show, see
        `Source.truth`.

    Raises:
        UserError: as of `evaluate`.
    """
    position = match_classes(bundle.classes, source.classes)
    logits, index = predict_logits(bundle.logits, batches, expected)
    shown = np.zeros((len(index), len(bundle.classes)), np.int8)
    shown[:, position] = source.truth[index]
    scores = score_multilabel(logits, shown, bundle.classes, bundle.class_thresholds, bundle.bins, bootstrap)
    return scores, logits, shown


def predict_logits(
    apply: Apply,
    batches: Iterable[Mapping[str, Any]],
    expected: Sequence[int] | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a model over batches and returns one row of logits per image.

    The next batch is dispatched before the answers to the last one are fetched, so that the device has work
    while the host decodes; at most two batches are in flight.

    Args:
        apply: the model, jitted: images uint8 [B, S, S, 3] to logits [B, C].
        batches: dicts with `image` uint8 [B, S, S, 3], `index` int [B] and `mask` bool [B], which is False
            for the rows that only fill up the last batch; these are dropped.
        expected: the indices that must all be seen, and no others; None skips that check.

    Returns:
        logits float32 [N, C] and index int64 [N], both in the order of the batches.

    Raises:
        UserError: there are no images.
        ValueError: an index came twice, is missing, or was not expected.
    """
    rows: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    in_flight = None
    for batch in batches:
        dispatched = (apply(batch["image"]), np.asarray(batch["mask"], dtype=bool))
        if in_flight is not None:
            rows.append(_fetch(*in_flight))
        in_flight = dispatched
        indices.append(np.asarray(batch["index"], dtype=np.int64)[dispatched[1]])
    if in_flight is not None:
        rows.append(_fetch(*in_flight))
    index = np.concatenate(indices) if indices else np.zeros(0, np.int64)
    _check_each_once(index, expected)
    if not index.size:
        raise UserError("there are no images to evaluate: the split or the folder is empty")
    return np.concatenate(rows), index


def match_classes(model_classes: Sequence[str], data_classes: Sequence[str]) -> np.ndarray:
    """Maps the labels of a data set to those of a model by class name.

    The data may have fewer classes than the model, in any order. Names are compared in Unicode's composed
    form: macOS spells a folder with Hangul or umlauts differently from Linux.

    Args:
        model_classes: the model's class names.
        data_classes: the data set's class names, its folders.

    Returns:
        int32 [len(data_classes)]: the model's label for each label of the data.

    Raises:
        UserError: the data has classes that the model does not know; names them.
    """
    position = {composed(name): i for i, name in enumerate(model_classes)}
    unknown = [name for name in data_classes if composed(name) not in position]
    if unknown:
        raise UserError(
            f"class folders that the model does not know: {_with_hints(unknown, model_classes)}; "
            f"rename or remove them, or say with --labels=CSV what they can mean "
            f"(the model knows: {', '.join(model_classes)})"
        )
    return np.array([position[composed(name)] for name in data_classes], dtype=np.int32)


def _fetch(logits: Any, mask: np.ndarray) -> np.ndarray:
    return np.asarray(logits, dtype=np.float32)[mask]


def _check_each_once(index: np.ndarray, expected: Sequence[int] | np.ndarray | None) -> None:
    seen, counts = np.unique(index, return_counts=True)
    problems = {"seen more than once": seen[counts > 1]}
    if expected is not None:
        problems["missing"] = np.setdiff1d(expected, seen)
        problems["not part of the set"] = np.setdiff1d(seen, expected)
    for problem, which in problems.items():
        if which.size:
            raise ValueError(
                f"each image counts once, but {which.size} were {problem} (first index: {which[0]})"
            )


def _with_hints(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Lists the unknown names, each with the known one that looks most like it, if any does."""
    by_folded = {name.casefold(): name for name in known}
    hints = []
    for name in unknown:
        close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
        hints.append(f"{name!r} (did you mean {by_folded[close[0]]!r}?)" if close else repr(name))
    return ", ".join(hints)
