"""What the labels of other data sets mean in a model's classes: one class, several, or none."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wastejax.data.formats.csv_file import composed, csv_reader
from wastejax.errors import UserError, nearest
from wastejax.files import user_path

COLUMNS = ("label", "classes")


@dataclass(frozen=True)
class Meaning:
    """What one label can mean.

    Attributes:
        classes: class names; empty where it is none of them.
        materials: names of materials, such as 'glass'; empty where nobody said.
    """

    classes: tuple[str, ...]
    materials: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LabelMap:
    """The labels of one or several sources.

    Attributes:
        path: the file, for messages.
        sources: source -> label -> meaning; the source is '' where the file has no such column.
    """

    path: Path
    sources: Mapping[str, Mapping[str, Meaning]]

    def of(self, source: str) -> Mapping[str, Meaning]:
        """Returns the labels of one source, or of the only one that there is, whatever its name.

        Raises:
            UserError: the file does not know the source, and knows several.
        """
        return next(iter(self.sources.values())) if len(self.sources) == 1 else self.named(source)

    def named(self, source: str) -> Mapping[str, Meaning]:
        """Returns the labels of the source of that name, or all where the file names none.

        Raises:
            UserError: the file does not know the source.
        """
        source = composed(source)
        if source in self.sources:
            return self.sources[source]
        if set(self.sources) == {""}:
            return self.sources[""]
        hint = nearest(source, self.sources)
        advice = "give it rows; a description's section may name in `labels` the source whose it shares"
        raise UserError(f"{self.path}: has no rows of a source {source!r}{hint}; {advice}")

    def materials(self, classes: Sequence[str]) -> tuple[frozenset[str], ...] | None:
        """Returns the materials of each class, as far as the labels tell; None where they tell none.

        A class is of every material that all labels which can mean it allow.
        """
        found: dict[str, frozenset[str]] = {}
        for labels in self.sources.values():
            for meaning in labels.values():
                for name in meaning.classes if meaning.materials else ():
                    found[name] = found.get(name, meaning.materials) & meaning.materials
        return tuple(found.get(composed(name), frozenset()) for name in classes) if found else None


def load_label_map(path: str | Path, key: str = "--labels") -> LabelMap:
    """Reads a CSV file with the columns `label` and `classes`, and perhaps `source` and `material`.

    `classes` and `material` take several names between semicolons; no class means that the images show none.

    Args:
        path: the file.
        key: what to call it in error messages.

    Raises:
        UserError: the file is missing or malformed, or says two things of one label.
    """
    path = user_path(path)
    sources: dict[str, dict[str, Meaning]] = {}
    try:
        reader = csv_reader(path.read_bytes(), (*COLUMNS, "source", "material"))
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{key}={path}: has no column {missing[0]!r}; needed are label and classes")
        for row in reader:
            labels = sources.setdefault(composed(row.get("source") or ""), {})
            meaning = Meaning(_names(row["classes"]), frozenset(_names(row.get("material") or "")))
            if labels.setdefault(composed(row["label"]), meaning) != meaning:
                raise UserError(f"{key}={path}: line {reader.line_num}: {row['label']!r} has two meanings")
    except (OSError, csv.Error) as error:
        raise UserError(f"{key}={path}: cannot be read: {error}") from None
    if not sources:
        raise UserError(f"{key}={path}: has no rows")
    return LabelMap(path, sources)


def _names(cell: str) -> tuple[str, ...]:
    return tuple(composed(name.strip()) for name in cell.split(";") if name.strip())


def allowed_classes(
    labels: Sequence[str], meanings: Mapping[str, Meaning], classes: Sequence[str], where: str
) -> np.ndarray:
    """Returns bool [len(labels), C]: the classes that each label can mean.

    Args:
        labels: names of labels, as the folders of a source are called.
        meanings: of a `LabelMap`.
        classes: of the model.
        where: the file, for messages.

    Raises:
        UserError: a label has no meaning, or means a class that there is not.
    """
    position = {composed(name): i for i, name in enumerate(classes)}
    allowed = np.zeros((len(labels), len(classes)), bool)
    for row, label in zip(allowed, map(composed, labels), strict=True):
        if label not in meanings:
            raise UserError(f"{where}: does not say what the label {label!r} means{nearest(label, meanings)}")
        for name in meanings[label].classes:
            if name not in position:
                raise UserError(
                    f"{where}: {label!r} means {name!r}, which is no class{nearest(name, position)}"
                )
            row[position[name]] = True
    return allowed
