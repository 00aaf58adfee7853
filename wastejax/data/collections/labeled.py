"""Labeled images in tar shards and behind URLs: what `audit` and training need of them, read at random."""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from wastejax.data.collections.places import (
    below,
    is_url,
    opened,
    part_below,
    read_place,
    read_range,
    stamp_of,
)
from wastejax.data.formats.class_folders import from_walk
from wastejax.data.formats.csv_file import composed
from wastejax.data.formats.parquet import LABEL
from wastejax.data.formats.source import ReadSubset, Source
from wastejax.data.formats.splits import splits_of_shards
from wastejax.data.formats.walk import Parts, Walk, by_ending, ignored, is_image, no_images, passed_over
from wastejax.errors import ConfigError, UserError
from wastejax.files import reason

COMPRESSED = (".tar.gz", ".tgz")


def tar_files(folder: Path) -> list[str]:
    """Returns the tar shards that lie directly in a folder."""
    return sorted(str(path) for path in folder.iterdir() if _is_tar(path.name) and not ignored(path.name))


def _is_tar(place: str) -> bool:
    return place.lower().endswith((".tar", *COMPRESSED))


def open_url(url: str, key: str) -> Source:
    """Opens what lies below a URL: tar shards, or else class folders of images.

    Raises:
        ConfigError: there is nothing, or its layout is not understood.
    """
    try:
        found = list(below(url))
    except UserError as error:
        raise ConfigError(key, str(error)) from None
    found = [(place, stamp) for place, stamp in found if not passed_over(part_below(url, place))]
    if tars := [place for place, _ in found if _is_tar(place)]:
        return open_tars(tars, key)
    images = [(place, stamp) for place, stamp in found if is_image(place.rpartition("/")[2])]
    others: Counter[tuple[Parts, str]] = Counter(
        ((), Path(place).suffix.lower()) for place, _ in found if not is_image(Path(place).name)
    )
    walk = _walk([(tuple(part_below(url, place).split("/")), stamp) for place, stamp in images], others)
    if not images:
        raise ConfigError(key, no_images(walk, url))
    return from_walk(walk, url, key, _ReadPlaces(tuple(place for place, _ in images)), url)


def open_tars(places: Sequence[str], key: str) -> Source:
    """Opens tar shards: a class beside each image (WebDataset's `.cls` or `.json`), or class folders in them.

    Shards of the names of splits, such as train-0000.tar and test-0000.tar, are these splits.

    Raises:
        ConfigError: one cannot be read, is compressed, says no classes, or says no split where others do.
    """
    members: list[tuple[str, int, int, int]] = []  # name, shard, first byte, size
    said: dict[tuple[int, str], str] = {}
    others: Counter[tuple[Parts, str]] = Counter()
    for shard, place in enumerate(places):
        if place.lower().endswith(COMPRESSED):
            raise ConfigError(
                key, f"{place}: is compressed, so that its images cannot be read one by one; gunzip it"
            )
        try:
            _read_members(place, shard, members, said, others, key)
        except (OSError, tarfile.TarError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise ConfigError(key, f"cannot read {place}: {why}") from None
    origin = str(Path(places[0]).resolve().parent) if not is_url(places[0]) else places[0].rpartition("/")[0]
    stamps, shards = [stamp_of(place) for place in places], _shard_names(places)
    if not members:
        raise ConfigError(key, no_images(_walk([], others), places[0]))
    if said:
        kept = [member for member in members if (member[1], _sample(member[0])) in said]
        source = _with_labels(places, kept, said, stamps, origin)
        lost = len(members) - len(kept)
        notes = [f"images without a .cls or .json beside them, left out: {lost:,}"] if lost else []
        left_out = by_ending(_walk([], others).left_out())
        notes += [f"files left out by their ending: {left_out}"] if left_out else []
        return _divided(replace(source, notes=tuple(notes)), [shards[member[1]] for member in kept], key)
    entries = [(tuple(name.strip("/").split("/")), f"{stamps[s]}-{at}") for name, s, at, _ in members]
    of_each = [shards[member[1]] for member in members]
    source = from_walk(_walk(entries, others), places[0], key, _reader(places, members), origin, of_each)
    assert isinstance(source.read, ReadSubset)
    return _divided(source, [of_each[i] for i in source.read.indices], key)


def _shard_names(places: Sequence[str]) -> list[str]:
    """Returns what tells shards apart: their names below the folder of all, without the ending if that suffices."""
    parts = [place.replace(os.sep, "/").split("/") for place in places]
    above = zip(*(path[:-1] for path in parts), strict=False)
    shared = len(list(takewhile(lambda of_depth: len(set(of_depth)) == 1, above)))
    names = ["/".join(path[shared:]) for path in parts]
    bare = [name.rpartition(".")[0] for name in names]
    return bare if len(set(bare)) == len(bare) else names


def _divided(source: Source, shards: Sequence[str], key: str) -> Source:
    """Returns images with the splits that the names of their shards say, where folders in these say none."""
    if source.splits is not None:
        return source
    splits, notes = splits_of_shards(sorted(set(shards)), source.origin, key)
    given = tuple(splits[shard] for shard in shards)
    return replace(source, splits=given if any(given) else None, notes=(*source.notes, *notes))


def _read_members(
    place: str,
    shard: int,
    members: list[tuple[str, int, int, int]],
    said: dict[tuple[int, str], str],
    others: Counter[tuple[Parts, str]],
    key: str,
) -> None:
    """Adds the images of a tar file, the classes that it says, by the name of their sample, and other files."""
    names: set[str] = set()
    with opened(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile() or passed_over(name):
                continue
            if is_image(name.rpartition("/")[2]):
                if name in names:
                    raise ConfigError(key, f"{place}: holds {name} twice; pack it again with one of them")
                names.add(name)
                members.append((name, shard, member.offset_data, member.size))
            elif name.endswith((".cls", ".json")):
                content = archive.extractfile(member)
                label = _label(name, content.read() if content else b"")
                if label is not None:
                    said[shard, _sample(name)] = label
            else:
                *folder, last = name.split("/")
                others[tuple(folder), PurePosixPath(last).suffix.lower()] += 1


def _sample(name: str) -> str:
    """Returns what the files of one sample share: the name up to the first dot."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _label(name: str, data: bytes) -> str | None:
    text = data.decode("utf-8", "backslashreplace").strip()
    if name.endswith(".cls"):
        return composed(text) or None
    try:
        content = json.loads(text)
        return next((composed(str(content[key])) for key in (*LABEL, "cls") if key in content), None)
    except (ValueError, TypeError):
        return None


def _with_labels(
    places: Sequence[str],
    kept: Sequence[tuple[str, int, int, int]],
    said: dict[tuple[int, str], str],
    stamps: Sequence[str],
    origin: str,
) -> Source:
    labels = [said[shard, _sample(name)] for name, shard, _, _ in kept]
    classes = sorted(set(labels))
    index = {name: i for i, name in enumerate(classes)}
    shards = _shard_names(places)
    return Source(
        names=tuple(f"{shards[shard]}/{name}" for name, shard, _, _ in kept),
        labels=np.array([index[label] for label in labels], np.int32),
        classes=tuple(classes),
        domains=("",) * len(kept),
        splits=None,
        read=_reader(places, kept),
        stamps=tuple(f"{stamps[shard]}-{at}" for _, shard, at, _ in kept),
        origin=origin,
    )


def _walk(entries: Sequence[tuple[Parts, str]], others: Counter[tuple[Parts, str]]) -> Walk:
    """Returns the entries as if a folder had been walked through."""
    folders = {path[:depth] for path, _ in entries for depth in range(1, len(path))}
    return Walk(
        Path(),
        tuple(path for path, _ in entries),
        tuple(stamp for _, stamp in entries),
        frozenset(folders),
        others,
    )


def _reader(places: Sequence[str], members: Sequence[tuple[str, int, int, int]]) -> "_ReadMembers":
    return _ReadMembers(tuple(places), np.array([member[1:] for member in members], np.int64).reshape(-1, 3))


@dataclass(frozen=True, eq=False)
class _ReadMembers:
    """Reads images of tar files by index; `members` is shard, first byte and size, int64 [N, 3]."""

    places: tuple[str, ...]
    members: np.ndarray

    def __call__(self, index: int) -> bytes:
        shard, start, size = self.members[index].tolist()
        data = read_range(self.places[shard], start, size)
        if len(data) < size:
            raise OSError(f"{self.places[shard]} is shorter than it was")
        return data


@dataclass(frozen=True)
class _ReadPlaces:
    places: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        return read_place(self.places[index])
