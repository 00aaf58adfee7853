"""Cells that say the labels of an image: how several stand in one, and when one may be meant for several."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from wastejax.data.formats.csv_file import composed
from wastejax.data.formats.walk import listed
from wastejax.errors import ConfigError

BETWEEN = re.compile("[;|]")  # the labels of one cell
# Every command reads labels, and only `train` has the key.
SEVERAL = "only models trained with --config.loss.kind=multilabel take several labels per image"


def parts_of(text: str) -> list[str]:
    """Returns the labels that stand in one cell, in NFC and without the spaces around them."""
    return [composed(label) for part in BETWEEN.split(text) if (label := part.strip())]


def labels_of(value: Any, of_number: Sequence[str], several: bool, counts: Counter[str]) -> list[str] | None:
    """Returns the labels of one row; None where nobody said any: an empty cell of several says that there are none.

    Args:
        value: what the column holds; texts in a list are one label each, and one alone may hold several.
        of_number: the names of numbered labels; empty where the column holds the names.
        several: images have any number of labels.
        counts: is told which labels of the row are left out.

    Raises:
        ValueError: there are several labels where an image has one, or a number has no name.
    """
    in_text = parts_of(value) if several and isinstance(value, str) else [value]
    cells = value if isinstance(value, list) else in_text
    found: list[str] = []
    for one in cells:
        if one is None or one != one or not str(one).strip() or (isinstance(one, int) and one < 0):
            continue  # -1: test splits published without labels
        if of_number and isinstance(one, int) and one >= len(of_number):
            raise ValueError(
                f"has label number {one}, and the file names those from 0 to {len(of_number) - 1}"
            )
        text = of_number[one] if of_number and isinstance(one, int) else str(one)
        found.append(composed(text.strip()))
    if len(found) > 1 and not several:
        raise ValueError(f"has {len(found)} labels, {', '.join(found)[:200]}; {SEVERAL}")
    if not found and (cells or not several):
        return None
    counts["labels without a name in lists, left out"] += len(cells) - len(found)
    return found


def notes_on_lists(cells: Mapping[str, tuple[object, object]], key: str, todo: str = SEVERAL) -> list[str]:
    """Returns notes on cells of one label that may be lists of several: part of it is a label of its own elsewhere.

    Args:
        cells: each text that says a label, and where one stands: the file, and the row or image in it.
        key: what to call the option in error messages.
        todo: what the user should do about several labels.

    Raises:
        ConfigError: all parts of a cell are labels elsewhere.
    """
    known = {composed(text.strip()) for text in cells}
    maybe = []
    for text, (file, row) in cells.items():
        parts = parts_of(text)
        if len(parts) > 1 and known.issuperset(parts):
            what = f"has {len(parts)} labels, {', '.join(parts)[:200]}"
            raise ConfigError(key, f"{file}: {str(row)[:200]} {what}; {todo}")
        maybe += [text.strip()] if len(parts) > 1 and not known.isdisjoint(parts) else []
    if not maybe:
        return []
    return [f"labels that may be lists of several, each read as one: {listed(map(repr, maybe))}"]
