"""What tar archives hold beside files: links, and the labels of WebDataset's samples."""

import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator

from wastejax.data.formats.csv_file import composed
from wastejax.data.formats.labels import labels_of
from wastejax.data.formats.parquet import LABEL
from wastejax.data.formats.walk import listed
from wastejax.errors import ConfigError

LABELS = (".cls", ".json")  # endings of what says the label of a sample
ONE = "images of tar shards have one each"


def is_link(member: tarfile.TarInfo) -> bool:
    """Whether a member is a link; tar also writes the second name of a file so."""
    return member.islnk() or member.issym()


def links_in(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo | None]]:
    """Yields the name of each link with the file that it leads to; None where that is no file of the archive.

    Args:
        archive: opened so that it can seek; it is read to its end first.
    """
    members = archive.getmembers()
    named = [(posixpath.normpath(member.name), member) for member in members]
    there = dict(sorted(named, key=lambda pair: not pair[1].islnk()))  # hard links give way
    for name, link in named:
        # A file that is packed twice is a link to itself the second time.
        if not is_link(link) or (link.islnk() and posixpath.normpath(link.linkname) == name):
            continue
        target: tarfile.TarInfo | None = link
        passed: set[str] = set()
        while target is not None and is_link(target) and target.name not in passed:
            passed.add(target.name)
            beside = posixpath.dirname(target.name) if target.issym() else ""
            target = there.get(posixpath.normpath(posixpath.join(beside, target.linkname)))
        yield link.name, target if target is not None and target.isfile() else None


class Labels:
    """The labels that the .cls and .json files of one archive say.

    Attributes:
        differing: how many images have a .cls and a .json that differ; the .json counts.
    """

    def __init__(self, place: str, key: str) -> None:
        """Takes the archive and the option that named it, for error messages."""
        self._place, self._key = place, key
        self._said: dict[str, dict[str, str]] = {ending: {} for ending in LABELS}  # '' for no label
        self._longer: dict[str, list[str]] = {}  # sample -> names without their endings that have more dots
        self.differing = 0

    def add(self, name: str, data: bytes) -> None:
        """Adds what a file says.

        Raises:
            ConfigError: it says several labels, or is there twice with different ones.
        """
        stem, ending = posixpath.splitext(name)
        found = _labels(ending, data)
        if len(found) > 1:
            said = ", ".join(found)[:200]
            raise ConfigError(self._key, f"{self._place}: {name} has {len(found)} labels, {said}; {ONE}")
        label = found[0] if found else ""
        if self._said[ending].setdefault(stem, label) != label:
            raise ConfigError(
                self._key, f"{self._place}: holds {name} twice with different labels; pack it again with one"
            )
        if stem != (sample := _sample(name)):
            self._longer.setdefault(sample, []).append(stem)

    def of(self, image: str) -> str | None:
        """Returns the label of an image: of the file that is named like it, else of its sample; None for none.

        A sample is what is named alike up to the first dot, as WebDataset has it; in names of dates or versions
        that dot separates nothing.

        Raises:
            ConfigError: only the sample has labels, and they differ.
        """
        stem, sample = posixpath.splitext(image)[0], _sample(image)
        of_class, of_json = self._said[".cls"], self._said[".json"]
        if of_json.get(stem) or stem in of_class:
            self.differing += bool(of_json.get(stem) and of_class.get(stem, of_json[stem]) != of_json[stem])
            return of_json.get(stem) or of_class[stem] or None
        stems = (sample, *self._longer.get(sample, ()))
        found = {of_json[name] for name in stems if of_json.get(name)}
        found = found or {of_class[name] for name in stems if of_class.get(name)}
        if len(found) > 1:
            raise ConfigError(
                self._key,
                f"{self._place}: {image} has no .cls or .json of its name, and those of {sample!r}, its name "
                f"up to the first dot, say {listed(found)}; name one like the image",
            )
        return found.pop() if found else None

    def sample_of(self, image: str) -> str:
        """Returns the sample that an image is of; '' where its label is its own, or it is not certain whose it is.

        In names of dates or versions the first dot separates nothing: the images of a year are no sample.
        """
        stem, sample = posixpath.splitext(image)[0], _sample(image)
        if self._speaks_of(sample):
            return sample
        return "" if self._speaks_of(stem) or len({*self._longer.get(sample, ())}) != 1 else sample

    def _speaks_of(self, stem: str) -> bool:
        return any(stem in said for said in self._said.values())


def _sample(name: str) -> str:
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last.partition(".")[0])


def _labels(ending: str, data: bytes) -> list[str]:
    text = data.decode("utf-8", "backslashreplace").strip()
    if ending == ".cls":
        return [] if text in ("", "-1") else [composed(text)]  # -1: published without labels
    try:
        content = json.loads(text)
        cells = [content[name] for name in (*LABEL, "cls") if name in content]
    except (ValueError, TypeError, RecursionError):
        return []
    # A text is one label here, as in a .cls; whether it may be meant for several, all of the archives tell.
    lists = (cell if isinstance(cell, list) else [cell] for cell in cells)
    return next((found for cell in lists if (found := labels_of(cell, [], True, Counter()))), [])
