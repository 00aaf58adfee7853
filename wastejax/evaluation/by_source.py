"""Scores by source, where labels can mean several classes or none: does a model carry over to another camera?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastejax.data.description.meant import Meant, meant_by
from wastejax.data.pipeline import EvalBatches
from wastejax.data.taxonomy import all_known
from wastejax.evaluation.evaluate import Evaluation, predict_logits
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.evaluation.metrics.multilabel import UNCALIBRATED
from wastejax.evaluation.ood import bin_probability
from wastejax.evaluation.trust import Calibration
from wastejax.progress import Say

if TYPE_CHECKING:
    from wastejax.bundle import Bundle
    from wastejax.data.sources import Source


def answers_to(
    bundle: "Bundle",
    source: "Source",
    indices: np.ndarray,
    known: Evaluation | None = None,
    cache: bool = False,
) -> np.ndarray:
    """Returns a bundle's logits, float32 [N, C], in the order of `indices`.

    Args:
        bundle: the model.
        source: images.
        indices: int [N], which of them.
        known: answers to some of these, which are not computed again.
        cache: see `EvalBatches`.
    """
    logits = np.empty((len(indices), len(bundle.classes)), np.float32)
    place = {int(index): row for row, index in enumerate(indices)}
    if known is not None:
        logits[[place.pop(int(index)) for index in known.indices]] = known.logits
    if place:
        rest = np.array(sorted(place), np.int64)
        batches = EvalBatches(source, rest, bundle.preprocessing, bundle.config["eval"]["batch_size"], cache)
        found, order = predict_logits(bundle.logits, batches, rest)
        logits[[place[int(index)] for index in order]] = found
    return logits


def right_of(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns whether each answer is one of the classes that its image's label can mean, bool [N]."""
    return np.asarray(allowed[np.arange(len(logits)), logits.argmax(axis=1)])


def score_meant(
    logits: np.ndarray,
    meant: Meant,
    temperature: float,
    thresholds: Mapping[str, float | None],
    bins: Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    """Does what `score_by_source` does, at the threshold for 95 %, or as `predict` where none was ever chosen."""
    threshold = thresholds.get("0.95") if thresholds else UNCALIBRATED
    return score_by_source(
        logits, meant.allowed, meant.members, temperature, threshold, bins, meant.materials
    )


def tell_uncalibrated(path: Path, thresholds: Mapping[str, float | None], say: Say) -> None:
    """Says by what answers are kept, where no thresholds were ever chosen for the bundle at `path`."""
    if not thresholds:
        say(
            f"note: {path} was never calibrated: by source, answers from {100 * UNCALIBRATED:g} % on "
            "count as kept"
        )


def score_members(
    bundle: "Bundle",
    source: "Source",
    indices: np.ndarray,
    known: Evaluation | None,
    calibration: Calibration,
    cache: bool = False,
) -> dict[str, dict[str, Any]]:
    """Scores a bundle on images of a data description, also those whose label means several classes or none.

    Takes what `answers_to` does, and the calibration of the model; returns what `score_by_source` does.
    """
    meant = meant_by(source.select(indices), bundle.classes, source.origin)
    logits = answers_to(bundle, source, indices, known, cache)
    return score_meant(logits, meant, *calibration, bundle.bins_or_own)


def score_by_source(
    logits: np.ndarray,
    allowed: np.ndarray,
    members: Sequence[str],
    temperature: float = 1.0,
    threshold: float | None = None,
    bins: Sequence[str] | None = None,
    materials: Sequence[frozenset[str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Scores the answers to the images of each source.

    Args:
        logits: float [N, C].
        allowed: bool [N, C], the classes that each image's label can mean; none where it shows none of them.
        members: N names of sources.
        temperature: of the model.
        threshold: calibrated probability of its bin from which on an answer is kept; None keeps none.
        bins: the sorting bin of each class, see `Taxonomy.bins_or_own`; None: each is one of its own.
        materials: what each class is made of; a label means what any of its classes is made of. None leaves
            materials out, and so are images of no known material.

    Returns:
        Source -> `num_images`, those that show a class, and `num_outliers`, those that show none. Of the former
        `right` (the answer is among the classes allowed), `right_bin` where every class has a rule,
        `right_material`, `kept`, `right_of_kept`; of the latter `outliers_kept`. Each is a share with its `…_ci95`;
        None where there is nothing to count.
    """
    answer = logits.argmax(axis=1)
    kept = bin_probability(logits, temperature, bins) >= (np.inf if threshold is None else threshold)
    shown = allowed.any(axis=1)
    facts = {"right": (right_of(logits, allowed), shown), "kept": (kept, shown)}
    facts["right_of_kept"] = (facts["right"][0], shown & kept)
    facts["outliers_kept"] = (kept, ~shown)
    if bins is not None and all_known(bins):
        same = np.array(bins)[:, None] == np.array(bins)
        facts["right_bin"] = ((allowed @ same)[np.arange(len(answer)), answer], shown)
    if materials is not None:
        made_of = [frozenset().union(*(materials[int(i)] for i in np.flatnonzero(row))) for row in allowed]
        fits = np.array(
            [bool(materials[int(a)] & means) for a, means in zip(answer, made_of, strict=True)], bool
        )
        facts["right_material"] = (fits, np.array([bool(means) for means in made_of], bool))
    which = np.array(members)
    scores: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(members):
        mine = which == name
        row: dict[str, Any] = {"num_images": int((mine & shown).sum())}
        row["num_outliers"] = int((mine & ~shown).sum())
        row["num_kept"] = int((mine & shown & kept).sum())
        for fact, (value, counted) in facts.items():
            row |= _share(fact, value[mine & counted])
        scores[name] = row
    return scores


def _share(name: str, values: np.ndarray) -> dict[str, Any]:
    if not values.size:
        return {name: None, f"{name}_ci95": None}
    return {name: float(values.mean()), f"{name}_ci95": list(bootstrap_interval(values))}
