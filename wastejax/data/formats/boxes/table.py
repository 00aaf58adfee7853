"""Tables with a row for each box, in pixels, as Roboflow exports them for TensorFlow and scripts of labelImg do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wastejax.data.formats.boxes import Box, Reading, Tag
from wastejax.data.formats.boxes.find import Finder, Found, content_of, folder_of_all
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.parquet import notes_on_columns
from wastejax.data.formats.source import GROUP, Source
from wastejax.data.formats.splits import keep_split, splits_of_folders
from wastejax.data.formats.table import FILE, FOLD, LABELS, column_named, read_rows, split_of, text_of
from wastejax.errors import ConfigError

IN_FOLDER = "_annotations.csv"  # Roboflow's name
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_SIZE = ("width", "height")
_UNREAD = (*GROUP, *FOLD, "domain")  # a photograph is the group of its boxes


def box_tables(folder: Path, key: str) -> list[Path]:
    """Returns the tables of boxes of a folder, as Roboflow exports them: at its top, or in its splits' folders."""
    top = [folder / IN_FOLDER] if (folder / IN_FOLDER).is_file() else sorted(folder.glob(f"*/{IN_FOLDER}"))
    return top if top and all(has_boxes(file, key) for file in top) else []


def has_boxes(path: Path, key: str) -> bool:
    """Whether a table has columns for the sides of a box; raises a ConfigError where it cannot be read."""
    return any({*_SIDES} <= row.keys() for row in map(_plain, read_rows(path, key)))


def open_box_tables(paths: Sequence[Path], key: str, reading: Reading) -> Source:
    """Opens tables whose rows name a photograph, its width and height, and the label and sides of a box in it.

    A row without a label and sides names a photograph without a box. Splits are given as in tables of files. The
    photographs lie beside each table (of an absolute path), in images/ there, or anywhere below.
    """
    found = Found()
    for path in paths:
        _read(path, role_of(path.parent.name) or "" if len(paths) > 1 else "", found, key)
    root = folder_of_all(paths[0].parent, [path.parent for path in paths], key)
    return found.as_source("a table of boxes", root, reading, key)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip().lower(): cell for name, cell in row.items()}


def _read(path: Path, split: str, found: Found, key: str) -> None:
    """Adds what a table says, of which all is of a split, '' where it may say that itself."""
    rows = [_plain(row) for row in read_rows(path, key)]
    pairs = [(path, row) for row in rows]
    file, label = (column_named(path, pairs, names, key) for names in (FILE, LABELS))
    if missing := [name for name in _SIZE if not any(name in row for row in rows)]:
        problem = f"has boxes, but no column {missing[0]!r} of its photographs, in pixels"
        raise ConfigError(key, f"{path}: {problem}; add it, or export as COCO")
    others = [name for name in LABELS if name != label and any(name in row for row in rows)]
    notes_on_labels = notes_on_columns(label, others, "labels")
    names = [text_of(row, file).replace("\\", "/") for row in rows]
    said = [split_of(row, path, name, key) or split for name, row in zip(names, rows, strict=True)]
    of_folder, notes = splits_of_folders({*names} - {""}, str(path), key) if not any(said) else ({}, ())
    found.notes += [note for note in (*notes, *notes_on_labels) if note not in found.notes]
    find = Finder(path, key)
    place: dict[str, Path] = {}
    for number, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        if not name:
            found.counts["rows without a file, left out"] += 1
            continue
        with content_of(f"{path}: row {number}", key):
            things = _labels(row, label, found)
            if name not in place:
                place[name] = find(name)
        of_row = said[number - 1] or of_folder.get(name, "")
        keep_split(found.photographs, place[name], of_row, name, path, key)
        found.things += [thing._replace(path=str(place[name])) for thing in things]
        for column in _UNREAD:
            found.counts[f"rows with {column!r}, which is not read beside boxes"] += bool(
                text_of(row, column)
            )
    found.counts = +found.counts


def _labels(row: dict[str, Any], label: str, found: Found) -> list[Box | Tag]:
    """Returns the box of a row, without its path; one without sides or without a label is a tag.

    Raises:
        ValueError: a number is missing or is none.
    """
    name, sides = text_of(row, label), [text_of(row, side) for side in _SIDES]
    if not any(sides):
        found.dropped["without a box"] += bool(name)
        return [Tag("", name)] if name else []
    if not name:
        return [Tag("", "")]
    numbers = dict.fromkeys((*_SIZE, *_SIDES), 0.0)
    for column in numbers:
        try:
            numbers[column] = float(text_of(row, column))
        except ValueError:
            raise ValueError(f"{column} must be a number, is {text_of(row, column)!r}") from None
    width, height, left, top, right, bottom = numbers.values()
    if not (width >= 1 and height >= 1):
        raise ValueError("width and height must be at least 1")
    return [
        Box("", name, (left / width, top / height, right / width, bottom / height), (int(width), int(height)))
    ]
