"""What a page or program needs to know of a model beside its numbers: classes, bins, advice, preprocessing."""

import math
from typing import Any

from wastejax.data.taxonomy import Item, with_looks
from wastejax.deployment.predictor import Predictor


def describe(predictor: Predictor, reject_below: float) -> dict[str, Any]:
    """Returns a model's classes with names, bins and advice in all `LANGUAGES`, JSON-ready.

    Args:
        predictor: the model.
        reject_below: probability under which an answer is rejected; infinity becomes None.

    Returns:
        `classes`, in the order of the probabilities, each with `name`, `bin` (a key of `bins`, '' where there is no
        rule), and name and advice in each language: `en`, …, `advice_en`, … ('' where there is none), and in a
        multi-label model `named_from`, the probability from which on it is named; `multilabel`; `bins`, with
        names and advice, `color` and `sign` ('' where there is none); `region`, whose rules these are;
        `preprocessing`; `reject_below`; `runtime`.
    """
    classes: list[dict[str, Any]] = []
    for i, name in enumerate(predictor.classes):
        item = predictor.taxonomy.find(name) or Item({"en": name.replace("_", " ")}, "", ())
        classes.append({"name": name, "bin": item.bin, **item.in_all_languages()})
        if predictor.class_thresholds is not None:
            classes[-1]["named_from"] = predictor.class_thresholds[i]
    return {
        "classes": classes,
        "bins": {
            name: {**entry.in_all_languages(), "color": entry.color, "sign": entry.sign}
            for name, entry in with_looks(predictor.taxonomy).bins.items()
        },
        "region": predictor.taxonomy.name,
        "preprocessing": predictor.preprocessing.to_dict(),
        "multilabel": predictor.multilabel,
        "reject_below": reject_below if math.isfinite(reject_below) else None,
        "runtime": predictor.runtime,
    }
