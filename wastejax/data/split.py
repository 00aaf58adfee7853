"""Seeded train/val/test splits with near-duplicates on one side, and the manifest that records them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.sources import Source
from wastejax.errors import ConfigError

SPLITS = ("train", "val", "test")
_COLUMNS = ("file", "label", "domain", "group", "split")
_MANIFEST_KEY = "config.data.split.manifest"


class Manifest(NamedTuple):
    """Rows of a manifest, in the order of the source.

    Attributes:
        indices: int64 [M], index of each row's picture in the source.
        groups: int32 [M], near-duplicate group.
        splits: str [M], 'train', 'val' or 'test'.
    """

    indices: np.ndarray
    groups: np.ndarray
    splits: np.ndarray

    def without(self, indices: np.ndarray) -> "Manifest":
        """Returns the rows of other pictures than these, int [K] in the source."""
        kept = ~np.isin(self.indices, indices)
        return Manifest(*(column[kept] for column in self))


def stratified_group_split(
    labels: np.ndarray,
    domains: Sequence[str],
    groups: np.ndarray,
    ratios: Sequence[float] = (3, 1, 1),
    seed: int = 17,
    splits: Sequence[str] = SPLITS,
) -> np.ndarray:
    """Splits pictures by the given ratios within every class and domain, whole groups to one side.

    Groups are dealt largest first, in seeded random order among equals, each to the split that lacks most
    pictures of the group's classes and domains: that way the sum of squared differences from the ideal counts
    falls fastest. Then every class that misses a split is given one of its groups by a split that can spare it.

    Args:
        labels: int [N], classes.
        domains: N domain names.
        groups: int [N], group ids.
        ratios: sizes of the splits relative to each other.
        seed: same seed, same split.
        splits: names of the splits.

    Returns:
        str [N], the split of each picture. A class with fewer groups than splits is missing in some split.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    _, strata = np.unique(
        [f"{label}/{domain}" for label, domain in zip(labels, domains, strict=True)], return_inverse=True
    )
    share = np.asarray(ratios, np.float64) / np.sum(ratios)
    lacking = share[:, None] * np.bincount(strata)  # float [splits, strata]: still to be dealt
    members = _members(groups)
    order = np.random.default_rng(seed).permutation(len(members))
    result = np.zeros(len(labels), np.int64)
    for g in sorted(order, key=lambda g: -len(members[g])):
        where, count = np.unique(strata[members[g]], return_counts=True)
        # Rounded: a tie must break the same way on every processor.
        to = int(np.argmax(np.round(lacking[:, where] @ count, 6)))
        lacking[to, where] -= count
        result[members[g]] = to
    _fill_missing(result, labels, [members[g] for g in order], len(splits))
    return np.asarray(splits)[result]


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of each group's pictures."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(order, starts)


def _fill_missing(result: np.ndarray, labels: np.ndarray, members: list[np.ndarray], num_splits: int) -> None:
    """Moves groups, smallest first, into splits (int [N], in place) that have no picture of some class yet."""
    counts = np.zeros((num_splits, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (result, labels), 1)
    members = sorted(members, key=len)
    for to, label in zip(*np.nonzero((counts == 0) & (counts.sum(0) > 0)), strict=True):
        if counts[to, label]:  # an earlier move has filled it
            continue
        for group in members:
            if label not in labels[group]:
                continue
            moved = np.bincount(labels[group], minlength=counts.shape[1])
            source = result[group[0]]
            if np.all(counts[source][moved > 0] > moved[moved > 0]):  # nothing runs empty there
                counts[source] -= moved
                counts[to] += moved
                result[group] = to
                break


def save_manifest(path: str | Path, source: Source, groups: np.ndarray, splits: np.ndarray) -> None:
    """Writes `file,label,domain,group,split` for every picture of the source as UTF-8 CSV.

    Args:
        path: the file; replaced if it is there.
        source: N pictures.
        groups: int [N].
        splits: str [N].
    """
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for i, name in enumerate(source.names):
            label = source.classes[source.labels[i]]
            writer.writerow((name, label, source.domains[i], int(groups[i]), splits[i]))


def load_manifest(path: str | Path, source: Source) -> Manifest:
    """Reads a manifest and finds its files in the source.

    The manifest may list fewer files than there are: that is how a cleaned set is described.

    Raises:
        ConfigError: the manifest is missing or malformed, or lists a file that the source lacks, lists it twice,
            or labels it differently; the files are named.
    """
    rows = _read_rows(Path(path).expanduser())
    index = {name: i for i, name in enumerate(source.names)}
    found: dict[int, dict[str, str]] = {}
    problems = []
    for row in rows:
        i = index.get(row["file"])
        if i is None:
            problems.append(f"{row['file']} is not in the data")
        elif i in found:
            problems.append(f"{row['file']} is listed twice")
        elif source.classes[source.labels[i]] != row["label"]:
            actual = source.classes[source.labels[i]]
            problems.append(f"{row['file']} is labelled {row['label']!r}, in the data {actual!r}")
        elif row["split"] not in SPLITS:
            problems.append(f"{row['file']} has split {row['split']!r}; must be train, val or test")
        elif not row["group"].isdecimal():
            problems.append(f"{row['file']} has group {row['group']!r}; must be a number")
        else:
            found[i] = row
    if problems or not found:
        raise ConfigError(_MANIFEST_KEY, f"{path}: {'; '.join(shorten(problems)) or 'lists no file'}")
    indices = sorted(found)
    return Manifest(
        np.array(indices, np.int64),
        np.array([int(found[i]["group"]) for i in indices], np.int32),
        np.array([found[i]["split"] for i in indices]),
    )


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # a spreadsheet may have added a BOM
            reader = csv.DictReader(file, restval="")
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise ConfigError(
                    _MANIFEST_KEY, f"{path} must be a CSV file with the columns {', '.join(_COLUMNS)}"
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(_MANIFEST_KEY, f"cannot read {path}: {error}") from error


def shorten(lines: Sequence[str], most: int = 20) -> list[str]:
    """Returns the first lines, and how many more there are."""
    return [*lines[:most], f"and {len(lines) - most:,} more"] if len(lines) > most else list(lines)
