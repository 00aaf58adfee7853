"""Tables of files and labels: CSV, TSV, JSON lines and Parquet, also as Hugging Face's image folders have them."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wastejax.data.collections.places import is_url
from wastejax.data.formats.boxes.find import content_of, folder_of_all
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.csv_file import composed, csv_reader
from wastejax.data.formats.labels import SEVERAL, labels_of, notes_on_lists
from wastejax.data.formats.parquet import notes_on_columns, read_table
from wastejax.data.formats.source import GROUP, ReadFiles, Source, numbered
from wastejax.data.formats.splits import splits_of_folders
from wastejax.data.formats.walk import stamp_of
from wastejax.errors import ConfigError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # Hugging Face's names
FILE = ("file", "file_name", "filename", "image", "path", "filepath", "image_path")
LABEL = ("label", "class", "category", "label_name", "class_name", "target")
LABELS = ("labels", "classes", "tags", *LABEL)  # where an image has several
IN_FOLDER = "_classes.csv"  # Roboflow's name for a column of 0 and 1 per class
FOLD = ("fold", "folds", "kfold", "fold_id")  # of cross-validation; not read
_KNOWN = frozenset((*FILE, *LABELS, *GROUP, *FOLD, "split", "domain", "source"))
Row = dict[str, Any]


class _Entry(NamedTuple):
    """What the rows of one file say of it."""

    labels: frozenset[str]
    split: str
    group: str
    domain: str


def metadata_files(folder: Path, key: str, several: bool = False) -> list[Path]:
    """Returns the metadata with labels of a Hugging Face image folder: at its top, or in its splits' folders.

    With several labels per image, those of Roboflow too.
    """
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and role_of(p.name))]
    if several and (roboflow := [place / IN_FOLDER for place in places if (place / IN_FOLDER).is_file()]):
        return roboflow
    names = LABELS if several else LABEL
    files = [place / name for place in places for name in METADATA if (place / name).is_file()]
    columns = [_first_cells(read_rows(file, key)) for file in files]
    # Without labels the folders say the class, as they do for Hugging Face.
    labeled = all({*FILE} & {*of_file} and {*names} & {*of_file} for of_file in columns)
    return files if labeled else []


def open_tables(paths: Sequence[Path], key: str, several: bool = False) -> Source:
    """Opens tables whose rows name files, below the table's folder or absolute, and their labels.

    A column `split` (train, val or test, in the usual words) gives the split, or the table's folder does, or else
    those of the files; a column `group` images that stay together; `domain` (or `source`) the domain. A column
    `fold` is noted, not read.

    Several labels of an image are in one cell, between semicolons or bars (a list in JSON and Parquet), in several
    rows of one file, or in a column of 0 and 1 for each class; an empty cell says that the image shows none of the
    classes, and null, or no cell at all, says nothing.

    Args:
        paths: the tables; files are named relative to each.
        key: what to call them in error messages.
        several: images have any number of labels.

    Raises:
        ConfigError: a table cannot be read, lacks a column, or names a file twice or with several labels; or some
            files have a split and some have none.
    """
    rows = [(path, row) for path in paths for row in read_rows(path, key)]
    if not rows:
        raise ConfigError(key, f"{paths[0]}: lists no file")
    cells = _first_cells(row for _, row in rows)
    file = column_named(paths[0], rows, FILE, key)
    columns = _indicators(cells, file) if several else []
    label = "" if columns else column_named(paths[0], rows, LABELS if several else LABEL, key)
    folders = [path.parent.resolve() for path in paths]
    root = folder_of_all(folders[0], folders, key)
    texts = {text: (path, row.get(file)) for path, row in rows if isinstance(text := row.get(label), str)}
    lists = [] if several else notes_on_lists(texts, key)
    found: dict[str, _Entry] = {}
    counts: Counter[str] = Counter()
    for path, row in rows:
        name = str(row.get(file) or "")
        with content_of(f"{path}: {name[:200]}", key):
            of_row = _flagged(row, columns) if columns else labels_of(row.get(label), (), several, counts)
        if not name or of_row is None:
            counts["rows without a file or a label, left out"] += 1
            continue
        place = _place(path, name, key)
        name = Path(place).relative_to(root).as_posix() if Path(place).is_relative_to(root) else place
        split = split_of(row, path, name, key) or (role_of(path.parent.name) or "" if len(paths) > 1 else "")
        group = next((name for name in GROUP if name in row), None)
        entry = _Entry(
            frozenset(of_row), split, text_of(row, group), text_of(row, "domain") or text_of(row, "source")
        )
        before = found.setdefault(name, entry)
        if before[several:] != entry[several:]:
            raise ConfigError(key, f"{path}: lists {name} twice, {_differing(before, entry)}")
        found[name] = entry._replace(labels=before.labels | entry.labels)
    if not found or not any(entry.labels for entry in found.values()):
        raise ConfigError(key, f"{paths[0]}: no row has both a {file} and a {label or 'class'}")
    notes = [
        *(f"{what}: {count:,}" for what, count in counts.items() if count),
        *lists,
        *_unread(cells, label, LABELS if several else LABEL),
    ]
    source = _source(root, found, [*notes, *_complete_splits(found, paths[0], key)])
    return source.with_several([found[name].labels for name in source.names]) if several else source


def _differing(*entries: _Entry) -> str:
    """Returns what two rows say of one file, for a message."""
    two = " and ".join(f"{', '.join(sorted(e.labels))} {e.split}".strip() for e in entries)
    by_label = len({entry[1:] for entry in entries}) == 1
    hint = f"; {SEVERAL}" if by_label else ""
    return f"with label or split {two}{hint}"


def split_of(row: Row, table: Path, name: str, key: str) -> str:
    """Returns the split that a row says, '' for none; raises a ConfigError where it is none of the three."""
    said = text_of(row, "split")
    split = role_of(said) or ""
    if said and not split:
        raise ConfigError(key, f"{table}: {name} has split {said!r}; must be train, val or test")
    return split


def _complete_splits(found: dict[str, _Entry], table: Path, key: str) -> tuple[str, ...]:
    """Gives each file the split that its folder says, where no row says any, and returns notes on that."""
    given = {bool(entry.split) for entry in found.values()}
    if len(given) > 1:
        raise ConfigError(key, f"{table}: some files have a split and some have none; give all or none")
    if True in given:
        return ()
    splits, notes = splits_of_folders(found, str(table), key)
    found.update({name: entry._replace(split=splits[name]) for name, entry in found.items()})
    return notes


def _first_cells(rows: Iterable[Row]) -> Row:
    """Returns each column with its first cell: an object of JSON lines need not have those of the others."""
    found: Row = {}
    for row in rows:
        if not row.keys() <= found.keys():
            found |= {name: cell for name, cell in row.items() if name not in found}
    return found


def _place(table: Path, name: str, key: str) -> str:
    """Returns where a file lies that a table names, perhaps as Windows does."""
    if "\0" in name:
        raise ConfigError(key, f"{table}: the name of a file holds a zero byte: {name!r}")
    if is_url(name):
        raise ConfigError(key, f"{table}: lists an address, {name}; download the images and list the files")
    folder = table.parent.resolve()
    place = folder / name
    if "\\" in name and not os.path.lexists(place):
        place = folder / name.replace("\\", "/")
    return place.as_posix()


def text_of(row: Row, column: str | None) -> str:
    """Returns a cell as text, '' where there is none, or NaN, as pandas writes it; 0 is a value."""
    cell = row.get(column) if column else None
    return "" if cell is None or cell != cell else str(cell).strip()


def _indicators(row: Row, file: str) -> list[str]:
    """Returns the columns of 0 and 1 for each class; none where a column holds labels."""
    names = [name for name in row if name not in (file, "split", "domain", "source", *GROUP, *FOLD) and name]
    flags = all(str(row[name]).strip() in ("0", "1") for name in names)
    return names if len(names) > 1 and flags and not {*LABELS} & {*names} else []


def _flagged(row: Row, columns: Sequence[str]) -> list[str]:
    for name in columns:
        if str(row.get(name)).strip() not in ("0", "1"):
            has = repr(row[name]) if name in row else "a row without it"
            raise ValueError(f"column {name.strip()!r} must hold 0 or 1, has {has}")
    return [composed(name.strip()) for name in columns if str(row[name]).strip() == "1"]


def _source(root: Path, found: dict[str, _Entry], notes: list[str]) -> Source:
    names = tuple(sorted(found))
    labels, splits, groups, domains = zip(*(found[name] for name in names), strict=True)
    classes, firsts = numbered([min(of_image, default="") for of_image in labels])
    return Source(
        names=names,
        labels=firsts,
        classes=classes,
        domains=tuple(domains),
        splits=tuple(splits) if all(splits) else None,
        read=ReadFiles(root, names),
        stamps=tuple(stamp_of(root / name) for name in names),
        origin=str(root),
        groups=tuple(groups) if any(groups) else None,
        notes=tuple(notes),
    )


def read_rows(path: Path, key: str) -> list[Row]:
    """Returns the rows of a table, read by its ending, as dictionaries; raises ConfigError where that fails."""
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return [_with_plain_names(row) for row in read_table(path, key).to_pylist()]
        if ending in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold other ends of lines
            rows = [json.loads(line) for line in lines if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("each line must be an object, {…}")
            return [_with_plain_names(row) for row in rows]
        return list(csv_reader(path.read_bytes(), _KNOWN, "\t" if ending == ".tsv" else ""))
    except (OSError, csv.Error, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(key, f"cannot read {path}: {error}") from None


def _with_plain_names(row: Row) -> Row:
    """Returns a row whose known columns are in lower case and amid no spaces, as `csv_reader` has them."""
    plain = {name: name.strip().lower() for name in row}
    if all(name == given or name not in _KNOWN or name in row for given, name in plain.items()):
        return row
    return {
        name if name in _KNOWN and name not in row else given: row[given] for given, name in plain.items()
    }


def _unread(row: Mapping[str, Any], label: str, names: Sequence[str]) -> list[str]:
    """Returns notes on columns that are not read: for labels, of those names, and what other tools read."""
    folds = [
        f"column {name!r} is not read: 'split' (train, val, test) says who is where, 'group' what stays together"
        for name in FOLD
        if name in row
    ]
    return folds + notes_on_columns(
        label, [name for name in names if name in row and name != label], "labels"
    )


def column_named(path: Path, rows: Sequence[tuple[Path, Row]], names: Sequence[str], key: str) -> str:
    """Returns the first of the names that the first row has which has any; raises a ConfigError where none has."""
    found = next((name for _, row in rows for name in names if name in row), None)
    if found is None:
        has = ", ".join(map(str, _first_cells(row for _, row in rows)))
        raise ConfigError(
            key, f"{path}: needs a column {names[0]!r} (or {', '.join(names[1:4])}); it has {has}"
        )
    return found
