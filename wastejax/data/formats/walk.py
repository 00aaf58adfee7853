"""The one walk through a folder of images, which every command shares."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wastejax.data.images.formats import NAMES, extensions
from wastejax.errors import ConfigError

Parts = tuple[str, ...]  # a path below the root
EXTENSIONS = extensions()

# Made by systems and programs, for themselves: thumbnails, recycle bins, snapshots. Compared in lower case.
SYSTEM = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",  # macOS, Windows
        "$recycle.bin", "recycler", "system volume information", "found.000", "lost+found",
        "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin",  # Synology
        "@recycle", "@recently-snapshot", "@__thumb",  # QNAP
        "temporary items", "network trash folder", "__pycache__",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Attributes:
        root: the folder, absolute.
        images: paths of the image files, in the order of their readable names.
        stamps: one per image: another stamp means that the content may have changed.
        folders: paths of all folders that were entered, the root not among them.
        others: (folder, ending) -> count of files that are no images by their ending.
    """

    root: Path
    images: tuple[Parts, ...]
    stamps: tuple[str, ...]
    folders: frozenset[Parts]
    others: Mapping[tuple[Parts, str], int]

    def left_out(self, folder: Parts = ()) -> Counter[str]:
        """Returns how many files of each ending, below a folder, are no images by their ending."""
        counts: Counter[str] = Counter()
        for (where, ending), count in self.others.items():
            if where[: len(folder)] == folder:
                counts[ending] += count
        return counts


def walk(root: str | Path, key: str) -> Walk:
    """Finds every image below a folder, by its ending.

    Links to folders are followed, except back to a folder that they lie in. Hidden files and those of `SYSTEM` are
    passed over. A link that leads nowhere counts as an image where it is named like one, to be reported as
    unreadable.

    Args:
        root: the folder.
        key: what to call it in error messages.

    Raises:
        ConfigError: it is missing, or it or a folder in it cannot be listed.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise ConfigError(key, f"{str(root)!r} {problem}; give a folder with one sub-folder per class")
    found: list[tuple[Parts, str]] = []
    folders: set[Parts] = set()
    others: Counter[tuple[Parts, str]] = Counter()
    waiting: list[tuple[str, Parts, frozenset[str]]] = [(str(root), (), frozenset())]
    while waiting:
        folder, parts, above = waiting.pop()
        above |= {os.path.realpath(folder)}
        for entry in _entries(folder, key):
            path = (*parts, entry.name)
            if entry.is_dir():
                if os.path.realpath(entry.path) not in above:
                    folders.add(path)
                    waiting.append((entry.path, path, above))
            elif _ending(entry.name) in EXTENSIONS and _is_file(entry):
                found.append((path, _stamp(entry)))
            else:
                others[parts, _ending(entry.name)] += 1
    found.sort(key=lambda item: ([readable(part) for part in item[0]], item[0]))
    paths, stamps = zip(*found, strict=True) if found else ((), ())
    return Walk(root.absolute(), paths, stamps, frozenset(folders), others)


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its ending, and no system file."""
    return _ending(name) in EXTENSIONS and not ignored(name)


def ignored(name: str) -> bool:
    """Returns whether a file or folder is hidden or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM


def readable(path: str) -> str:
    """NFC, with bytes that are not UTF-8 (old Korean archives) written as escapes: printable everywhere."""
    return unicodedata.normalize("NFC", os.fsencode(path).decode("utf-8", "backslashreplace"))


def by_ending(counts: Mapping[str, int], most: int = 8) -> str:
    """Returns '12 .heic, 3 .txt' for counts of endings, the commonest first; '' for none."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {ending or 'without an ending'}" for ending, count in ordered[:most]]
    rest = sum(count for _, count in ordered[most:])
    return ", ".join([*named, f"{rest:,} of other endings"] if rest else named)


def no_images(found: Walk, root: str) -> str:
    """Returns what to say of a folder without images."""
    others = by_ending(found.left_out())
    return f"no images ({NAMES}) below {root!r}" + (f"; there are {others} files" if others else "")


def listed(names: Iterable[str], most: int = 4) -> str:
    """Returns 'glass, metal and 4 more' for names, sorted."""
    ordered = sorted(names)
    if len(ordered) <= most + 1:
        return ", ".join(ordered)
    return f"{', '.join(ordered[:most])} and {len(ordered) - most:,} more"


def _ending(name: str) -> str:
    return Path(name).suffix.lower()


def _entries(folder: str, key: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not ignored(entry.name)]
    except OSError as error:
        raise ConfigError(key, f"cannot list {folder!r}: {error.strerror}") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads nowhere; a pipe or a device would be waited for in vain."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110


def _stamp(entry: os.DirEntry[str]) -> str:
    """Size and both times: a copy that keeps the time of its content has another time of its own."""
    try:
        stat = entry.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
