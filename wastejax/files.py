"""Files written in one move: a reader, or a kill, sees the old one or the new one, never half.

And what may go wrong on the way: whether a place can be written is asked before slow work begins.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wastejax.errors import UserError

# An address as `data.collections.places` knows it; of the slashes of one that became a path, one is left.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
_PROBE = bytes(4096)  # a full disk may still take an empty file
# What training leaves in a run.
_OF_RUN = (
    "config.json",
    "report.json",
    "report.md",
    "metrics.csv",
    "manifest.csv",
    "data.json",
    "taxonomy.json",
    "corrections.csv",
    "shards.txt",
    "teacher.txt",
)


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file's content; where that fails, the old file is as it was and nothing lies beside it."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a failed write names no file
        raise


def put_in_place(partial: Path, path: Path) -> None:
    """Gives a complete file its name once it is on disk: after a power cut, what has the name has the content."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content, UTF-8; of names that are not, the bytes are escaped, as JSON reads them."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Replaces a file's content by indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False))


def expand_home(text: str) -> str:
    """Returns a path with the home folder for its `~`; or several, each at its start, as in 'a=~/x,b=~/y'."""
    return re.sub(
        r"(?:^|(?<=[=,:]))~[\w.-]*(?=/|$)",
        lambda found: os.path.expanduser(found[0]),  # noqa: PTH111 - which raises where there is no such user
        text,
    )


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path with the home folder for its `~`; where there is no such user, as it is: nothing is there."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises where there is no such user


def reason(error: OSError | ValueError) -> str:
    """Returns why a file cannot be had, without its name: 'no space left on device'."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text[:1].lower() + text[1:]


def check_folder(path: str | Path, option: str) -> None:
    """Checks that files can be written into a folder, which need not be there yet; leaves no trace.

    Args:
        path: the folder.
        option: what named it, for the message: '--out', or 'WASTEJAX_CACHE'.

    Raises:
        UserError: it is an address, a file, lies below one, or cannot be written.
    """
    _check_local(path, option, "folder")
    path = Path(path)
    try:
        there = _existing(path)
        if not there.is_dir():
            what = "is a file" if there == path else f"lies below a file, {there}"
            raise UserError(f"{option}={path}: {what}, give a folder")
        for part in path.parts[len(there.parts) :]:
            with suppress(FileNotFoundError):
                (there / part).stat()  # its name may be too long
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(_PROBE)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option}={path}: cannot be written ({reason(error)}); name another folder"
        ) from None


def check_file(path: str | Path, option: str) -> None:
    """Checks that a file can be written into a folder that is there; leaves no trace.

    Raises:
        UserError: it is an address or a folder, there is no folder for it, that cannot be written, or it is a file
            that training left in the folder of a run.
    """
    _check_local(path, option, "file")
    path = Path(path)
    try:
        if path.name in _OF_RUN and path.exists() and (path.parent / "config.json").is_file():
            raise UserError(f"{option}={path}: is a file of the run in {path.parent}; name another file")
        if path.is_dir() or not path.name:
            raise UserError(f"{option}={path}: is a folder; name a file in it")
        if not path.parent.exists():
            raise UserError(f"{option}={path}: there is no folder {path.parent}; make it first")
        with suppress(FileNotFoundError):
            path.stat()  # its name may be too long
    except (OSError, ValueError) as error:
        raise UserError(f"{option}={path}: cannot be written ({reason(error)}); name another file") from None
    check_folder(path.parent, option)


def _check_local(path: str | Path, option: str, what: str) -> None:
    """Raises a UserError for an address, such as s3://bucket/answers, which would become a folder named s3:."""
    if _ADDRESS.match(str(path)):
        address = re.sub(":/+", "://", str(path), count=1)
        raise UserError(
            f"{option}={address}: is an address; give a {what} on this machine, and copy it there afterwards"
        )


def check_unread(path: str | Path, option: str, inputs: Mapping[str, str | Path | None]) -> None:
    """Checks that a file to be written is none of those that the same command is given to read.

    Args:
        path: the file.
        option: what named it, for the message: '--out'.
        inputs: what is read, by the options that name it: files, or folders of which no file is to be replaced.

    Raises:
        UserError: it would replace one of them.
    """
    path = Path(path)
    for name, given in inputs.items():
        if not given:
            continue
        read = user_path(given)
        try:
            same = path.resolve() == read.resolve() or (
                path.exists() and read.exists() and path.samefile(read)
            )
            inside = path.exists() and path.resolve().is_relative_to(read.resolve())
        except (OSError, ValueError):
            continue  # whoever opens them tells why that cannot be
        if same or inside:
            what = "is the file of" if same else "is a file in"
            raise UserError(f"{option}={path}: {what} {name}, which it would replace; name another file")


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest one above it that exists; raises where nobody may look."""
    for there in (path, *path.parents):
        try:
            there.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return there
    raise FileNotFoundError(2, "the current folder is gone")
