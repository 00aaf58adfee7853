"""The review page: doubtful images in one HTML file, where a person says what they show, and saves corrections.csv.

It needs no server, asks nobody and holds small copies of the images, which are the user's: it stays with them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from wastejax.data.corrections import NONE, Row
from wastejax.data.formats.source import SEPARATOR
from wastejax.data.images import BadImage, data_url, decode
from wastejax.data.sources import Source
from wastejax.evaluation.metrics import log_softmax
from wastejax.evaluation.metrics.multilabel import UNCALIBRATED, sigmoid
from wastejax.files import write_text

NAME = "review.html"
SIDE = 256  # longest side of what is shown, pixels
MOST_BYTES = 16_000_000  # of images in a page; the least doubtful are left out
_TEMPLATE = Path(__file__).with_name("templates") / NAME


class Doubt(NamedTuple):
    """An image that a person should look at.

    Attributes:
        index: in the source.
        why: 'label error', 'conflict', 'mistake', 'unreadable', 'not sure' or 'sample'.
        suggested: another class that it may show; '' for none.
        own: probability of its label; None where nobody said.
        other: probability of the suggested class.
        group: number of the images that are copies of each other; 0 for none.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of that name
    why: str
    suggested: str = ""
    own: float | None = None
    other: float | None = None
    group: int = 0


def write_review(
    path: Path,
    title: str,
    source: Source,
    doubts: Sequence[Doubt],
    classes: Iterable[str] = (),
    earlier: Mapping[str, Row] | None = None,
    old_labels: Mapping[str, str] | None = None,
) -> int:
    """Writes the page.

    Args:
        path: the file; replaced if it is there.
        title: its heading.
        source: the images, with the labels that are in doubt.
        doubts: the most doubtful first; of an image that comes twice, the first counts.
        classes: that an image can be given, beside those of the source.
        earlier: corrections that were made before, by name; saved again with what is decided on the page.
        old_labels: name -> label in the data, where that is another than in the source.

    Returns:
        How many images it shows: as many as fit.
    """
    old_labels, earlier = old_labels or {}, earlier or {}
    rows = [list(row) for row in earlier.values()]
    items = list(_items(path, source, doubts, old_labels))
    left = len({source.names[doubt.index] for doubt in doubts}) - len(items)
    about = json.dumps([source.origin, sorted(item["file"] for item in items), rows])
    content = {
        "id": hashlib.sha256(about.encode()).hexdigest()[:16],
        "title": title,
        "about": "Progress is kept in this browser."
        + (f" {left:,} more images do not fit; review these first." if left else ""),
        "classes": sorted({*classes, *source.classes}),
        "several": source.shown is not None,
        "items": items,
        "earlier": rows,
    }
    # A file's name may hold anything, also the end of a script.
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", text, 1))
    return len(items)


def _items(
    path: Path, source: Source, doubts: Sequence[Doubt], old_labels: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yields what the page needs of each image, as long as they fit."""
    seen: set[str] = set()
    labels = source.label_names
    room = MOST_BYTES
    for doubt in doubts:
        name = source.names[doubt.index]
        if name in seen:
            continue
        seen.add(name)
        label = labels[doubt.index] or NONE
        image = "" if doubt.why == "unreadable" else thumbnail(source, doubt.index)
        room -= len(image)
        if room < 0:
            return
        yield {
            "file": name,
            "label": label,
            "old": old_labels.get(name, label),
            "why": doubt.why,
            "suggested": doubt.suggested,
            "own": None if doubt.own is None else round(doubt.own, 4),
            "other": None if doubt.other is None else round(doubt.other, 4),
            "group": doubt.group,
            "collected": doubt.why in ("not sure", "sample"),
            "image": image,
            "link": _link(path, source, name),
        }


def thumbnail(source: Source, index: int, side: int = SIDE) -> str:
    """Returns a small copy of an image as a data URL; '' where it cannot be read."""
    try:
        image = decode(source.read(index), min_side=side)
    except (BadImage, OSError):
        return ""
    image.thumbnail((side, side))
    return data_url(image, quality=75)


def mistakes(
    logits: np.ndarray, labels: np.ndarray, indices: np.ndarray, classes: Sequence[str]
) -> list[Doubt]:
    """Returns what a model got wrong, the surest first.

    Args:
        logits: float [N, C], by which probabilities are to be given.
        labels: int [N], into `classes`.
        indices: int [N], of the images in their source.
        classes: the model's.
    """
    probabilities = np.exp(log_softmax(logits))
    predicted = probabilities.argmax(axis=1)
    rows = np.flatnonzero(predicted != labels)
    margin = probabilities[rows, predicted[rows]] - probabilities[rows, labels[rows]]
    return [
        Doubt(
            int(indices[row]),
            "mistake",
            classes[predicted[row]],
            float(probabilities[row, labels[row]]),
            float(probabilities[row, predicted[row]]),
        )
        for row in rows[np.argsort(-margin, kind="stable")]
    ]


def mistakes_of_several(
    logits: np.ndarray,
    truth: np.ndarray,
    thresholds: Sequence[float],
    indices: np.ndarray,
    classes: Sequence[str],
) -> list[Doubt]:
    """Returns the images of several labels of which a model named other classes, the surest first.

    Args:
        logits: float [N, C].
        truth: int8 [N, C], see `Source.truth`; what nobody said is no mistake.
        thresholds: C probabilities from which on a class is named; 0.5 each where empty.
        indices: int [N], of the images in their source.
        classes: the model's.
    """
    p = sigmoid(logits)
    named = p >= np.asarray(thresholds or (UNCALIBRATED,) * len(classes))
    away = np.where((truth >= 0) & (named != (truth > 0)), np.abs(p - (truth > 0)), 0).max(axis=1)
    rows = np.flatnonzero(away > 0)
    suggested = np.where(truth < 0, False, named)
    return [
        Doubt(
            int(indices[row]),
            "mistake",
            SEPARATOR.join(sorted(classes[int(c)] for c in np.flatnonzero(suggested[row]))) or NONE,
        )
        for row in rows[np.argsort(-away[rows], kind="stable")]
    ]


def _link(page: Path, source: Source, name: str) -> str:
    """Returns how the page names the whole image, relative to itself; '' where it is no file of its own."""
    file = Path(source.origin) / name
    if not source.origin or not file.is_file():
        return ""
    relative = os.path.relpath(file, page.resolve().parent)
    return "/".join(quote(part) for part in Path(relative).parts)
