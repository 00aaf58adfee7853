"""From a data config to labelled, checked, grouped and split pictures, before anything slow starts."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.duplicates import group_duplicates, scan
from wastejax.data.sources import Source, open_source
from wastejax.data.split import SPLITS, Manifest, load_manifest, shorten, stratified_group_split
from wastejax.errors import ConfigError, nearest

_LARGE_GROUP = 0.05  # share of the set above which a group of near-duplicates is reported
_SECONDS_BETWEEN_PROGRESS = 5.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """N pictures ready for training.

    Attributes:
        source: the pictures, without those that were skipped or that the manifest leaves out.
        groups: int32 [N], near-duplicate group.
        splits: str [N], 'train', 'val' or 'test'.
        skipped: name -> reason, of unreadable files that were left out.
        notes: what the user should know about the data, one line each.
        left_out: the pictures of `config.data.leave_out`, the readable ones; None where it is empty.
    """

    source: Source
    groups: np.ndarray
    splits: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: Source | None = None

    def indices(self, split: str) -> np.ndarray:
        """Returns int64 [M], the pictures of one split, in the order of the source."""
        return np.flatnonzero(self.splits == split)


def prepare(
    data_config: Any, seed: int, cache_dir: Path | None, say: Callable[[str], None] = lambda line: None
) -> Dataset:
    """Opens the data, reads every file once to find the unreadable ones, and splits them.

    Args:
        data_config: `config.data`: source, dir, on_bad_image, leave_out, and split.{ratios, group, hamming,
            manifest}.
        seed: of the split.
        cache_dir: where hashes are kept for the next run; None for no cache.
        say: is given a line about progress now and then.

    Raises:
        ConfigError: a value is impossible, there are not enough pictures or classes, files are unreadable and
            `on_bad_image` is 'raise', or the manifest does not fit the data.
    """
    split_config = data_config.split
    source = open_source(data_config.source, data_config.dir)
    notes = list(source.notes)
    source, manifest, left_out = _choose(source, data_config, notes)
    if source.empty_folders and manifest is None:
        raise ConfigError(
            "config.data.dir", f"no pictures in {_listed(source.empty_folders)}; add some or remove it"
        )
    _check_classes(source, least=1 if manifest is not None or source.splits is not None else len(SPLITS))

    seen = scan(source, cache_dir, _progress(say))
    good = _without_bad(source, seen.bad, data_config.on_bad_image)
    skipped = {source.names[i]: reason for i, reason in seen.bad.items()}
    if skipped:
        notes.append(f"{len(skipped):,} unreadable pictures are left out")
    lost = set(range(len(source.classes))) - set(source.labels[good].tolist())
    if lost:
        names = _listed(source.classes[label] for label in lost)
        raise ConfigError("config.data.dir", f"no readable picture in {names}; add some or remove the folder")
    source = source.select(good)

    twins = group_duplicates(seen.phash[good], seen.grey[good], split_config.hamming)
    if manifest is not None:
        groups, splits = manifest.groups[good], manifest.splits[good]
        _check_splits(source, groups, splits, ("train",), "config.data.split.manifest")
    else:
        groups = twins if split_config.group == "phash" else np.arange(len(source), dtype=np.int32)
        splits, dealt = _split(source, groups, split_config, seed)
        _check_splits(source, groups, splits, dealt, "config.data.dir")
    notes += _notes_on_twins(source, twins, splits)
    if left_out is not None:
        bad = scan(left_out, cache_dir, _progress(say)).bad
        skipped |= {left_out.names[i]: reason for i, reason in bad.items()}
        left_out = left_out.select(_without_bad(left_out, bad, data_config.on_bad_image))
        names = ", ".join(left_out.classes)
        notes.append(
            f"{len(left_out):,} pictures of {names} are kept out of training, as foreign ones to test with"
        )
    return Dataset(source, groups, splits, skipped, notes, left_out)


def _choose(source: Source, config: Any, notes: list[str]) -> tuple[Source, Manifest | None, Source | None]:
    """Returns the pictures to use, the manifest's rows for them if any, and those of the classes left out."""
    foreign = pictures_of(source, config.get("leave_out", ()))
    chosen, manifest = np.setdiff1d(np.arange(len(source)), foreign), None
    if config.split.manifest:
        manifest = load_manifest(config.split.manifest, source)
        unlisted = len(source) - len(np.union1d(manifest.indices, foreign))
        if unlisted:
            notes.append(f"{unlisted:,} pictures that {config.split.manifest} does not list are left out")
        # The manifest of a run lists no picture of these classes; a user's own may choose among them.
        listed = np.intersect1d(foreign, manifest.indices)
        foreign = listed if len(listed) else foreign
        manifest = manifest.without(foreign)
        chosen = manifest.indices
    return source.select(chosen), manifest, source.select(foreign) if len(foreign) else None


def pictures_of(source: Source, names: Sequence[str]) -> np.ndarray:
    """Returns int64 [M], the pictures of the classes that `config.data.leave_out` names.

    Raises:
        ConfigError: there is no such class, or hardly another one.
    """
    key = "config.data.leave_out"
    for name in names:
        if name not in source.classes:
            raise ConfigError(key, f"there is no class {name!r}{nearest(name, source.classes)}")
    if names and len(set(source.classes) - set(names)) < 2:
        raise ConfigError(key, "leaves fewer than two classes to train on")
    return np.flatnonzero(np.isin(source.labels, [source.classes.index(name) for name in names]))


def _check_classes(source: Source, least: int) -> None:
    """Checks that there are two classes of at least `least` pictures."""
    if len(source.classes) < 2:
        only = source.classes[0] if source.classes else "none"
        raise ConfigError(
            "config.data.dir", f"holds a single class, {only!r}; at least two folders are needed"
        )
    counts = np.bincount(source.labels, minlength=len(source.classes))
    few = [f"{name!r} ({count})" for name, count in zip(source.classes, counts, strict=True) if count < least]
    if few:
        raise ConfigError(
            "config.data.dir",
            f"too few pictures to split: class {_listed(few)}; each class needs at least {least}",
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shorten(sorted(names)))


def _progress(say: Callable[[str], None]) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_PROGRESS:
            last = now
            say(f"checking pictures: {done:,} of {total:,}")

    return progress


def _without_bad(source: Source, bad: dict[int, str], on_bad_image: str) -> np.ndarray:
    """Returns int64 [M], the readable pictures, or raises an error that names the others."""
    if bad and on_bad_image == "raise":
        lines = [f"{source.names[i]}: {reason}" for i, reason in sorted(bad.items())]
        raise ConfigError(
            "config.data.on_bad_image",
            f"{len(bad):,} of {len(source):,} pictures cannot be read ({'; '.join(shorten(lines))}); mend or "
            "remove them, or leave them out with --config.data.on_bad_image=skip",
        )
    return np.setdiff1d(np.arange(len(source)), list(bad)).astype(np.int64)


def _split(source: Source, groups: np.ndarray, config: Any, seed: int) -> tuple[np.ndarray, list[str]]:
    """Splits by the folders where they say, and by ratio, class, domain and group where they do not.

    A part that the folders lack (many sets have no val) is taken from train.

    Returns:
        str [N], the split of each picture, and the names of the splits that were dealt here.
    """
    splits = np.full(len(source), "train") if source.splits is None else np.array(source.splits, "U5")
    dealt = [split for split in SPLITS if split == "train" or split not in splits]
    if len(dealt) > 1:
        pool = np.flatnonzero(splits == "train")
        ratios = [config.ratios[SPLITS.index(split)] for split in dealt]
        domains = [source.domains[i] for i in pool]
        splits[pool] = stratified_group_split(source.labels[pool], domains, groups[pool], ratios, seed, dealt)
    return splits, dealt


def _check_splits(
    source: Source, groups: np.ndarray, splits: np.ndarray, in_every_class: Sequence[str], key: str
) -> None:
    """Checks that no split is empty, and that every class has pictures in the splits `in_every_class`."""
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        raise ConfigError(
            key, f"no picture is left for {' and '.join(empty)}; all of {', '.join(SPLITS)} are needed"
        )
    for label, name in enumerate(source.classes):
        mine = source.labels == label
        missing = [split for split in in_every_class if not np.any(mine & (splits == split))]
        if missing:
            count, distinct = int(np.sum(mine)), len(np.unique(groups[mine]))
            raise ConfigError(
                key,
                f"class {name!r} has none of its {count} pictures in {' and '.join(missing)}: it forms {distinct} "
                "groups of near-duplicates, which are not torn apart; add pictures, remove the class, or set "
                "config.data.split.group='none'",
            )


def _notes_on_twins(source: Source, twins: np.ndarray, splits: np.ndarray) -> list[str]:
    """Describes near-duplicates (int [N] groups): how many, across classes or splits, and too large."""
    sizes = np.bincount(twins)
    repeated = np.flatnonzero(sizes > 1)
    if not len(repeated):
        return []
    count = int(sizes[repeated].sum())
    notes = [
        f"{count:,} of {len(source):,} pictures are near-duplicates of others, in {len(repeated):,} groups"
    ]
    across_classes = _groups_with_several(twins, source.labels)
    if across_classes:
        notes.append(
            f"groups of near-duplicates that span several classes (label errors?): {across_classes:,}"
        )
    held_out = np.isin(twins, twins[splits == "train"]) & (splits == "test")
    leaked = int(held_out.sum())
    if leaked:
        share = leaked / max(1, int(np.sum(splits == "test")))
        notes.append(
            f"{leaked:,} test pictures ({share:.0%}) have a near-duplicate in train, which flatters test "
            "accuracy; config.data.split.group='phash' on undivided folders avoids it"
        )
    large = repeated[sizes[repeated] > _LARGE_GROUP * len(source)]
    if len(large):
        top = large[np.argmax(sizes[large])]
        member = source.names[int(np.argmax(twins == top))]
        notes.append(
            f"groups of near-duplicates over {_LARGE_GROUP:.0%} of the set: {len(large)}, the largest of "
            f"{sizes[top]:,} pictures ({sizes[top] / len(source):.0%}), {member} among them"
        )
    return notes


def _groups_with_several(groups: np.ndarray, values: np.ndarray) -> int:
    """Counts the groups whose members differ in `values`."""
    pairs = np.unique(np.stack([groups, values], 1), axis=0)
    return int(np.sum(np.bincount(pairs[:, 0]) > 1))
