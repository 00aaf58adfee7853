"""What makes a set of images one that cannot be trained on or judged by: said before anything slow starts."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wastejax.data.corrections import KEY as CORRECTIONS
from wastejax.data.formats.boxes import MARGIN
from wastejax.data.formats.class_folders import same_name
from wastejax.data.formats.walk import listed
from wastejax.data.prepare.notes import LARGE_GROUP
from wastejax.data.sources import Source
from wastejax.data.split import SAME_CONTENT, SPLITS, shorten
from wastejax.errors import ConfigError

_MOST = 20  # names of classes in one message
# What a recipe says of crops and the split that says nothing of its own.
_PLAIN = {"box_margin": MARGIN, "split.ratios": [3, 1, 1], "split.group": "phash", "split.hamming": 8}


def made_with(config: Any) -> dict[str, Any]:
    """Returns what `config.data` says of crops and the split, as shards keep it."""
    split = config.split
    said = (config.get("box_margin", MARGIN), list(split.ratios), split.group, split.hamming)
    return dict(zip(_PLAIN, said, strict=True))


def check_made(config: Any, made: Mapping[str, Any], seed: int) -> list[str]:
    """Checks that a config asks for the crops and the split that shards have, in which nothing can change any more.

    Args:
        config: `config.data`.
        made: what it said as the shards were written, see `made_with`, and the seed that dealt their split, if
            any did; empty where they do not say.
        seed: of the config.

    Returns:
        Notes on what is not as the config has it, where it need not have been asked for or the shards do not say.

    Raises:
        ConfigError: it asks for others than they have.
    """
    notes = []
    for key, given in made_with(config).items():
        before = made.get(key, _PLAIN[key])
        if given == before:
            continue
        if key not in made:
            what = "is not used: crops and the split of shards are as they were written"
        elif given == _PLAIN[key]:  # as in the recipes
            what = f"is {_as_text(before)}, with which the shards were written"
        else:
            raise ConfigError(
                f"config.data.{key}",
                f"is {_as_text(given)}, and the shards were written with {_as_text(before)}; leave it out, or "
                "write them again",
            )
        notes.append(f"config.data.{key} {what}")
    dealt = made.get("seed", seed)
    if dealt != seed:
        notes.append(
            f"config.seed={seed} changes nothing in the split of the shards, which was dealt with seed {dealt}"
        )
    return notes


def _as_text(value: Any) -> str:
    numbers = value if isinstance(value, list) else [value]
    return ",".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)


def check_opened(source: Source, after: Source, by_manifest: bool) -> list[str]:
    """Checks classes, and the splits that the data come in where no manifest gives others; returns notes.

    Args:
        source: the images, as they are dealt to splits.
        after: those that corrections leave, with the corrected labels; classes that have none of them are not
            asked for anything.
        by_manifest: a manifest gives the splits.

    Raises:
        ConfigError: there are not two classes, each with as many images as there are splits to deal them to; train
            is missing, or lacks a class.
    """
    if source.empty_folders and not by_manifest:
        raise ConfigError(
            "config.data.dir", f"no images in {listed(source.empty_folders, _MOST)}; add some or remove it"
        )
    least = 1 if by_manifest or source.splits is not None else len(SPLITS)
    if len(after.classes) < 2:
        only = after.classes[0] if after.classes else "none"
        if len(source.classes) >= 2:
            raise ConfigError(CORRECTIONS, f"leave a single class, {only!r}; at least two are needed")
        raise ConfigError(
            "config.data.dir", f"holds a single class, {only!r}; at least two folders are needed"
        )
    # To be learned, a class needs images that may show it; to be scored, images that are known to.
    shown = source.meanings if least == 1 else source.contents
    counts = zip(source.classes, shown.sum(axis=0), strict=True)
    few = [f"{name!r} ({count})" for name, count in counts if count < least and name in after.classes]
    if few:
        which = "" if shown is source.meanings or source.allowed is None else " whose label means one class"
        raise ConfigError(
            "config.data.dir",
            f"too few images{which} to split: class {listed(few, _MOST)}; each class needs at least {least}",
        )
    return [] if by_manifest or source.splits is None else _check_given(after)


def check_all_left(after: Source, readable: Source) -> None:
    """Checks that every class has an image that could be read: of those `after` corrections, one in `readable`."""
    names = set(readable.names)
    good = np.array([name in names for name in after.names], bool)
    lost = np.flatnonzero(~after.meanings[good].any(axis=0))
    if len(lost):
        classes = listed((after.classes[label] for label in lost), _MOST)
        raise ConfigError("config.data.dir", f"no readable image in {classes}; add some or remove the folder")


def _check_given(source: Source) -> list[str]:
    """Checks the splits that the data come in, and returns notes on classes that val or test lack."""
    splits = np.array(source.splits)
    contents, meanings = source.contents, source.meanings
    has = {split: _classes_of(source, meanings[splits == split]) for split in SPLITS}
    if not has["train"]:
        raise ConfigError(
            "config.data.dir", f"has {' and '.join(s for s in SPLITS if has[s])}, and no train to learn from"
        )
    for name in sorted(set(source.classes) - has["train"]):
        where = " and ".join(split for split in SPLITS if name in has[split])
        raise ConfigError(
            "config.data.dir",
            f"class {name!r} is in {where}, and not in train{_near_class(name, has['train'])}",
        )
    return [
        f"{split} has no images of {listed(lacking, _MOST)}: they are learned, and not scored there"
        for split in SPLITS[1:]
        # What is not given is taken from train.
        if (
            lacking := has["train"]
            - _classes_of(source, contents[splits == (split if has[split] else "train")])
        )
    ]


def check_content(source: Source, phash: np.ndarray, meant: np.ndarray) -> list[str]:
    """Returns a note on images that are not those that a manifest means, by their hashes (uint64 [N]).

    Raises:
        ConfigError: they are too many for a few changes: these are other images of the same names.
    """
    changed = np.flatnonzero(np.bitwise_count(phash ^ meant) > SAME_CONTENT)
    if not len(changed):
        return []
    names = ", ".join(shorten([source.names[i] for i in changed], 5))
    problem = (
        f"{len(changed):,} of {len(source):,} images are not those that the manifest means, by their content"
    )
    if len(changed) > LARGE_GROUP * len(source):
        raise ConfigError("config.data.split.manifest", f"{problem}: {names}")
    return [f"{problem}: {names}"]


def check_splits(
    source: Source,
    groups: np.ndarray,
    splits: np.ndarray,
    dealt: Sequence[str],
    key: str,
    scene: str = "",
    lasting: Sequence[str] | None = None,
) -> None:
    """Checks that no split is empty, and that every class has images in the splits that were `dealt`.

    Train learns from labels that mean several classes too; val and test are scored by those that mean one.

    Args:
        source: N images.
        groups: int [N], which were not torn apart.
        splits: str [N].
        dealt: splits that were made here; those of a manifest or of folders may lack classes.
        key: what to blame.
        scene: by `describe_scene`: why there may be too few groups.
        lasting: the classes that are asked for; None for all.
    """
    contents = source.contents
    meanings = contents if source.allowed is None else source.allowed
    for label, name in enumerate(source.classes):
        mine = contents[:, label]
        there = {split: meanings[:, label] if split == "train" else mine for split in dealt}
        missing = [split for split in dealt if not np.any(there[split] & (splits == split))]
        pool = mine & np.isin(splits, dealt)
        if not missing or (lasting is not None and name not in lasting):
            continue
        if source.splits is not None and not np.any(mine) and np.any(meanings[:, label]):
            continue  # it is learned, and not scored: `check_opened` has a note on it
        count, distinct = int(np.sum(pool)), len(np.unique(groups[pool]))
        lacking = f"class {name!r} has no image in {' and '.join(missing)}"
        if not count:
            problem = f"{lacking}{_near_class(name, _classes_of(source, meanings[splits == missing[0]]))}"
        elif count < len(dealt):
            problem = f"{lacking}: its {count} cannot be dealt to {' and '.join(dealt)}; add some"
        elif scene:
            problem = f"{lacking}: {scene}"
        elif len(dealt) == 1:
            problem = f"{lacking}; add some there, or remove the class"
        else:
            problem = (
                f"{lacking}: its {count} form {distinct} groups of near-duplicates, which are not torn apart; add "
                "images, remove the class, or set config.data.split.group='none'"
            )
        raise ConfigError(key, problem)
    which = ""
    if source.allowed is not None:
        splits, which = splits[contents.any(axis=1) | (splits == "train")], " whose label means one class"
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        raise ConfigError(
            key, f"no image{which} is left for {' and '.join(empty)}; all of {', '.join(SPLITS)} are needed"
        )


def _near_class(name: str, classes: set[str]) -> str:
    """Returns '; did you mean …?' where there is such a class, else what to do."""
    alike = [other for other in sorted(classes) if same_name(other) == same_name(name)]
    close = alike or difflib.get_close_matches(name, sorted(classes), n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else "; add images of it there, or remove it"


def _classes_of(source: Source, shown: np.ndarray) -> set[str]:
    """Returns the names of the classes that some images show, bool [M, C]."""
    return {source.classes[i] for i in np.flatnonzero(shown.any(axis=0))}
