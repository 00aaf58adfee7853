"""What readers of annotation files share: where the photographs lie, what was found, and content that is none."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from wastejax.data.formats.boxes import Annotations, Box, Reading, Tag, as_source
from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import not_read, walk
from wastejax.errors import ConfigError

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


class Found:
    """What a reader finds in annotation files, by whole paths.

    Attributes:
        photographs: path -> split, '' for none.
        things: boxes and tags.
        dropped: reason -> count of boxes that cannot be used.
        counts: what else is to be said -> count.
    """

    def __init__(self) -> None:
        self.photographs: dict[Path, str] = {}
        self.things: list[Box | Tag] = []
        self.dropped: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

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
        while not all(path.is_relative_to(root) for path in self.photographs):
            root = root.parent
        below = {str(path): path.relative_to(root).as_posix() for path in self.photographs}
        splits = {below[str(path)]: split for path, split in self.photographs.items()}
        things = [thing._replace(path=below[thing.path]) for thing in self.things]
        boxes = [box._replace(split=splits[box.path]) for box in things if isinstance(box, Box)]
        tags = [thing for thing in things if isinstance(thing, Tag)]
        notes = [f"{what}: {count:,}" for what, count in sorted(self.counts.items())]
        return as_source(Annotations(root, kind, splits, boxes, tags, self.dropped, notes), reading, key)


class Finder:
    """Finds photographs beside an annotation file, in images/ there, or by their names alone anywhere below.

    Attributes:
        file: the annotation file.
        key: what to call its place in error messages.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key

    def __call__(self, *names: str) -> Path:
        """Returns the photograph that is called by the first of the names that is there.

        Raises:
            ConfigError: there is none, or several of them.
        """
        folder = self.file.parent
        for name in names:
            for place in (folder / name, folder / "images" / name):
                if place.is_file():
                    return place
        found: list[Path] = []
        for name in names:
            parts = Path(name).parts
            called = self._below.get(Path(name).name, [])
            found = [path for path in called if path.parts[-len(parts) :] == parts] or called
            if len(found) == 1:
                return found[0]
        missing = not_read(names[0]) or "is not found beside it; put it there"
        problem = f"is there {len(found)} times" if found else missing
        raise ConfigError(self.key, f"{self.file}: its image {names[0][:200]!r} {problem}")

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        folder = self.file.parent
        found: dict[str, list[Path]] = {}
        for parts in walk(folder, self.key).images:
            found.setdefault(parts[-1], []).append(folder.joinpath(*parts))
        return found
