"""Where images lie: on this machine, or behind a URL of any kind that fsspec opens (s3://, gs://, http://, …)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from wastejax.data.images import read_file
from wastejax.errors import MissingPackage, UserError
from wastejax.files import reason

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")  # two letters at least: C:// is a drive
# What fsspec needs beside itself, by the scheme; all of it is in the extra `remote`.
_NEEDS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_url(place: str | Path) -> bool:
    """Returns whether a place is a URL and not a path."""
    return isinstance(place, str) and bool(_URL.match(place))


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """Opens a file or URL to read from, and to seek in.

    Raises:
        OSError: it cannot be had, whatever the protocol makes of that.
        UserError: the package for this kind of URL is not installed.
    """
    if not is_url(place):
        with Path(place).open("rb") as file:
            yield file
        return
    system, path = filesystem(place)
    with _told():
        file = system.open(path, "rb")
    with file:
        yield file


def read_place(place: str) -> bytes:
    """Returns the content of a file or URL; raises as `opened`."""
    if not is_url(place):
        return read_file(place)
    system, path = filesystem(place)
    with _told():
        return bytes(system.cat_file(path))


def read_range(place: str, start: int, size: int) -> bytes:
    """Returns `size` bytes of a file or URL from one on; raises as `opened`."""
    if not is_url(place):
        with Path(place).open("rb") as file:
            file.seek(start)
            return file.read(size)
    system, path = filesystem(place)
    with _told():
        return bytes(system.cat_file(path, start=start, end=start + size))


def below(url: str) -> Iterator[tuple[str, str]]:
    """Yields URL and stamp of every file below a URL, or of the one that it names; folder by folder, in order.

    Raises:
        UserError: there is nothing, or it cannot be listed.
    """
    system, path = filesystem(url)
    try:
        with _told():
            about = system.info(path)
            if about.get("type") == "file" and not url.endswith("/"):
                yield url, _stamp(about)
                return
        waiting = [path]
        while waiting:
            with _told():
                entries = system.ls(waiting.pop(), detail=True)
            entries = [entry for entry in entries if entry["name"].rstrip("/") != path.rstrip("/")]
            entries.sort(key=lambda entry: str(entry["name"]))
            waiting += [entry["name"] for entry in reversed(entries) if entry["type"] == "directory"]
            for entry in entries:
                if entry["type"] != "directory":
                    yield str(system.unstrip_protocol(entry["name"])), _stamp(entry)
    except OSError as error:
        why = reason(error)
        raise UserError(f"{url}: {'there is nothing at this address' if why == url else why}") from None


def part_below(url: str, place: str) -> str:
    """Returns the path of a place below the URL that it was found at, as a folder has it.

    File systems write the slashes their way, and addresses of http(s) spaces and other letters in per cent.
    """
    tail = url.partition("://")[2].strip("/")
    path = place[place.find(tail) + len(tail) :].lstrip("/")
    if url.partition("://")[0].lower() not in ("http", "https"):
        return path
    parts = (unquote(part, errors="surrogateescape") for part in path.split("/"))
    return "/".join(part.replace("/", "%2F") for part in parts)  # no name on a disk has a slash


def stamp_of(place: str) -> str:
    """Returns what changes with the content of a file or URL; raises OSError where it is not there."""
    if not is_url(place):
        stat = Path(place).stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}"
    system, path = filesystem(place)
    with _told():
        return _stamp(system.info(path))


def filesystem(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the path in it.

    Raises:
        UserError: fsspec, or its package for this scheme, is not installed, or there is no such scheme.
    """
    scheme = url.partition("://")[0].lower()
    try:
        system = _system(scheme)
    except ImportError:
        raise MissingPackage(url, _NEEDS.get(scheme, "fsspec"), "remote") from None
    except ValueError:
        raise UserError(
            f"{url}: there is no scheme {scheme}://; give a path, s3://, gs:// or http://"
        ) from None
    return system, str(system._strip_protocol(url))


@cache
def _system(scheme: str) -> Any:
    import fsspec

    # Parts that were listed an hour ago may have changed.
    return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)


@contextmanager
def _told() -> Iterator[None]:
    """Raises whatever a protocol raises (its own kinds of errors, for the most part) as an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        raise OSError(text) from error


def _stamp(about: dict[str, Any]) -> str:
    changed = next(
        (about[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if about.get(key)), ""
    )
    return f"{about.get('size')}-{changed}"
