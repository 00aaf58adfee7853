"""Scores by source, where labels can mean several classes or none: does a model carry over to another camera?"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.evaluation.ood import bin_probability
from wastejax.evaluation.report.markdown import percent, table

COLUMNS = ("images", "right", "right bin", "right material", "kept", "right of those kept", "others kept")


class Materials(NamedTuple):
    """What things are made of.

    Attributes:
        of_class: C sets.
        allowed: N sets, what each image's label allows.
    """

    of_class: Sequence[frozenset[str]]
    allowed: Sequence[frozenset[str]]


def score_by_source(
    logits: np.ndarray,
    allowed: np.ndarray,
    members: Sequence[str],
    temperature: float = 1.0,
    threshold: float | None = None,
    bins: Sequence[str] | None = None,
    materials: Materials | None = None,
) -> dict[str, dict[str, Any]]:
    """Scores the answers to the images of each source.

    Args:
        logits: float [N, C].
        allowed: bool [N, C], the classes that each image's label can mean; none where it shows none of them.
        members: N names of sources.
        temperature: of the model.
        threshold: calibrated probability of its bin from which on an answer is kept; None keeps none.
        bins: the sorting bin of each class; None leaves bins out, and each class is one of its own.
        materials: None leaves materials out.

    Returns:
        Source -> `num_images`, those that show a class, and `num_outliers`, those that show none. Of the former
        `right` (the answer is among the classes allowed), `right_bin`, `right_material`, `kept`, `right_of_kept`;
        of the latter `outliers_kept`. Each is a share with its `…_ci95`; None where there is nothing to count.
    """
    answer = logits.argmax(axis=1)
    kept = bin_probability(logits, temperature, bins) >= (np.inf if threshold is None else threshold)
    shown = allowed.any(axis=1)
    facts = {"right": (allowed[np.arange(len(answer)), answer], shown), "kept": (kept, shown)}
    facts["right_of_kept"] = (facts["right"][0], shown & kept)
    facts["outliers_kept"] = (kept, ~shown)
    if bins is not None:
        same = np.array(bins)[:, None] == np.array(bins)
        facts["right_bin"] = ((allowed @ same)[np.arange(len(answer)), answer], shown)
    if materials is not None:
        pairs = zip(answer, materials.allowed, strict=True)
        fits = np.array([bool(materials.of_class[a] & meant) for a, meant in pairs], bool)
        facts["right_material"] = (fits, shown)
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


def source_table(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a Markdown table of what `score_by_source` returned."""

    def cell(row: Mapping[str, Any], name: str) -> str:
        if row.get(name) is None:
            return "–"
        low, high = row[f"{name}_ci95"]
        return f"{percent(row[name])} ({100 * low:.0f} to {100 * high:.0f})"

    facts = ("right", "right_bin", "right_material", "kept", "right_of_kept", "outliers_kept")
    rows = [
        (name, f"{row['num_images'] + row['num_outliers']:,}", *(cell(row, fact) for fact in facts))
        for name, row in scores.items()
    ]
    return table(("source", *COLUMNS), rows)
