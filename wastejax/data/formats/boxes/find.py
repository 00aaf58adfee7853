"""What readers of annotation files share: where the photographs lie, what was found, and content that is none."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from wastejax.data.formats.boxes import Annotations, Box, Reading, Tag, as_source
from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import is_image, not_read, walk
from wastejax.errors import ConfigError

AnyPath = TypeVar("AnyPath", bound=PurePath)
# What Python says where content has another shape than its format: not there, of another type, no number, too deep.
_SHAPES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextmanager
def content_of(what: str, key: str) -> Iterator[None]:
    """Turns what content of another shape raises into one line.

    Args:
        what: the file and the part of it, for the message.
        key: what to call its place.

    Raises:
        ConfigError: the content is not of its format.
    """
    try:
        yield
    except ConfigError:
        raise
    except (OSError, *_SHAPES) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(key, f"{what}: {why}") from None


def folder_of_all(root: AnyPath, paths: Iterable[AnyPath], key: str) -> AnyPath:
    """Returns a folder if all of the paths lie below it, else the next one above it of which that is so.

    Raises:
        ConfigError: there is none: they lie on several drives, or only some are absolute.
    """
    for path in paths:
        while not path.is_relative_to(root):
            if root == root.parent:
                raise ConfigError(
                    key, f"{path} does not lie below {root}, as other photographs do; move them together"
                )
            root = root.parent
    return root


class Found:
    """What a reader finds in annotation files, by whole paths.

    Attributes:
        photographs: path -> split, '' for none.
        things: boxes and tags.
        dropped: reason -> count of boxes that cannot be used.
        counts: what else is to be said -> count.
        notes: what else is to be said, one line each.
    """

    def __init__(self) -> None:
        self.photographs: dict[Path, str] = {}
        self.things: list[Box | Tag] = []
        self.dropped: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def as_source(self, kind: str, root: Path, reading: Reading, key: str) -> Source:
        """Returns the images, with the splits that they were found with.

        Args:
            kind: the format, for the notes.
            root: the folder that the photographs lie below, if they all do; else what is above it.
            reading: what becomes of the boxes.
            key: what to call their place in error messages.

        Raises:
            ConfigError: there is nothing that can be used, or some photographs have a split and some have none.
        """
        root = folder_of_all(root, self.photographs, key)
        below = {str(path): path.relative_to(root).as_posix() for path in self.photographs}
        splits = {below[str(path)]: split for path, split in self.photographs.items()}
        things = [thing._replace(path=below[thing.path]) for thing in self.things]
        boxes = [box._replace(split=splits[box.path]) for box in things if isinstance(box, Box)]
        tags = [thing for thing in things if isinstance(thing, Tag)]
        notes = [*(f"{what}: {count:,}" for what, count in sorted(self.counts.items())), *self.notes]
        return as_source(Annotations(root, kind, splits, boxes, tags, self.dropped, notes), reading, key)


def place_of(name: str, folder: Path) -> Path:
    """Returns the path of a name in a folder; one with backslashes that is not there is of Windows."""
    place = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not place.is_file() else place


def ending_with(name: str, paths: Sequence[AnyPath]) -> list[AnyPath]:
    """Returns those paths that end with a whole name: with its folders too. An ending may be missing."""
    parts = PurePosixPath(name).parts
    whole = [path for path in paths if path.parts[-len(parts) :] == parts]
    if whole or is_image(name):
        return whole
    return [path for path in paths if path.with_suffix("").parts[-len(parts) :] == parts]


def placed(names: Iterable[str], below: Mapping[str, Sequence[Path]]) -> dict[str, Path] | None:
    """Returns where photographs lie by their names, as `Finder` does; None where one is not there or not certain.

    Args:
        names: as an annotation file has them.
        below: the files that are there, by the last part of their names.
    """
    place: dict[str, Path] = {}
    folders_there: set[bool] = set()
    for name in names:
        called = below.get(PurePosixPath(name).name, [])
        whole = ending_with(name, called)
        if len(whole or called) != 1:
            return None
        place[name] = (whole or called)[0]
        if len(PurePosixPath(name).parts) > 1:
            folders_there.add(bool(whole))
    certain = len(folders_there) < 2 and len(set(place.values())) == len(place)
    return place if certain else None


class Finder:
    """Finds photographs beside an annotation file, in images/ there, or by their names alone anywhere below.

    Attributes:
        file: the annotation file.
        key: what to call its place in error messages.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        self._names: dict[Path, tuple[str, ...]] = {}  # what each photograph is called in the file
        self._in_folder = False  # a name with a folder was found in that folder
        self._elsewhere = ""  # a name whose folder is not there, found by its last part alone

    def __call__(self, *names: str) -> Path:
        """Returns the photograph that is called by the first of the names that is there.

        The folder of the first name may be missing only where those of all are, and never do two names mean one
        file: `batch1/a.png`, which is not there, is not `batch2/a.png`.

        Raises:
            ConfigError: there is none, or several of them.
        """
        folder = self.file.parent
        names = tuple(name.replace("\\", "/") if not (folder / name).is_file() else name for name in names)
        place, elsewhere = self._place(names)
        first = PurePosixPath(names[0]).parts
        if len(first) > 1 and not elsewhere:
            self._in_folder = True
        elif len(first) > 1:
            self._elsewhere = self._elsewhere or names[0]
        if self._in_folder and self._elsewhere:
            raise self._missing(self._elsewhere)
        if self._names.setdefault(place, first) != first:
            raise self._missing(
                names[0], f" (the {place.name} there is that of {'/'.join(self._names[place])!r})"
            )
        return place

    def _place(self, names: Sequence[str]) -> tuple[Path, bool]:
        """Returns a photograph, and whether it was found by the last part of its name alone."""
        folder = self.file.parent
        for name in names:
            for place in (folder / name, folder / "images" / name):
                if place.is_file():
                    return place, False
        found: list[Path] = []
        for name in names:
            called = self._below.get(Path(name).name, [])
            found = ending_with(name, called) or called
            if len(found) == 1:
                return found[0], not any(ending_with(n, found) for n in names if n == names[0] or "/" in n)
        if found:
            times = f"is there {len(found)} times"
            raise ConfigError(self.key, f"{self.file}: its image {names[0][:200]!r} {times}")
        raise self._missing(names[0])

    def _missing(self, name: str, why: str = "") -> ConfigError:
        problem = not_read(name) or f"is not found beside it; put it there{why}"
        return ConfigError(self.key, f"{self.file}: its image {name[:200]!r} {problem}")

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        folder = self.file.parent
        found: dict[str, list[Path]] = {}
        for parts in walk(folder, self.key).images:
            path = folder.joinpath(*parts)
            for name in (path.name, path.stem):  # CVAT names frames of videos without an ending
                found.setdefault(name, []).append(path)
        return found
