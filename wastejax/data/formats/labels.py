"""Cells that say the labels of an image: how several stand in one, and when one may be meant for several."""

import re
from collections.abc import Mapping

from wastejax.data.formats.csv_file import composed
from wastejax.data.formats.walk import listed
from wastejax.errors import ConfigError

BETWEEN = re.compile("[;|]")  # the labels of one cell
SEVERAL = "several an image: --config.loss.kind=multilabel"  # what to do


def parts_of(text: str) -> list[str]:
    """Returns the labels that stand in one cell, in NFC and without the spaces around them."""
    return [composed(label) for part in BETWEEN.split(text) if (label := part.strip())]


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
