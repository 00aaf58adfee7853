"""Corrections of labels, as the review page saves them: a CSV file that is read beside the unchanged data.

    file,label,old_label,note
    glass/027.jpg,plastic,glass,        shows plastic: learned and scored as that
    glass/031.jpg,drop,glass,blurred    is left out
    glass/044.jpg,glass,glass,checked   is right as it is: no audit doubts it again

Where images have several labels, `label` names all that an image shows, between semicolons, or says `none`.

A corrected image stays in the split and in the group of near-duplicates that it had, so that no image of a test
becomes one that is learned.
"""

import csv
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.formats.csv_file import Spelling, composed, csv_reader
from wastejax.data.formats.source import SEPARATOR, Source, numbered, rarest
from wastejax.errors import UserError, nearest
from wastejax.files import user_path

COLUMNS = ("file", "label", "old_label", "note")
DROP = "drop"
NONE = "none"  # of the classes, where images have several labels
NAME = "corrections.csv"  # in a run: what it was trained with
KEY = "config.data.corrections"
_MOST_NAMED = 5


class Row(NamedTuple):
    """One correction: an image's name, its class (or `DROP`), its label in the data ('' if unsaid), a remark."""

    file: str
    label: str
    old_label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Corrections:
    """What a file of corrections says.

    Attributes:
        path: the file.
        key: what named it, for messages.
        content: its bytes.
        rows: by the image's name.
    """

    path: Path
    key: str
    content: bytes = field(repr=False)
    rows: Mapping[str, Row]

    @property
    def sha256(self) -> str:
        """The hash of the file, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def of(self, source: Source) -> "Changes":
        """Returns what they change in a source.

        Raises:
            UserError: a row names an image or a class that the source lacks, or an image whose label is another
                than the row says; the rows are named.
        """
        given = self.named_as(source.names)
        if DROP in source.classes:
            raise self.wrong(f"{DROP!r} is what leaves an image out, and a class here; rename its folder")
        if source.shown is not None and NONE in source.classes:
            raise self.wrong(f"{NONE!r} is what shows none of the classes, and a class here; rename it")
        names = {name: i for i, name in enumerate(source.names)}
        gone = [row.file for row in given.rows.values() if row.file not in names and row.label == DROP]
        given._refuse_unknown(source, names)
        for name, row in given.rows.items():
            if name in names and row.old_label and not _fits(row, source, names[name]):
                raise self.wrong(
                    f"{name}: was labeled {row.old_label!r} when it was corrected, and is labeled "
                    f"{source.label_name(names[name]) or NONE!r} in the data; review it again, or remove its row"
                )
        return replace(given._known(source), gone=len(gone))

    def known(self, source: Source) -> "Changes":
        """Returns what those rows change whose image and class a source has; the others are passed over."""
        return self.named_as(source.names)._known(source)

    def named_as(self, names: Collection[str]) -> "Corrections":
        """Returns them with rows that name images as the data do, however Windows or macOS wrote these.

        Raises:
            UserError: two rows then say two things of one image.
        """
        spelled = Spelling({*names})
        rows: dict[str, Row] = {}
        for row in self.rows.values():
            row = row._replace(file=spelled(row.file))
            known = rows.setdefault(row.file, row)
            if known.label != row.label:
                raise self.wrong(f"{row.file} is {row.label!r}, and {known.label!r} in an earlier row")
        return replace(self, rows=rows)

    def _known(self, source: Source) -> "Changes":
        labels: dict[str, str] = {}
        dropped: set[str] = set()
        confirmed: set[str] = set()
        current = source.label_names
        for i, name in enumerate(source.names):
            row = self.rows.get(name)
            if row is None:
                continue
            if row.label == DROP:
                dropped.add(name)
            elif set(_classes(row.label, source)) <= set(source.classes):
                said = source.unsaid is None or not source.unsaid[i].any()
                label = _cell(row.label, source)
                confirmed.add(name)
                labels |= {} if said and current[i] == label else {name: label}
        return Changes(labels, frozenset(dropped), frozenset(confirmed))

    def wrong(self, problem: str) -> UserError:
        """Returns an error that names the file."""
        return UserError(f"{self.key}: {self.path}: {problem}")

    def _refuse_unknown(self, source: Source, names: Mapping[str, int]) -> None:
        for row in self.rows.values():
            lacking = [name for name in _classes(row.label, source) if name not in (*source.classes, DROP)]
            if lacking:
                hint = nearest(lacking[0], (*source.classes, DROP))
                raise self.wrong(f"{row.file}: there is no class {lacking[0]!r}{hint}")
        unknown = [row.file for row in self.rows.values() if row.file not in names and row.label != DROP]
        if unknown:
            listed = ", ".join(unknown[:_MOST_NAMED]) + (" …" if len(unknown) > _MOST_NAMED else "")
            raise self.wrong(
                f"{len(unknown):,} of {len(self.rows):,} rows are of images that are not in the data: {listed}; "
                "are they the corrections of another folder?"
            )


@dataclass(frozen=True)
class Changes:
    """What corrections change in one source.

    Attributes:
        labels: name -> class, of the images whose label changes.
        dropped: names of those that are left out.
        confirmed: names of those that a person gave the label that they now have, or said that it is right.
        gone: rows that leave out images which are not there any more.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    confirmed: frozenset[str] = frozenset()
    gone: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many images are relabeled, dropped, and confirmed as they are."""
        same = len(self.confirmed) - len(self.labels)
        return {"relabeled": len(self.labels), "dropped": len(self.dropped), "confirmed": same}

    def kept(self, source: Source) -> np.ndarray:
        """Returns int64 [M], the images of a source that are not dropped."""
        return np.flatnonzero([name not in self.dropped for name in source.names])

    def relabeled(self, source: Source) -> Source:
        """Returns a source with the corrected labels and every image, also the dropped ones, in the same order."""
        changed = {i: self.labels[name] for i, name in enumerate(source.names) if name in self.labels}
        if not changed:
            return source
        if source.shown is not None:
            return _with_sets(source, {i: _classes(name, source) for i, name in changed.items()})
        if source.allowed is None:
            return _with_labels(source, changed)
        allowed, labels = source.allowed.copy(), source.labels.copy()
        for i, name in changed.items():
            labels[i] = source.classes.index(name)
            allowed[i] = np.arange(len(source.classes)) == labels[i]
        return replace(source, allowed=allowed, labels=labels)

    def joined(self, other: "Changes") -> tuple["Changes", frozenset[str]]:
        """Returns what either changes, whichever comes first, and the images that they contradict each other on.

        Where one says what the other leaves open it counts; contradictions are dropped.
        """
        said = self.confirmed & other.confirmed
        apart = {name for name in said if self.labels.get(name) != other.labels.get(name)}
        apart |= (self.dropped & other.confirmed) | (other.dropped & self.confirmed)
        labels = {name: label for name, label in {**self.labels, **other.labels}.items() if name not in apart}
        confirmed = (self.confirmed | other.confirmed) - apart
        return Changes(labels, self.dropped | other.dropped | apart, confirmed), frozenset(apart)

    def applied(self, source: Source) -> Source:
        """Returns a source with the corrected labels, without the dropped images."""
        source = self.relabeled(source)
        if not self.dropped & set(source.names):
            return source
        return source.select(self.kept(source)).with_shown_classes()


def _with_labels(source: Source, changed: Mapping[int, str]) -> Source:
    """Returns a source of which some images (by index) have other labels; classes without images are dropped."""
    names = [source.classes[label] for label in source.labels]
    for i, name in changed.items():
        names[i] = name
    classes, labels = numbered(names)
    return replace(source, classes=classes, labels=labels)


def _with_sets(source: Source, changed: Mapping[int, Sequence[str]]) -> Source:
    """Returns a source of several labels an image, of which some (by index) show others; drops classes as above."""
    assert source.shown is not None
    shown = source.shown.copy()
    unsaid = None if source.unsaid is None else source.unsaid.copy()
    for i, names in changed.items():
        shown[i] = np.isin(source.classes, names)
        if unsaid is not None:
            unsaid[i] = False
    return replace(source, shown=shown, unsaid=unsaid, labels=rarest(shown)).with_shown_classes()


def _classes(cell: str, source: Source) -> list[str]:
    """Returns the classes that a row says: one, or where images have several labels, those between semicolons."""
    if source.shown is None:
        return [cell]
    return [name.strip() for name in cell.split(SEPARATOR) if name.strip() not in ("", NONE)]


def _cell(cell: str, source: Source) -> str:
    """Returns what a row says as `Source.label_names` has it."""
    if source.shown is None or cell == DROP:
        return cell
    return SEPARATOR.join(sorted(set(_classes(cell, source))))


def _fits(row: Row, source: Source, index: int) -> bool:
    """Returns whether an image has the label that a row says it had, or the one that the row gives it."""
    if {_cell(cell, source) for cell in (row.old_label, row.label)} & {*source.called(index)}:
        return True
    # What a source of a data description calls its labels is not known here, only what they mean.
    return source.allowed is not None and not {*row.old_label.split(SEPARATOR)} <= {*source.classes}


def load_corrections(path: str | Path, key: str = KEY) -> Corrections:
    """Reads a file of corrections.

    Args:
        path: the CSV file, with the columns file and label, and perhaps old_label and note.
        key: what to call it in error messages.

    Raises:
        UserError: it is missing or malformed, or says two things of one image.
    """
    path = user_path(path)
    try:
        content = path.read_bytes()
        reader = csv_reader(content, COLUMNS)
        missing = [name for name in COLUMNS[:2] if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{key}: {path}: has no column {missing[0]!r}; needed are file and label")
        rows: dict[str, Row] = {}
        for entry in reader:
            file, *rest = ((entry.get(name) or "") for name in COLUMNS)
            row = Row(file, *(composed(cell.strip()) for cell in rest))
            where = f"{key}: {path}: line {reader.line_num}"
            if not row.file or not row.label:
                raise UserError(f"{where}: has no {'label' if row.file else 'file'}")
            known = rows.setdefault(row.file, row)
            if known.label != row.label:
                raise UserError(
                    f"{where}: {row.file} is {row.label!r}, and {known.label!r} in an earlier row"
                )
    except (OSError, csv.Error) as error:
        raise UserError(f"{key}: cannot read {path}: {error}") from None
    return Corrections(path, key, content, rows)


def corrections_of_run(run: Path) -> Corrections | None:
    """Returns those that a run (its folder) was trained with; None where there were none."""
    path = run / NAME
    return load_corrections(path, str(run)) if path.is_file() else None
