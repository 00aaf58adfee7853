"""Splits that come with the data: said for all of it or for none, and by the names of shards."""

import re
from collections.abc import Collection, Hashable, Iterable, MutableMapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from wastejax.data.formats.class_folders import ROLE_OF, role_of, words_of
from wastejax.data.formats.walk import readable
from wastejax.errors import ConfigError

Image = TypeVar("Image", bound=Hashable)
_NUMBER = re.compile(r"[-_. ]?\d+([-_. ]of[-_. ]\d+)?$")  # train-00000-of-00002


def all_or_none(splits: Iterable[tuple[str, str]], where: str, key: str) -> None:
    """Refuses data of which a part has a split: to deal anew would train on what is there to test with.

    Args:
        splits: names with their splits, '' for none.
        where: what holds them, for the message.
        key: what to call its place there.

    Raises:
        ConfigError: some have a split and some have none; one of each is named.
    """
    first: dict[bool, tuple[str, str]] = {}
    for name, split in splits:
        first.setdefault(bool(split), (name, split))
    if len(first) > 1:
        (name, split), (without, _) = first[True], first[False]
        raise ConfigError(
            key,
            f"{where}: {name!r} is of the split {split}, and {without!r} is of none; give a split to all or "
            "none, or move the rest away",
        )


def keep_split(
    found: MutableMapping[Image, str], image: Image, split: str, name: str, where: Path, key: str
) -> None:
    """Adds the split that an image is listed under to those found before.

    Raises:
        ConfigError: it is listed under another one, too: its labels would count twice, and be tested as they were
            learned.
    """
    if (before := found.setdefault(image, split)) != split:
        both = f"is listed under {before or 'no split'} and under {split or 'no split'}"
        raise ConfigError(key, f"{where}: {name} {both}; list each image under one of them")


def splits_of_shards(names: Sequence[str], where: str, key: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Finds the splits that names of shards say: `train-0000`, `waste-test-00000-of-00002`, `val/0000`.

    Unlike a class folder, a shard may say the name of its set beside the split.

    Args:
        names: of the shards, without their endings, below the folder that all of them lie in.
        where: that folder, for the message.
        key: what to call its place there.

    Returns:
        The split of each shard, '' for all where there are not several; and notes on what was decided.

    Raises:
        ConfigError: some names say a split and some do not.
    """
    said = {name: _role_of_shard(name) for name in names}
    all_or_none(said.items(), where, key)
    plain = sorted({(role, readable(_NUMBER.sub("", name)) or role) for name, role in said.items() if role})
    if len(set(said.values())) > 1:
        unusual = ", ".join(f"{name!r} is {role}" for role, name in plain if name.lower() != role)
        return said, ((f"splits by the names of the files: {unusual}",) if unusual else ())
    notes = [f"no other split beside {plain[0][1]!r}: its images are taken as undivided"] if plain else []
    return dict.fromkeys(said, ""), tuple(notes)


def splits_of_folders(names: Collection[str], where: str, key: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Finds the splits that the folders of files say: `train/a.png`, `set/train/can/a.png`, `can/train/a.png`.

    Args:
        names: of the files that a table lists.
        where: the table, for the message.
        key: what to call its place there.

    Returns:
        The split of each file, '' for all where the folders do not say several; and notes on what was decided.

    Raises:
        ConfigError: some files lie in the folder of a split and some do not.
    """
    folders = {name: name.split("/")[:-1] for name in names}
    levels = zip(*folders.values(), strict=False)
    shared = [of_level[0] for of_level in takewhile(lambda of_level: len({*of_level}) == 1, levels)]
    of_folder = {
        folder: role_of(folder) or "" for folder in {part for path in folders.values() for part in path}
    }
    of_folder[""] = ""  # of a file that lies higher
    # What all share above says where the set lies, and what lies below a class folder no more than its splits.
    for level in (len(shared), len(shared) + 1):
        at = {name: path[level] if len(path) > level else "" for name, path in folders.items()}
        roles = {folder: of_folder[folder] for folder in sorted({*at.values()}) if of_folder[folder]}
        if len({*roles.values()}) > 1:
            splits = {name: of_folder[folder] for name, folder in at.items()}
            all_or_none(splits.items(), where, key)
            said = ", ".join(f"{folder!r} is {role}" for folder, role in roles.items())
            return splits, (f"splits by the folders of the files, where no column 'split' gives any: {said}",)
    above = [] if shared[:1] == [""] else shared  # what an absolute name begins with says nothing of the set
    first = {path[len(shared)] for path in folders.values() if len(path) > len(shared)}
    alone = [folder for folder in (*above, *sorted(first)) if of_folder[folder]]
    notes = [f"no other split beside {folder!r}: its images are taken as undivided" for folder in alone[:1]]
    return dict.fromkeys(folders, ""), tuple(notes)


def _role_of_shard(name: str) -> str:
    folder, _, stem = name.rpartition("/")
    roles = {ROLE_OF[word] for word in words_of(stem) & ROLE_OF.keys()}
    if len(roles) == 1:
        return roles.pop()
    return next((role for part in reversed(folder.split("/")) if (role := role_of(part))), "")
