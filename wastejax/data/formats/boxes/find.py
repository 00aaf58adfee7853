"""Where the photographs lie that an annotation file names: exports are unpacked in many ways."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from wastejax.data.formats.walk import walk
from wastejax.errors import ConfigError


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
        problem = f"is there {len(found)} times" if found else "is not found beside it; put it there"
        raise ConfigError(self.key, f"{self.file}: its image {names[0][:200]!r} {problem}")

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        folder = self.file.parent
        found: dict[str, list[Path]] = {}
        for parts in walk(folder, self.key).images:
            found.setdefault(parts[-1], []).append(folder.joinpath(*parts))
        return found


def relative(root: Path, paths: Iterable[Path]) -> tuple[Path, dict[Path, str]]:
    """Returns the closest folder at or above `root` that all paths lie below, and each path below it."""
    paths = list(paths)
    while not all(path.is_relative_to(root) for path in paths):
        root = root.parent
    return root, {path: path.relative_to(root).as_posix() for path in paths}
