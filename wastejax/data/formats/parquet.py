"""Parquet files that hold the images themselves, as Hugging Face's data sets do."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastejax.data.formats.boxes.find import content_of
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.labels import labels_of, notes_on_lists
from wastejax.data.formats.source import GROUP, Source, numbered
from wastejax.data.formats.splits import all_or_none, splits_of_shards
from wastejax.data.formats.walk import listed, stamp_of
from wastejax.data.images import read_file
from wastejax.errors import ConfigError, imported

if TYPE_CHECKING:
    import pyarrow

LABEL = ("label", "class", "category", "labels")
IMAGE = ("image", "img", "picture", "photo")  # what the column of images is called where several hold bytes


def parquet_for(what: str | Path) -> Any:
    """Returns pyarrow's module for Parquet files; raises MissingPackage, naming what needs it."""
    return imported("pyarrow.parquet", str(what), "pyarrow")


def parquet_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a data set's folder: at its top or in data/."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def read_table(path: Path, key: str, columns: list[str] | None = None) -> "pyarrow.Table":
    """Returns the columns of a Parquet file; raises a ConfigError where it cannot be read."""
    parquet = parquet_for(path)
    try:
        return parquet.read_table(path, columns=columns)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(key, f"cannot read {path}: {str(error).splitlines()[0]}") from None


def image_column(path: Path, key: str) -> str | None:
    """Returns the name of the column of images as bytes, or as {bytes, path}; None where there is none."""
    return column_of_images(read_schema(path, key))


def column_of_images(schema: "pyarrow.Schema") -> str | None:
    """Returns the name of the column of images, see `image_column`.

    Of several it is the one that is called so, else the first of {bytes, path}, which is how images are kept; bytes
    alone may be hashes or masks.
    """
    held = columns_of_bytes(schema)
    return _column_named(list(held), IMAGE) or min(held, key=lambda name: not held[name], default=None)


def columns_of_bytes(schema: "pyarrow.Schema") -> dict[str, bool]:
    """Returns the columns that may hold images, and whether each is of {bytes, path}."""
    import pyarrow.types as types

    found = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        beside_path = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if beside_path or types.is_binary(kind) or types.is_large_binary(kind):
            found[str(name)] = bool(beside_path)
    return found


def notes_on_columns(column: str, others: Sequence[str], what: str = "images") -> list[str]:
    """Returns a note on which column the images, or labels, are of, where there are others that might be meant."""
    which = f"{what} are those of the column {column!r}"
    return [f"{which}; not read: {listed(map(repr, others))}"] if others else []


def read_schema(path: Path, key: str) -> "pyarrow.Schema":
    """Returns the names and types of a Parquet file's columns; raises ConfigError where it is none."""
    parquet = parquet_for(path)
    try:
        return parquet.read_schema(path)
    except (OSError, ValueError) as error:
        raise ConfigError(key, f"cannot read {path}: {str(error).splitlines()[0]}") from None


def open_parquet(paths: Sequence[Path], key: str, several: bool = False) -> Source:
    """Opens Parquet files with a column of images and one of labels.

    A column `split` gives the split, or names such as train-00000-of-2 do; a column `group` what stays together.

    Args:
        paths: the files.
        key: what to call them in error messages.
        several: images have any number of labels: lists, or texts with semicolons or bars between labels.

    Raises:
        ConfigError: a file cannot be read or lacks a column, or some images have a split and some have none.
    """
    names: list[str] = []
    labels: list[list[str]] = []
    rows: list[tuple[int, int]] = []
    column = ""
    counts: Counter[str] = Counter()
    texts: dict[str, tuple[object, object]] = {}
    for number, path in enumerate(paths):
        column = _image_and_label(path, key, column, str(paths[0]))
        for at, value, of_row in _labels_in(path, key, several, counts):
            if isinstance(value, str):
                texts[value] = path, f"row {at}"
            labels.append(of_row)
            names.append(f"{path.stem}/{at:06d}")
            rows.append((number, at))
    if not names:
        raise ConfigError(key, f"{paths[0]}: no image has a label")
    classes, firsts = numbered([min(of_image, default="") for of_image in labels])
    stamps = tuple(stamp_of(path) for path in paths)
    named = [_named_files(path, column, key) for path in paths]
    splits, said = _splits(paths, rows, key)
    no_names = _no_names(paths, key)  # an image in the column `photo` is not the name of a photograph
    others = [name for name, noted in no_names.items() if noted and name != column]
    source = Source(
        names=tuple(names),
        labels=firsts,
        classes=classes,
        domains=("",) * len(names),
        splits=splits,
        read=ReadRows(tuple(map(str, paths)), column, np.array(rows), stamps),
        stamps=tuple(
            f"{stamps[number]}-{at}" + (f"-{stamp_of(named[number][at])}" if at in named[number] else "")
            for number, at in rows
        ),
        origin=str(paths[0].parent.resolve()),
        groups=_cells(paths, rows, GROUP, key, no_names) or None,
        notes=(
            f"read as Parquet: {len(paths)} files",
            *notes_on_columns(column, others),
            *said,
            *([] if several else notes_on_lists(texts, key)),
            *(f"{what}: {n:,}" for what, n in counts.items() if n),
            *_notes_on_labels(paths[0], key),
        ),
    )
    return source.with_several(labels) if several else source


def _no_names(paths: Sequence[Path], key: str) -> dict[str, bool]:
    """Returns the columns whose cells are bytes or structs, and whether one may take them for images or groups."""
    import pyarrow.types as types

    found: dict[str, bool] = {}
    for path in paths:
        schema = read_schema(path, key)
        bytes_ = columns_of_bytes(schema)
        of_groups, label = _column_named(schema.names, GROUP), _column_named(schema.names, LABEL)
        for name, kind in zip(schema.names, schema.types, strict=True):
            if name in bytes_ or types.is_struct(kind):
                found[name] = (name in bytes_ or name == of_groups) and name != label
    return found


def _image_and_label(path: Path, key: str, known: str, first: str) -> str:
    """Returns the column of images of a file, that of the first; raises a ConfigError where it has none."""
    schema, found = read_schema(path, key), image_column(path, key)
    if found is None or not _column_named(schema.names, LABEL):
        lacks = "label" if found else "bytes of images"
        raise ConfigError(key, f"{path}: has no column of {lacks}; it has {', '.join(schema.names)}")
    if known and known != found:
        raise ConfigError(key, f"{path}: its images are in {found!r}, those of {first} in {known!r}")
    return found


def _column_named(columns: Sequence[str], names: Sequence[str]) -> str:
    """Returns the column of the first of some names, else the first in capitals or amid spaces; '' for none."""
    plain = {column.strip().lower(): column for column in reversed(columns)}
    spelled = {column: column for column in columns}
    return next((known[name] for known in (spelled, plain) for name in names if name in known), "")


def _notes_on_labels(path: Path, key: str) -> list[str]:
    names = [name for name in read_schema(path, key).names if _column_named([name], LABEL)]
    label = _column_named(names, LABEL)
    return notes_on_columns(label, [name for name in names if name != label], "labels")


def _labels_in(
    path: Path, key: str, several: bool, counts: Counter[str]
) -> Iterator[tuple[int, Any, list[str]]]:
    """Yields the rows of a file that have labels, their cells and these; `counts` is told what is left out."""
    schema = read_schema(path, key)
    label = _column_named(schema.names, LABEL)
    of_number = _class_names(schema, label)
    for at, value in enumerate(read_table(path, key, [label])[label].to_pylist()):
        with content_of(f"{path}: row {at}", key):
            of_row = labels_of(value, of_number, several, counts)
        if of_row is None:
            counts["rows without a label, left out"] += 1
        else:
            yield at, value, of_row


def _named_files(path: Path, column: str, key: str) -> dict[int, Path]:
    """Returns the file that each row names, where rows may hold no image themselves: that can change by itself."""
    file = parquet_for(path).ParquetFile(path)
    about = file.metadata
    groups = (about.row_group(i) for i in range(about.num_row_groups))
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    there = {chunk.path_in_schema for chunk in chunks}
    held = [chunk.statistics for chunk in chunks if chunk.path_in_schema == f"{column}.bytes"]
    if f"{column}.path" not in there or all(s and s.has_null_count and not s.null_count for s in held):
        return {}
    with content_of(f"cannot read {path}", key):
        values = file.read([f"{column}.path"])[column].to_pylist()
    return {at: file_named(path, value["path"]) for at, value in enumerate(values) if value and value["path"]}


def file_named(parquet: Path, name: str) -> Path:
    """Returns a file that a row names, as Hugging Face writes it: below the Parquet file, or as it was there."""
    beside = parquet.parent / name
    return beside if beside.is_file() else Path(name)


def _splits(
    paths: Sequence[Path], rows: Sequence[tuple[int, int]], key: str
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Returns the split of each row, of a column or else of the files' names, and notes."""
    cells = _cells(paths, rows, ("split",), key)
    if cells:
        for (number, at), cell in zip(rows, cells, strict=True):
            if cell and not role_of(cell):
                raise ConfigError(
                    key, f"{paths[number]}: row {at} has split {cell!r}; must be train, val or test"
                )
        given = tuple(role_of(cell) or "" for cell in cells)
        places = (f"{paths[number].name}, row {at}" for number, at in rows)
        all_or_none(zip(places, given, strict=True), str(paths[0].parent), key)
        return given, ()
    used = sorted({paths[number].stem for number, _ in rows})
    of_file, notes = splits_of_shards(used, str(paths[0].parent), key)
    splits = tuple(of_file[paths[number].stem] for number, _ in rows)
    return splits if any(splits) else None, notes


def _cells(
    paths: Sequence[Path],
    rows: Sequence[tuple[int, int]],
    columns: Sequence[str],
    key: str,
    passed_over: Collection[str] = (),
) -> tuple[str, ...]:
    """Returns what the first of the columns that a file has says of each row; nothing where all are empty."""
    found: dict[int, list[str]] = {}
    for number in sorted({number for number, _ in rows}):
        schema = read_schema(paths[number], key)
        if column := _column_named([name for name in schema.names if name not in passed_over], columns):
            names = _class_names(schema, column)
            values = read_table(paths[number], key, [column])[column].to_pylist()
            found[number] = [
                "" if v is None else names[v] if names and isinstance(v, int) else str(v).strip()
                for v in values
            ]
    cells = tuple(found[number][at] if number in found else "" for number, at in rows)
    return cells if any(cells) else ()


def _class_names(schema: "pyarrow.Schema", label: str) -> list[str]:
    """Returns the names that Hugging Face keeps beside numbered labels; empty where there are none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        feature = about["info"]["features"][label]
        return list((feature.get("feature") or feature)["names"])  # a list of labels has them one level down
    except (KeyError, ValueError, TypeError):
        return []


def image_in(value: Any, read: Callable[[str], bytes]) -> bytes:
    """Returns the bytes of the image that a row holds, or what `read` reads where it only names a file.

    Raises:
        OSError: it does neither, or as `read` does.
    """
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if data is not None:
        return bytes(data)
    if not name:
        raise OSError("the row holds no image")
    return read(name)


@dataclass(frozen=True, eq=False)
class ReadRows:
    """Reads images out of Parquet files, by index; a group of rows stays in memory for its neighbors."""

    paths: tuple[str, ...]
    column: str
    rows: np.ndarray
    stamps: tuple[str, ...]  # of the files, so that what is in memory is of the file as it was opened

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one image, or of the file that stands in their place; raises OSError."""
        number, at = (int(value) for value in self.rows[index])
        path, stamp = self.paths[number], self.stamps[number]
        group, place = group_of(path, stamp, at)
        value = _row_group(path, stamp, self.column, group)[self.column][place].as_py()
        return image_in(value, lambda name: read_file(file_named(Path(path), name)))


def group_of(path: str, stamp: str, at: int) -> tuple[int, int]:
    """Returns the row group that holds a row, and the row's place in it."""
    for group, count in enumerate(rows_of_groups(path, stamp)):
        if at < count:
            return group, at
        at -= count
    raise OSError("the file has fewer rows than before")


@lru_cache(maxsize=64)
def rows_of_groups(path: str, stamp: str) -> tuple[int, ...]:
    """Returns how many rows each group of a Parquet file has; another stamp has it looked at anew."""
    about = parquet_for(path).ParquetFile(path).metadata
    return tuple(about.row_group(group).num_rows for group in range(about.num_row_groups))


@lru_cache(maxsize=4)
def _row_group(path: str, stamp: str, column: str, group: int) -> "pyarrow.Table":
    return parquet_for(path).ParquetFile(path).read_row_group(group, columns=[column])
