"""Labeled images in tar shards and behind URLs: what `audit` and training need of them, read at random."""

import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
from wastejax.data.collections.tars import LABELS, ONE, Labels, links_in
from wastejax.data.formats.class_folders import from_walk, unique_names
from wastejax.data.formats.labels import notes_on_lists
from wastejax.data.formats.source import ReadSubset, Source, numbered
from wastejax.data.formats.splits import splits_of_shards
from wastejax.data.formats.walk import (
    Parts,
    Walk,
    by_ending,
    ignored,
    is_image,
    listed,
    no_images,
    passed_over,
    readable,
)
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


class _Member(NamedTuple):
    """An image in a tar file."""

    name: str
    shard: int
    start: int  # first byte
    size: int


@dataclass
class _Contents:
    """What tar files hold: images, the label and sample of each if there is one, other files, links to nowhere."""

    members: list[_Member] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    others: Counter[tuple[Parts, str]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    differing: int = 0  # labels in .cls and .json


def open_tars(places: Sequence[str], key: str) -> Source:
    """Opens tar shards: a class beside each image (WebDataset's `.cls` or `.json`), or class folders in them.

    Links are the files in the archive that they lead to, as in folders; others are counted.
    Shards of the names of splits, such as train-0000.tar and test-0000.tar, are these splits.

    Raises:
        ConfigError: one cannot be read, is compressed, says no classes or several of one image, or no split where
            others do.
    """
    found = _Contents()
    for shard, place in enumerate(places):
        if place.lower().endswith(COMPRESSED):
            raise ConfigError(
                key, f"{place}: is compressed, so that its images cannot be read one by one; gunzip it"
            )
        try:
            _read_members(place, shard, found, key)
        except (OSError, tarfile.TarError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise ConfigError(key, f"cannot read {place}: {why}") from None
    origin = str(Path(places[0]).resolve().parent) if not is_url(places[0]) else places[0].rpartition("/")[0]
    stamps, shards = [stamp_of(place) for place in places], _shard_names(places)
    of_each = [shards[member.shard] for member in found.members]
    if not found.members:
        raise ConfigError(key, no_images(_walk([], found.others), places[0]))
    if any(label is not None for label in found.labels):
        source = _with_labels(places, found, stamps, origin, key)
        of_each = [shard for shard, label in zip(of_each, found.labels, strict=True) if label is not None]
    else:
        entries = [
            (tuple(m.name.strip("/").split("/")), f"{stamps[m.shard]}-{m.start}") for m in found.members
        ]
        walked = _walk(entries, found.others)
        source = from_walk(walked, places[0], key, _reader(places, found.members), origin, of_each)
        assert isinstance(source.read, ReadSubset)
        of_each = [of_each[i] for i in source.read.indices]
    lost = f"{len(found.lost):,} ({listed(map(readable, found.lost))})"
    notes = [f"links that lead to no file in their archive, left out: {lost}"] if found.lost else []
    return _divided(replace(source, notes=(*source.notes, *notes)), of_each, key)


def _shard_names(places: Sequence[str]) -> tuple[str, ...]:
    """Returns what tells shards apart: their names below the folder of all, without the ending if that suffices."""
    parts = [place.replace(os.sep, "/").split("/") for place in places]
    above = zip(*(path[:-1] for path in parts), strict=False)
    shared = len(list(takewhile(lambda of_depth: len(set(of_depth)) == 1, above)))
    names = ["/".join(path[shared:]) for path in parts]
    bare = [name.rpartition(".")[0] for name in names]
    return unique_names(bare if len(set(bare)) == len(bare) else names)


def _divided(source: Source, shards: Sequence[str], key: str) -> Source:
    """Returns images with the splits that the names of their shards say, where folders in these say none."""
    if source.splits is not None:
        return source
    splits, notes = splits_of_shards(sorted(set(shards)), source.origin, key)
    given = tuple(splits[shard] for shard in shards)
    return replace(source, splits=given if any(given) else None, notes=(*source.notes, *notes))


def _read_members(place: str, shard: int, found: _Contents, key: str) -> None:
    """Adds what a tar file holds; raises a ConfigError where an image is there twice or labels are not certain."""
    names: dict[str, None] = {}
    labels = Labels(place, key)

    def add(name: str, file: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if is_image(name.rpartition("/")[2]):
            if name in names:
                raise ConfigError(
                    key, f"{place}: holds {readable(name)} twice; pack it again with one of them"
                )
            names[name] = None
            found.members.append(_Member(name, shard, file.offset_data, file.size))
        elif name.endswith(LABELS):
            content = archive.extractfile(file)
            labels.add(name, content.read() if content else b"")
        else:
            *folder, last = name.split("/")
            found.others[tuple(folder), PurePosixPath(last).suffix.lower()] += 1

    with opened(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile() and not passed_over(member.name):
                add(member.name.removeprefix("./"), member, archive)
        for link, target in links_in(archive):
            if target is not None and not passed_over(link):
                add(link.removeprefix("./"), target, archive)
            elif not passed_over(link):
                found.lost.append(link.removeprefix("./"))
    found.labels += map(labels.of, names)
    found.samples += map(labels.sample_of, names)
    found.differing += labels.differing


def _with_labels(
    places: Sequence[str], found: _Contents, stamps: Sequence[str], origin: str, key: str
) -> Source:
    """Returns the images that have a label beside them; the others are counted.

    Raises:
        ConfigError: labels of several classes.
    """
    each = zip(found.members, found.labels, found.samples, strict=True)
    labeled = [(member, label, sample) for member, label, sample in each if label is not None]
    kept = [(member, label) for member, label, _ in labeled]
    classes, labels = numbered([label for _, label in kept])
    shards = _shard_names(places)
    samples = [sample and f"{shards[member.shard]}/{sample}" for member, _, sample in labeled]
    several = {sample for sample, count in Counter(samples).items() if sample and count > 1}
    lost = len(found.members) - len(kept)
    texts = {label: (places[member.shard], readable(member.name)) for member, label in kept}
    left_out = by_ending(_walk([], found.others).left_out())
    notes = (
        *([f"images without a label in a .cls or .json beside them, left out: {lost:,}"] if lost else []),
        *(
            [f"samples of several images, which stay whole in every split: {len(several):,}"]
            if several
            else []
        ),
        *([f"images whose .cls and .json differ, labeled by .json: {n:,}"] if (n := found.differing) else []),
        *notes_on_lists(texts, key, ONE),
        *([f"files left out by their ending: {left_out}"] if left_out else []),
    )
    return Source(
        names=unique_names([f"{shards[member.shard]}/{member.name}" for member, _ in kept]),
        labels=labels,
        classes=classes,
        domains=("",) * len(kept),
        splits=None,
        read=_reader(places, [member for member, _ in kept]),
        stamps=tuple(f"{stamps[member.shard]}-{member.start}" for member, _ in kept),
        origin=origin,
        groups=tuple(sample if sample in several else "" for sample in samples) if several else None,
        notes=notes,
    )


def _walk(entries: Sequence[tuple[Parts, str]], others: Counter[tuple[Parts, str]]) -> Walk:
    """Returns the entries as if a folder had been walked through."""
    folders = {path[:depth] for path, _ in entries for depth in range(1, len(path))}
    paths, stamps = zip(*entries, strict=True) if entries else ((), ())
    return Walk(Path(), paths, stamps, frozenset(folders), others)


def _reader(places: Sequence[str], members: Sequence[_Member]) -> "_ReadMembers":
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
