"""Seeded train/val/test splits with near-duplicates on one side, and the manifest that records them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.duplicates import joined_groups
from wastejax.data.formats.csv_file import Spelling, composed, csv_reader
from wastejax.data.sources import Source
from wastejax.errors import ConfigError
from wastejax.files import user_path

SPLITS = ("train", "val", "test")
_COLUMNS = ("file", "label", "domain", "group", "split")
SAME_CONTENT = 8  # of 64 bits of two perceptual hashes may differ after an image was encoded anew
_ENOUGH = 5  # images that are dealt 3:1:1 by themselves; of fewer, rounding would leave a split without any
_LONG_NUMBER = 8  # digits of a group's number from which it is a name
_MANIFEST_KEY = "config.data.split.manifest"


class Manifest(NamedTuple):
    """Rows of a manifest, in the order of the source.

    Attributes:
        indices: int64 [M], index of each row's image in the source.
        groups: int32 [M], near-duplicate group.
        splits: str [M], 'train', 'val' or 'test'.
        phash: uint64 [M], perceptual hashes of the images that were meant; None where it has none.
    """

    indices: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    phash: np.ndarray | None = None

    def without(self, indices: np.ndarray) -> "Manifest":
        """Returns the rows of other images than these, int [K] in the source."""
        kept = ~np.isin(self.indices, indices)
        phash = None if self.phash is None else self.phash[kept]
        return Manifest(self.indices[kept], self.groups[kept], self.splits[kept], phash)


def stratified_group_split(
    labels: np.ndarray,
    domains: Sequence[str],
    groups: np.ndarray,
    ratios: Sequence[float] = (3, 1, 1),
    seed: int = 17,
    splits: Sequence[str] = SPLITS,
    shown: np.ndarray | None = None,
) -> np.ndarray:
    """Splits images by the given ratios within every class and large domain, whole groups to one side.

    Groups are dealt largest first, in seeded random order among equals, each to the split that lacks most
    images of the group's classes and domains: that way the sum of squared differences from the ideal counts
    falls fastest. Then every class that misses a split is given one of its groups by a split that can spare it.

    Args:
        labels: int [N], classes.
        domains: N domain names.
        groups: int [N], group ids.
        ratios: sizes of the splits relative to each other.
        seed: same seed, same split.
        splits: names of the splits.
        shown: bool [N, C], the classes of each image where it has any number of them; `labels` then only deal.

    Returns:
        str [N], the split of each image. A class with fewer groups than splits is missing in some split.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if shown is None:
        shown = labels[:, None] == np.arange(int(labels.max()) + 1)
    strata = _strata(labels, domains)
    share = np.asarray(ratios, np.float64) / np.sum(ratios)
    lacking = share[:, None] * np.bincount(strata)  # float [splits, strata]: still to be dealt
    members = members_of(groups)
    order = np.random.default_rng(seed).permutation(len(members))
    result = np.zeros(len(labels), np.int64)
    for g in sorted(order, key=lambda g: -len(members[g])):
        where, count = np.unique(strata[members[g]], return_counts=True)
        # Rounded: a tie must break the same way on every processor.
        to = int(np.argmax(np.round(lacking[:, where] @ count, 6)))
        lacking[to, where] -= count
        result[members[g]] = to
    _fill_missing(result, shown, [members[g] for g in order], len(splits))
    return np.asarray(splits)[result]


def _strata(labels: np.ndarray, domains: Sequence[str]) -> np.ndarray:
    """Returns int [N], what is dealt by the ratios: each class in each domain that has enough images of it.

    Where these are few, the class is, over all such domains; where they are few even so, the domain; at last all
    that is left. A class that has few in all is dealt by itself.
    """
    names, domain = np.unique(domains, return_inverse=True)
    classes = int(labels.max()) + 1
    by_class = len(names) * classes + labels
    by_domain = len(names) * classes + classes + domain
    small = np.bincount(labels)[labels] < _ENOUGH
    strata = np.where(small, by_class, domain * classes + labels)
    for wider in (by_class, by_domain, by_domain.max() + 1):
        _, at, count = np.unique(strata, return_inverse=True, return_counts=True)
        strata = np.where(small | (count[at] >= _ENOUGH), strata, wider)
    return np.unique(strata, return_inverse=True)[1]


def members_of(groups: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of each group's images."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(order, starts)


def _fill_missing(result: np.ndarray, shown: np.ndarray, members: list[np.ndarray], num_splits: int) -> None:
    """Moves groups, smallest first, into splits (int [N], in place) that have no image of some class yet."""
    counts = np.stack([shown[result == split].sum(axis=0) for split in range(num_splits)])
    members = sorted(members, key=len)
    for to, label in zip(*np.nonzero((counts == 0) & (counts.sum(0) > 0)), strict=True):
        if counts[to, label]:  # an earlier move has filled it
            continue
        for group in members:
            if not shown[group, label].any():
                continue
            moved = shown[group].sum(axis=0)
            source = result[group[0]]
            if np.all(counts[source][moved > 0] > moved[moved > 0]):  # nothing runs empty there
                counts[source] -= moved
                counts[to] += moved
                result[group] = to
                break


def deal_missing(
    source: Source,
    given: Sequence[str] | np.ndarray | None,
    groups: np.ndarray,
    ratios: Sequence[float] = (3, 1, 1),
    seed: int = 17,
) -> tuple[np.ndarray, list[str]]:
    """Splits as it is given, and by ratio, class, domain and group where nothing is given.

    A part that is not given (many sets have no val) is taken from train.

    Args:
        source: N images.
        given: str [N], 'train', 'val' or 'test', with train among them; None for images that are not divided yet.
        groups: int [N], group ids.
        ratios: sizes of train, val and test relative to each other; those of the parts that are dealt count.
        seed: same seed, same split.

    Returns:
        str [N], the split of each image, and the names of the splits that were dealt here.
    """
    splits = np.full(len(source), "train") if given is None else np.array(given, "U5")
    dealt = [split for split in SPLITS if split == "train" or split not in splits]
    if len(dealt) > 1:
        pool = np.flatnonzero(splits == "train")
        of_dealt = [ratios[SPLITS.index(split)] for split in dealt]
        domains = [source.domains[i] for i in pool]
        # Those of no class are dealt too, as a class of their own.
        known = source.meanings[pool].any(axis=1)
        labels, shown = np.where(known, source.labels[pool], len(source.classes)), source.contents[pool]
        if source.shown is None:
            shown = np.column_stack([shown, ~known])
        splits[pool] = stratified_group_split(labels, domains, groups[pool], of_dealt, seed, dealt, shown)
    return splits, dealt


def save_manifest(
    path: str | Path,
    source: Source,
    groups: np.ndarray,
    splits: np.ndarray | Sequence[str],
    phash: Iterable[int] | None = None,
) -> None:
    """Writes `file,label,domain,group,split` for every image of the source as UTF-8 CSV.

    Args:
        path: the file; replaced if it is there.
        source: N images.
        groups: int [N].
        splits: str [N].
        phash: N perceptual hashes, which become another column; by them the images are known again under other
            names.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as text:  # row by row: there may be millions
        writer = csv.writer(text)
        writer.writerow(_COLUMNS if phash is None else (*_COLUMNS, "phash"))
        looks = repeat(()) if phash is None else ((f"{int(look):016x}",) for look in phash)
        for i, (name, look) in enumerate(zip(source.names, looks, strict=False)):
            writer.writerow((name, source.label_name(i), source.domains[i], int(groups[i]), splits[i], *look))
    partial.replace(path)


def load_manifest(path: str | Path, source: Source, also: Mapping[str, str] | None = None) -> Manifest:
    """Reads a manifest and finds its files in the source.

    The manifest may list fewer files than there are: that is how a cleaned set is described.

    Args:
        path: the manifest.
        source: the images.
        also: name -> label that the manifest may say as well as that of the source: a corrected one.

    Raises:
        ConfigError: the manifest is missing or malformed, or lists a file that the source lacks, lists it twice,
            or labels it differently; the files are named.
    """
    rows = _read_rows(user_path(path))
    index = {name: i for i, name in enumerate(source.names)}
    found: dict[int, dict[str, str]] = {}
    problems = []
    also, spelled = also or {}, Spelling(index)
    for row in rows:
        name = spelled(row["file"])
        i = index.get(name)
        if i is None:
            problems.append(f"{row['file']} is not in the data")
        elif i in found:
            problems.append(f"{row['file']} is listed twice")
        elif row["label"] not in (*source.called(i), also.get(name)):
            problems.append(
                f"{row['file']} is labeled {row['label']!r}, in the data {source.label_name(i)!r}"
            )
        elif row["split"] not in SPLITS:
            problems.append(f"{row['file']} has split {row['split']!r}; must be train, val or test")
        else:
            found[i] = row
    if problems or not found:
        raise ConfigError(_MANIFEST_KEY, f"{path}: {'; '.join(shorten(problems)) or 'lists no file'}")
    indices = sorted(found)
    return Manifest(
        np.array(indices, np.int64),
        _groups([found[i]["group"].strip() for i in indices]),
        np.array([found[i]["split"] for i in indices]),
        _hashes([found[i] for i in indices]),
    )


def _groups(cells: Sequence[str]) -> np.ndarray:
    """Returns int32 [M], the groups of a manifest's rows: short numbers as they are, names in order."""
    if all(cell.isdecimal() and len(cell) < _LONG_NUMBER for cell in cells):
        return np.array(list(map(int, cells)), np.int32)
    # A user's own may be blank for none, names, or numbers such as times, which no array is as long as.
    return joined_groups(np.arange(len(cells)), cells)


def recognize(path: str | Path, source: Source, phash: np.ndarray, by_label: bool = True) -> np.ndarray:
    """Finds the images of a manifest again, wherever they lie now.

    An image is that of a row where both have the same label and content; the content is enough where the manifest
    has hashes, and the name where it has none. Of rows of the same content the one in train counts, then in val.
    The labels are not compared where those of the source are no classes of the run, or can mean several.

    Args:
        path: the manifest of a run.
        source: N images.
        phash: uint64 [N], their perceptual hashes.
        by_label: the label has to be the same too.

    Returns:
        str [N], the split of each image; '' for those that the manifest does not list.
    """
    spelled = Spelling({*source.names})
    rows = [row | {"file": spelled(row["file"])} for row in _read_rows(user_path(path))]
    labels: Sequence[str] = source.label_names
    if not by_label or source.allowed is not None:
        rows, labels = [row | {"label": ""} for row in rows], [""] * len(source)
    hashes = _hashes(rows)
    if hashes is None:
        by_name = {(row["file"], row["label"]): row["split"] for row in rows}
        return np.array([by_name.get(key, "") for key in zip(source.names, labels, strict=True)], "U5")
    keys = zip(hashes.tolist(), (row["label"] for row in rows), strict=True)
    by_look: dict[tuple[int, str], str] = {}
    for key, row in zip(keys, rows, strict=True):
        # Of copies in several splits the run has learned from one, or chosen its epoch by one.
        both = by_look.get(key, row["split"]), row["split"]
        by_look[key] = min(both, key=lambda name: (*SPLITS, name).index(name))
    named = {(row["file"], row["label"]): (int(h), row["split"]) for row, h in zip(rows, hashes, strict=True)}

    def split(name: str, label: str, look: int) -> str:
        known, of_name = named.get((name, label), (None, ""))
        same = known is not None and (known ^ look).bit_count() <= SAME_CONTENT
        return of_name if same else by_look.get((look, label), "")

    found = zip(source.names, labels, phash.tolist(), strict=True)
    return np.array([split(*image) for image in found], "U5")


def _hashes(rows: Sequence[dict[str, str]]) -> np.ndarray | None:
    """Returns uint64 [M], the hashes of a manifest's rows; None where one has none."""
    try:
        return np.array([int(row["phash"], 16) for row in rows], np.uint64)
    except (KeyError, ValueError, OverflowError):
        return None


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        reader = csv_reader(path.read_bytes(), _COLUMNS)
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            raise ConfigError(
                _MANIFEST_KEY, f"{path} must be a CSV file with the columns {', '.join(_COLUMNS)}"
            )
        return [
            row | {"split": row["split"].strip().lower(), "label": composed(row["label"])} for row in reader
        ]
    except (OSError, csv.Error) as error:
        raise ConfigError(_MANIFEST_KEY, f"cannot read {path}: {error}") from error


def shorten(lines: Sequence[str], most: int = 20) -> list[str]:
    """Returns the first lines, and how many more there are."""
    return [*lines[:most], f"and {len(lines) - most:,} more"] if len(lines) > most else list(lines)
