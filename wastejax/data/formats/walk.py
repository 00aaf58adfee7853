"""The one walk through a folder of images, which every command shares."""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wastejax.data.images.formats import NAMES, extensions, why_unreadable
from wastejax.errors import ConfigError
from wastejax.files import user_path

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
    folders: set[Parts] = set()
    others: Counter[tuple[Parts, str]] = Counter()
    found = list(each_image(root, key, folders, others))
    # Two folders whose names differ in their normal form alone are one.
    found.sort(key=lambda item: ([readable(part) for part in item[0]], item[0]))
    paths, stamps = zip(*found, strict=True) if found else ((), ())
    return Walk(user_path(root).absolute(), paths, stamps, frozenset(folders), others)


def each_image(
    root: str | Path,
    key: str,
    folders: set[Parts] | None = None,
    others: Counter[tuple[Parts, str]] | None = None,
    endings: Container[str] = EXTENSIONS,
) -> Iterator[tuple[Parts, str]]:
    """Yields path and stamp of every image below a folder, in the order of their readable names.

    Only the names of one folder, and of those that it lies in, are in memory at once.

    Args:
        root: the folder.
        key: what to call it in error messages.
        folders: is given the paths of the folders that are entered, see `Walk`.
        others: is given counts of the other files, see `Walk`.
        endings: of the files that are meant, in lower case.

    Raises:
        ConfigError: as `walk`.
    """
    root = user_path(root)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise ConfigError(key, f"{str(root)!r} {problem}; give a folder with one subfolder per class")

    def entries(folder: str) -> Iterator[os.DirEntry[str]]:
        return iter(sorted(_entries(folder, key), key=lambda entry: (readable(entry.name), entry.name)))

    at: list[tuple[Parts, frozenset[str], Iterator[os.DirEntry[str]]]] = [
        ((), frozenset({os.path.realpath(root)}), entries(str(root)))
    ]
    while at:
        parts, above, rest = at[-1]
        entry = next(rest, None)
        if entry is None:
            at.pop()
        elif _is_folder(entry):
            real = os.path.realpath(entry.path)
            if real not in above:
                if folders is not None:
                    folders.add((*parts, entry.name))
                at.append(((*parts, entry.name), above | {real}, entries(entry.path)))
        elif _ending(entry.name) in endings and _is_file(entry):
            yield (*parts, entry.name), stamp_of(entry)
        elif others is not None:
            others[parts, _ending(entry.name)] += 1


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its ending, and no system file."""
    return _ending(name) in EXTENSIONS and not ignored(name)


def ignored(name: str) -> bool:
    """Returns whether a file or folder is hidden or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM


def absolute(path: Path) -> Path:
    """Returns a path from the root on without `..`, which leads through the links that it was given with.

    `Path.resolve` would leave them: what lies beside a link need not lie beside its target.
    """
    whole = path.absolute()
    if ".." not in whole.parts:
        return whole
    plain = Path(os.path.normpath(whole))
    # Behind a link to a folder, `..` is above the link's target.
    moved = whole.exists() and not (plain.exists() and plain.samefile(whole))
    return whole.resolve() if moved else plain


def passed_over(path: str) -> bool:
    """Returns whether a file in an archive or behind a URL is, or lies in, what a walk passes over."""
    return any(ignored(part) for part in path.split("/") if part not in ("", ".", ".."))


def matching(pattern: str) -> list[Path]:
    """Returns the files that a glob matches, sorted, without what a walk passes over and the glob does not name.

    Args:
        pattern: relative or absolute; `**` stands for folders of any depth.
    """
    named = set(Path(pattern).parts)
    found = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - pathlib takes no absolute ones
    return [
        path
        for path in found
        if path.is_file() and not any(ignored(part) for part in path.parts if part not in named | {".."})
    ]


def readable(path: str) -> str:
    """NFC, with bytes that are not UTF-8 (old Korean archives) written as escapes: printable everywhere."""
    return unicodedata.normalize("NFC", os.fsencode(path).decode("utf-8", "backslashreplace"))


def by_ending(counts: Mapping[str, int], most: int = 8) -> str:
    """Returns '12 .heic (what to do), 3 .txt' for counts of endings, the commonest first; '' for none."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [
        f"{count:,} {ending or 'without an ending'}"
        + (f" ({what})" if (what := why_unreadable(ending)) else "")
        for ending, count in ordered[:most]
    ]
    rest = sum(count for _, count in ordered[most:])
    return ", ".join([*named, f"{rest:,} of other endings"] if rest else named)


def not_read(name: str) -> str:
    """Returns 'is not read (what to do)' for the name of a file whose ending is not, '' for others."""
    ending = _ending(name)
    what = "" if ending in EXTENSIONS else why_unreadable(ending)
    return f"is not read ({what})" if what else ""


def no_images(found: Walk, root: str) -> str:
    """Returns what to say of a folder without images."""
    others = by_ending(found.left_out())
    return f"no images ({NAMES}) below {root!r}" + (f", but {others}" if others else "")


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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a folder that nobody may enter
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads nowhere; a pipe or a device would be waited for in vain."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:  # as above
        return True


def stamp_of(entry: os.DirEntry[str] | Path) -> str:
    """Returns size and both times: a copy that keeps the time of its content has another time of its own."""
    try:
        stat = entry.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
