"""A data description: several sources of images whose labels need not agree, as one TOML file.

classes = "household"            # the source whose labels are the classes; or a list of names
labels = "label_map.csv"         # what the labels of the others mean, see `label_map`

[sources.household]
path = "household_waste"         # beside this file, or absolute, or a URL
weight = 3                       # share of the training batches; by default the number of its training images

[sources.trashnet]
path = "trashnet"
groups = "groups.csv"            # file,group: images that belong together, such as crops of one photograph
labels = "trashnet"              # its name in the label map, if not its own

Labels that are classes mean these, unless the label map has rows of their source that say something else.

Where images have several labels, one that means several classes leaves these open. So is every class that no label
of a source can mean: there it is neither learned nor scored, for nobody has looked for it.
"""

import csv
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.collections.places import is_url
from wastejax.data.description.label_map import LabelMap, Meaning, allowed_classes, load_label_map
from wastejax.data.duplicates import joined_groups
from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import CROPS, Reading
from wastejax.data.formats.csv_file import Spelling, composed, csv_reader
from wastejax.data.formats.source import ReadJoined, Source, rarest
from wastejax.data.formats.walk import listed
from wastejax.errors import ConfigError, UserError, nearest
from wastejax.files import user_path

KEY = "config.data.dir"
LEAST_SHARE = 1e-4  # of the batches: of smaller ones the turns of the sources would be too many to list
_TOP = ("classes", "labels", "sources")
_SOURCE = ("path", "weight", "labels", "meanings", "groups")


@dataclass(frozen=True, eq=False)
class Mixture:
    """The images of all sources.

    Attributes:
        source: the images, with `allowed`, or `shown` and `unsaid`, `members` and `groups`; names, also of groups,
            begin with their source's.
        given: source -> its share of the training batches, relative to the others', where the description says it.
        label_map: of the description, None where it has none.
    """

    source: Source
    given: Mapping[str, float]
    label_map: LabelMap | None

    @property
    def together(self) -> tuple[str, ...]:
        """Per image the group that it was given, '' for none."""
        return self.source.groups or ()

    @property
    def weights(self) -> dict[str, float]:
        """Source -> its share of the batches, where all images are trained on."""
        return self.weights_of(self.source.members or ())[0]

    def weights_of(self, members: Iterable[str]) -> tuple[dict[str, float], tuple[str, ...]]:
        """Returns the shares of the sources of some images, and a note for each that is above the number of these.

        Args:
            members: of the images that are trained on, the source of each.

        Raises:
            ConfigError: a share is so small that the source is hardly ever drawn.
        """
        counts = Counter(members)
        weights = {name: self.given.get(name, float(count)) for name, count in counts.items()}
        least = LEAST_SHARE * sum(weights.values())
        few = [name for name in weights if weights[name] < least]
        if few and self.given:
            name = min(few, key=lambda name: weights[name])
            raise ConfigError(
                KEY,
                f"{self.source.origin}: sources.{name}: has {weights[name]:g} of a total weight of "
                f"{sum(weights.values()):g}, a share below {LEAST_SHARE:g}; weights are relative, and by default "
                "the number of training images: give every source one, or none",
            )
        notes = tuple(
            f"{name}: has so few images that they are drawn more often than others, {LEAST_SHARE:g} of all; "
            "give every source a weight to say how often"
            for name in few
        )
        return {name: max(weight, least) for name, weight in weights.items()}, notes


def is_description(path: str | Path) -> bool:
    """Returns whether `config.data.dir` names a data description and not a folder."""
    return Path(path).suffix.lower() == ".toml"


def source_paths(path: str | Path, key: str = KEY) -> list[Path]:
    """Returns where the images of sources on this machine are; raises a ConfigError as a description is opened."""
    path = user_path(path)
    places = [_where(path, entry) for entry in _read(path, key)["sources"].values()]
    return [place for place in places if isinstance(place, Path)]


def open_description(path: str | Path, key: str = KEY, reading: Reading = CROPS) -> Mixture:
    """Opens every source of a data description.

    Args:
        path: the file.
        key: what to call it in error messages.
        reading: how boxes become crops, or what photographs show.

    Raises:
        ConfigError: the file or a source is missing or malformed, a label has no meaning, or some of the sources
            come with splits and some do not.
    """
    path = user_path(path)
    content = _read(path, key)
    label_map = None
    try:
        if "labels" in content:
            label_map = load_label_map(path.parent / user_path(str(content["labels"])), f"{path}: labels")
        opened = {
            name: open_path(_where(path, entry), f"{path}: sources.{name}.path", reading)
            for name, entry in content["sources"].items()
        }
        classes = _classes(path, content["classes"], opened)
        meant = [
            _meant(path, name, source, content["sources"], classes, label_map)
            for name, source in opened.items()
        ]
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(key, str(error)) from None
    notes = _unknown_meanings(opened, content["sources"])
    together = tuple(
        group
        for name, source in opened.items()
        for group in _together(path, name, source, content["sources"][name], notes)
    )
    joined = _joined(opened, classes, path)
    source = (_with_several if reading.several else _with_allowed)(joined, opened, meant)
    made_of = label_map.materials(classes) if label_map else None
    source = replace(source, materials=made_of, groups=together, notes=(*source.notes, *notes))
    given = {name: float(entry["weight"]) for name, entry in content["sources"].items() if "weight" in entry}
    mixture = Mixture(source, given, label_map)
    mixture.weights_of(source.members or ())  # what cannot be drawn is said before images are read
    return mixture


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(key, f"cannot read {path}: {error}") from None
    _known(path, content, _TOP, "")
    sources = content.get("sources")
    if not isinstance(sources, dict) or not sources:
        raise ConfigError(key, f"{path}: has no [sources.NAME]")
    if "classes" not in content:
        raise ConfigError(
            key, f"{path}: lacks `classes`: the source whose labels are the classes, or a list of names"
        )
    for name, entry in sources.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise ConfigError(key, f"{path}: sources.{name}: lacks `path`, the folder of its images")
        _known(path, entry, _SOURCE, f"sources.{name}.")
        weight = entry.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ConfigError(key, f"{path}: sources.{name}.weight: must be a number above 0, is {weight!r}")
        if not _are_meanings(entry.get("meanings", {})):
            raise ConfigError(
                key,
                f"{path}: sources.{name}.meanings: must hold a list of class names for each label, as in "
                '{ metal = ["can"] }',
            )
    return content


def _are_meanings(given: Any) -> bool:
    return isinstance(given, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in given.values()
    )


def _known(path: Path, table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(KEY, f"{path}: there is no key {where}{key}{nearest(key, keys)}")


def _where(path: Path, entry: Mapping[str, Any]) -> Path | str:
    """Returns where a source lies: beside the description, or at its URL."""
    return entry["path"] if is_url(entry["path"]) else path.parent / user_path(entry["path"])


def _classes(path: Path, given: Any, opened: Mapping[str, Source]) -> tuple[str, ...]:
    if isinstance(given, str):
        if given not in opened:
            raise ConfigError(KEY, f"{path}: classes: there is no source {given!r}{nearest(given, opened)}")
        return opened[given].classes
    names = isinstance(given, list) and all(isinstance(name, str) for name in given)
    if not names or len(set(given)) < 2:
        raise ConfigError(KEY, f"{path}: classes: must be the name of a source, or a list of class names")
    return tuple(sorted({composed(name) for name in given}))


def _meant(
    path: Path,
    name: str,
    source: Source,
    entries: Mapping[str, Mapping[str, Any]],
    classes: tuple[str, ...],
    label_map: LabelMap | None,
) -> np.ndarray:
    """Returns bool [L, C], the classes that each of the L labels of a source can mean, by all `entries`."""
    where, entry = f"{path}: sources.{name}", entries[name]
    if "meanings" in entry:
        if "labels" in entry:
            problem = "`labels` and `meanings` both say what its labels mean; give one of them"
            raise ConfigError(KEY, f"{where}: {problem}")
        meanings = {
            composed(label): Meaning(tuple(map(composed, names)))
            for label, names in entry["meanings"].items()
        }
    else:
        are_classes = set(source.classes) <= set(classes)
        rows = _rows(where, name, entries, label_map, are_classes)
        own = source.classes if are_classes else ()
        meanings = {composed(label): Meaning((label,)) for label in own} | dict(rows)
        where = str(label_map.path) if rows and label_map else where
    return allowed_classes(source.classes, meanings, classes, where)


def _unknown_meanings(opened: Mapping[str, Source], entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a note for each source whose `meanings` name labels that none of its images has."""
    notes = []
    for name, source in opened.items():
        labels = {*map(composed, source.classes)}
        unknown = sorted({*map(composed, entries[name].get("meanings", {}))} - labels)
        if unknown:
            notes.append(
                f"{name}: no image has the label {listed(map(repr, unknown))}, of which `meanings` speak"
            )
    return notes


def _rows(
    where: str,
    name: str,
    entries: Mapping[str, Mapping[str, Any]],
    label_map: LabelMap | None,
    are_classes: bool,
) -> Mapping[str, Meaning]:
    """Returns what the label map says of a source; nothing where it need not, as its labels `are_classes`."""
    asked = "labels" in entries[name]
    if label_map is None:
        if asked:
            problem = "there is no label map; name its file in `labels` above the sources, or leave this out"
            raise ConfigError(KEY, f"{where}.labels: {problem}")
        if not are_classes:
            raise ConfigError(
                KEY, f"{where}: its labels are not the classes; say in `meanings` what they mean"
            )
        return {}
    if are_classes and not asked and composed(name) not in label_map.sources:
        return {}
    named = {source: str(entry.get("labels", source)) for source, entry in entries.items()}
    # Rows that are of another source here are not of this one too, even where there are no others.
    theirs = any(composed(other) in label_map.sources for other in named.values())
    return label_map.named(named[name]) if asked or theirs else label_map.of(name)


def _together(path: Path, name: str, source: Source, entry: Mapping[str, Any], notes: list[str]) -> list[str]:
    """Returns the given group of each image of a source, '' for none; notes say which rows name no image."""
    if "groups" not in entry:
        return [group and f"{name}/{group}" for group in source.groups or [""] * len(source)]
    file = path.parent / user_path(str(entry["groups"]))
    try:
        rows = csv_reader(file.read_bytes(), ("file", "group"))
        spelled = Spelling({*source.names})
        listed = [(spelled(row["file"].replace("\\", "/")), row["group"].strip()) for row in rows]
    except (OSError, csv.Error, KeyError) as error:
        raise ConfigError(
            KEY, f"{path}: sources.{name}.groups: needs columns file and group: {error}"
        ) from None
    groups: dict[str, str] = {}
    for image, group in listed:
        if (before := groups.setdefault(image, group)) != group:
            twice = f"{image} is of the groups {before!r} and {group!r}; give each image one"
            raise ConfigError(KEY, f"{path}: sources.{name}.groups: {file}: {twice}")
    if unknown := sorted(groups.keys() - {*source.names}):
        names = f"{file}: {len(unknown):,} of {len(groups):,} rows name no image, such as {unknown[0]!r}"
        if len(unknown) == len(groups):
            like = f"files are named as {source.names[0]!r} is"
            raise ConfigError(KEY, f"{path}: sources.{name}.groups: {names}; {like}")
        notes.append(f"{name}: {names}")
    given = [groups.get(image, "") for image in source.names]
    if source.groups is None:
        return [group and f"{name}/{group}" for group in given]
    # The source's own groups, such as crops of one photograph, stay whole beside those of the file.
    own = joined_groups(np.arange(len(source)), source.groups)
    return [f"{name}/{group}" for group in joined_groups(own, given)]


def _joined(opened: Mapping[str, Source], classes: tuple[str, ...], path: Path) -> Source:
    """Returns the images of all sources as one, without what they show."""
    sources = list(opened.values())
    has_splits = all(source.splits is not None for source in sources)
    if with_splits := [
        name for name, source in opened.items() if source.splits is not None and not has_splits
    ]:
        without = listed(set(opened) - set(with_splits))
        raise ConfigError(
            KEY,
            f"{path}: the images of {listed(with_splits)} come with splits and those of {without} without; give "
            "splits to all or none of the sources, with folders train, val and test or a table's column 'split'",
        )
    return Source(
        names=tuple(f"{name}/{image}" for name, source in opened.items() for image in source.names),
        labels=np.zeros(sum(map(len, sources)), np.int32),
        classes=classes,
        # A source is a domain of its own, so that every split has its share of each.
        domains=tuple(f"{name}/{d}".rstrip("/") for name, source in opened.items() for d in source.domains),
        splits=tuple(split for source in sources for split in source.splits or ()) if has_splits else None,
        read=ReadJoined(tuple((len(source), source.read) for source in sources)),
        stamps=tuple(stamp for source in sources for stamp in source.stamps),
        origin=str(path.resolve()),
        members=tuple(name for name, source in opened.items() for _ in source.names),
        notes=tuple(f"{name}: {note}" for name, source in opened.items() for note in source.notes),
    )


def _with_allowed(joined: Source, opened: Mapping[str, Source], meant: Sequence[np.ndarray]) -> Source:
    """Returns the images with the classes that the label of each can mean."""
    allowed = np.concatenate(
        [rows[source.labels] for rows, source in zip(meant, opened.values(), strict=True)]
    )
    return replace(joined, allowed=allowed, labels=allowed.argmax(axis=1).astype(np.int32))


def _with_several(joined: Source, opened: Mapping[str, Source], meant: Sequence[np.ndarray]) -> Source:
    """Returns the images with the classes that the labels of each mean, and those that these leave open."""
    shown: list[np.ndarray] = []
    unsaid: list[np.ndarray] = []
    notes = list(joined.notes)
    for (name, source), rows in zip(opened.items(), meant, strict=True):
        single = rows & (rows.sum(axis=1, keepdims=True) == 1)
        shows = source.contents @ single
        # What is labeled as none of the classes alone shows none of them, also of those that no label here means.
        elsewhere = source.contents.any(axis=1) & ~(source.contents @ rows).any(axis=1)
        never = ~rows.any(axis=0)
        shown.append(shows)
        unsaid.append((source.contents @ (rows & ~single) | (never & ~elsewhere[:, None])) & ~shows)
        if open_ := [joined.classes[c] for c in np.flatnonzero(unsaid[-1].any(axis=0))]:
            notes.append(
                f"{name}: its labels leave open {', '.join(open_)}: there they are neither learned nor scored"
            )
    every, gaps = np.concatenate(shown), np.concatenate(unsaid)
    return replace(
        joined, labels=rarest(every), shown=every, unsaid=gaps if gaps.any() else None, notes=tuple(notes)
    )
