"""What a page or program needs to know of a model beside its numbers: classes, bins, advice, preprocessing."""

import math
from typing import Any

from wastejax.deployment.predictor import Predictor


def describe(predictor: Predictor, reject_below: float) -> dict[str, Any]:
    """Returns a model's classes with names, bins and advice in English and Korean, JSON-ready.

    Args:
        predictor: the model.
        reject_below: probability under which an answer is rejected; infinity becomes None.

    Returns:
        `classes`, in the order of the probabilities, each with `name`, `bin` (a key of `bins`, '' where there is no
        rule), `en`, `ko`, `advice_en` and `advice_ko`; `bins`; `region`, whose rules these are; `preprocessing`;
        `reject_below`; `runtime`.
    """
    classes = []
    for name in predictor.classes:
        item = predictor.taxonomy.find(name)
        plain = name.replace("_", " ")
        rule = item._asdict() if item else {"bin": "", "en": plain, "ko": plain}
        rule.pop("sources", None)
        classes.append({"name": name, "advice_en": "", "advice_ko": ""} | rule)
    return {
        "classes": classes,
        "bins": {name: entry._asdict() for name, entry in predictor.taxonomy.bins.items()},
        "region": predictor.taxonomy.name,
        "preprocessing": predictor.preprocessing.to_dict(),
        "reject_below": reject_below if math.isfinite(reject_below) else None,
        "runtime": predictor.runtime,
    }
