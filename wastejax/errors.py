"""What a user did wrong, in one line: what, where, and what to do."""

import difflib
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class UserError(Exception):
    """A mistake that the user can fix. `main` prints it on one line and exits with 2.

    Args:
        message: the line; ends of lines in what it repeats, such as names of files, become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))


class ConfigError(UserError):
    """A config key with an impossible value.

    Args:
        key: the full key, e.g. `config.train.epochs`.
        problem: what is wrong with it and what would be right.
    """

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, str]]:
        """Has the error survive the way out of another process."""
        return ConfigError, (self.key, self.problem)


class Unlabeled(ConfigError):  # noqa: N818 - named after what is wrong
    """Images that no folder, file or name gives a label."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns a hint for a mistyped word: the nearest choice, or all of them where none is near."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; choices: {', '.join(choices)}"


class MissingPackage(UserError):  # noqa: N818 - named after what is wrong, like the message
    """A package that this installation lacks, with the command that installs it.

    Args:
        what: needs it: a command, an option or a file.
        package: its name, as pip knows it.
        extra: of ours that holds it; '' for a dependency that every full installation has; None where the package
            alone will do, as on a small device.
        advice: what else would do.
        alone: install it without what it asks for, which it does not use and cannot be had beside other extras.
    """

    def __init__(
        self, what: str, package: str, extra: str | None = "", advice: str = "", alone: bool = False
    ):
        options = "--no-deps " if alone else ""
        command = f"{_python()} -m pip install {options}{package}" if extra is None else install(extra)
        super().__init__(f"{what}: needs {package}, which is not installed: {command}{advice}")


def imported(module: str, what: str, package: str = "", extra: str | None = None) -> Any:
    """Returns a module of a package that not every installation has.

    Args:
        module: its name.
        what: needs it, see `MissingPackage`.
        package: its name, as pip knows it; '' where the module is named like it.
        extra: of ours that holds it; None where the package alone will do.

    Raises:
        MissingPackage: it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingPackage(what, package or module, extra) from None


def install(extra: str = "") -> str:
    """Returns the command that installs what an extra of ours needs, or with '' what every command needs.

    No package index knows wastejax. In a checkout the command names its folder; where a wheel was installed, the
    packages themselves, or, for what every command needs, wastejax, which pip then finds installed and completes.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        where = "." if checkout == Path.cwd() else str(checkout)
        target = ["-e", where + (f"[{extra}]" if extra else "")]
    else:
        target = _packages(extra) if extra else ["wastejax"]
    return f"{_python()} -m pip install {shlex.join(target)}"


def _packages(extra: str) -> list[str]:
    """Returns the requirements of an extra, as this installation's metadata has them."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        listed = [line.partition(";") for line in requires("wastejax") or ()]
    except PackageNotFoundError:  # a copied folder
        listed = []
    found = [
        name.strip() for name, _, marker in listed if re.search(rf"extra == .{re.escape(extra)}\b", marker)
    ]
    return found or [f"wastejax[{extra}]"]


def _python() -> str:
    """Returns how to call this Python: short where it is the one on the path, or lies below this folder."""
    python = Path(sys.executable)
    if shutil.which("python") == str(python):
        return "python"
    if python.is_relative_to(Path.cwd()):
        return str(python.relative_to(Path.cwd()))
    return shlex.quote(str(python))
