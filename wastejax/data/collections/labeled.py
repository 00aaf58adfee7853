"""Labeled images in tar shards and behind URLs: what `audit` and training need of them, read at random."""

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from wastejax.data.collections.places import below, is_url, opened, read_place, read_range, stamp_of
from wastejax.data.formats.class_folders import from_walk
from wastejax.data.formats.parquet import LABEL
from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import Parts, Walk, by_ending, ignored, is_image, no_images
from wastejax.errors import ConfigError, UserError
from wastejax.files import reason

COMPRESSED = (".tar.gz", ".tgz")


def tar_files(folder: Path) -> list[str]:
    """Returns the tar shards that lie directly in a folder."""
    return sorted(str(path) for path in folder.iterdir() if path.name.lower().endswith((".tar", *COMPRESSED)))


def open_url(url: str, key: str) -> Source:
    """Opens what lies below a URL: tar shards, or else class folders of images.

    Raises:
        ConfigError: there is nothing, or its layout is not understood.
    """
    try:
        found = list(below(url))
    except UserError as error:
        raise ConfigError(key, str(error)) from None
    if tars := [place for place, _ in found if place.lower().endswith((".tar", *COMPRESSED))]:
        return open_tars(tars, key)
    images = [(place, stamp) for place, stamp in found if is_image(place.rpartition("/")[2])]
    others: Counter[tuple[Parts, str]] = Counter(
        ((), Path(place).suffix.lower()) for place, _ in found if not is_image(Path(place).name)
    )
    base = _common(url, [place for place, _ in images])
    walk = _walk([(tuple(place[len(base) :].split("/")), stamp) for place, stamp in images], others)
    if not images:
        raise ConfigError(key, no_images(walk, url))
    return from_walk(walk, url, key, _ReadPlaces(tuple(place for place, _ in images)), url)


def open_tars(places: Sequence[str], key: str) -> Source:
    """Opens tar shards: a class beside each image (WebDataset's `.cls` or `.json`), or class folders in them.

    Raises:
        ConfigError: one cannot be read, is compressed, or says no classes.
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
            _read_members(place, shard, members, said, others)
        except (OSError, tarfile.TarError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise ConfigError(key, f"cannot read {place}: {why}") from None
    origin = str(Path(places[0]).resolve().parent) if not is_url(places[0]) else places[0].rpartition("/")[0]
    stamps = [stamp_of(place) for place in places]
    if not members:
        raise ConfigError(key, no_images(_walk([], others), places[0]))
    if said:
        source = _with_labels(places, members, said, stamps, origin)
        left_out = by_ending(_walk([], others).left_out())
        note = f"files left out by their ending: {left_out}"
        return replace(source, notes=(*source.notes, note)) if left_out else source
    entries = [(tuple(name.strip("/").split("/")), f"{stamps[s]}-{at}") for name, s, at, _ in members]
    return from_walk(_walk(entries, others), places[0], key, _reader(places, members), origin)


def _read_members(
    place: str,
    shard: int,
    members: list[tuple[str, int, int, int]],
    said: dict[tuple[int, str], str],
    others: Counter[tuple[Parts, str]],
) -> None:
    """Adds the images of a tar file, the classes that it says, by the name of their sample, and other files."""
    with opened(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile():
                continue
            if is_image(name.rpartition("/")[2]):
                members.append((name, shard, member.offset_data, member.size))
            elif name.endswith((".cls", ".json")):
                content = archive.extractfile(member)
                label = _label(name, content.read() if content else b"")
                if label is not None:
                    said[shard, _sample(name)] = label
            elif not ignored(name.rpartition("/")[2]):
                *folder, last = name.split("/")
                others[tuple(folder), PurePosixPath(last).suffix.lower()] += 1


def _sample(name: str) -> str:
    """Returns what the files of one sample share: the name up to the first dot."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _label(name: str, data: bytes) -> str | None:
    text = data.decode("utf-8", "backslashreplace").strip()
    if name.endswith(".cls"):
        return text or None
    try:
        content = json.loads(text)
        return next((str(content[key]) for key in (*LABEL, "cls") if key in content), None)
    except (ValueError, TypeError):
        return None


def _with_labels(
    places: Sequence[str],
    members: Sequence[tuple[str, int, int, int]],
    said: dict[tuple[int, str], str],
    stamps: Sequence[str],
    origin: str,
) -> Source:
    kept = [member for member in members if (member[1], _sample(member[0])) in said]
    labels = [said[shard, _sample(name)] for name, shard, _, _ in kept]
    classes = sorted(set(labels))
    index = {name: i for i, name in enumerate(classes)}
    lost = len(members) - len(kept)
    return Source(
        names=tuple(f"{Path(places[shard]).stem}/{name}" for name, shard, _, _ in kept),
        labels=np.array([index[label] for label in labels], np.int32),
        classes=tuple(classes),
        domains=("",) * len(kept),
        splits=None,
        read=_reader(places, kept),
        stamps=tuple(f"{stamps[shard]}-{at}" for _, shard, at, _ in kept),
        origin=origin,
        notes=(f"images without a .cls or .json beside them, left out: {lost:,}",) if lost else (),
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


def _common(url: str, places: Sequence[str]) -> str:
    """Returns how much of each place is the URL itself; file systems write some of them with another slash."""
    tail = url.partition("://")[2].strip("/")
    if not places:
        return ""
    at = places[0].find(tail)
    return places[0][: at + len(tail)].rstrip("/") + "/"


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
