"""How a long task tells how far it is: lines and what they count, and bars on a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Say = Callable[[str], None]  # takes a line for the user
Count = Callable[[int, int], None]  # takes how many are done, of how many
Counts = Callable[[str, int, int], None]  # the same of several things: takes what is counted first


def number_of(count: int, thing: str) -> str:
    """Returns '1 image' or '2,000 images'."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def first_of(names: Sequence[str], most: int) -> str:
    """Returns 'glass, metal and 4 more' for names, in their order."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class Listener:
    """Whom a long task tells how far it is; by default nobody.

    Attributes:
        say: takes lines.
        count: takes what is counted, how many are done, and of how many.
    """

    say: Say = lambda line: None
    count: Counts = lambda what, done, total: None


SILENT = Listener()


class Bars:
    """A progress bar for each thing that is done, on standard error; nothing where that is no terminal."""

    def __enter__(self) -> "Bars":
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bars = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows how far it is."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
