"""Images in any number as parts of a bounded size, which are listed as they are needed and read as they come.

A part is so many images of a folder, a tar shard (as WebDataset writes them) or a Parquet file that holds images
(as Hugging Face's data sets do). It is names and no images, to be sent to another process or machine.
"""

import errno
import glob
import hashlib
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wastejax.data.collections.places import below, is_url, opened, part_below, read_place, stamp_of
from wastejax.data.collections.tars import is_link, links_in
from wastejax.data.formats.parquet import (
    column_of_images,
    columns_of_bytes,
    file_named,
    image_in,
    notes_on_columns,
    parquet_for,
)
from wastejax.data.formats.walk import (
    EXTENSIONS,
    by_ending,
    each_image,
    ignored,
    is_image,
    matching,
    passed_over,
)
from wastejax.data.images import read_file
from wastejax.errors import MissingPackage, UserError
from wastejax.files import reason

TAR = (".tar", ".tar.gz", ".tgz")
PARQUET = (".parquet",)
_ENDINGS = EXTENSIONS | {".tar", ".gz", ".tgz", ".parquet"}  # as `each_image` sees them
_ROWS = 64  # of a Parquet file in memory at once
# Of a connection, a server or a share that fails for a while, which is no damage of an image.
_PASSING = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.EBUSY,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    )
)

Load = Callable[[], bytes]  # raises OSError


@dataclass(frozen=True)
class Part:
    """Images that are read together.

    Attributes:
        kind: 'files', 'tar' or 'parquet'.
        places: the files or URLs: images, or one shard.
        digest: changes with their names, sizes and times.
    """

    kind: str
    places: tuple[str, ...]
    digest: str


def parts_of(
    arguments: Sequence[str], size: int, say: Callable[[str], None] = lambda line: None
) -> Iterator[Part]:
    """Yields the parts of what a user names, in order; what is named twice comes once, where it is named first.

    At most one part and the names of one folder, or of what a glob matches, are in memory.

    Args:
        arguments: files, folders or URLs of images, tar shards or Parquet files. Each shard is a part of its own.
        size: images of a part of single files.
        say: is told what a folder holds that is left out, and which column of Parquet files is taken.

    Raises:
        UserError: there is no such place, or nothing in it.
    """
    if not arguments:
        raise UserError("no images: give files, folders, tar or Parquet files, or URLs")
    names: list[str] = []
    stamps: list[str] = []
    told: set[str] = set()  # arguments, whose further Parquet files hold what the first does
    named = _Named()
    for argument in arguments:
        empty = True
        for place, stamp in named.anew(argument, _listed(argument, say)):
            empty = False
            if place is None:
                continue
            kind = _kind(place)
            if kind == "files":
                names.append(place)
                stamps.append(stamp)
            if len(names) == size or (kind != "files" and names):
                yield _part("files", names, stamps)
                names, stamps = [], []
            if kind == "parquet" and argument not in told:
                told.add(argument)
                _tell_column(place, say)
            if kind != "files":
                yield _part(kind, [place], [stamp])
        if empty:
            raise UserError(f"{argument}: no images, tar or Parquet files there")
    if names:
        yield _part("files", names, stamps)


class _Named:
    """What earlier arguments name; of a folder its own name tells what it holds, however much that is."""

    def __init__(self) -> None:
        self._places: set[str] = set()
        self._folders: set[str] = set()

    def anew(
        self, argument: str, listed: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, str] | tuple[None, str]]:
        """Yields what an argument names; None in place of what an earlier one did."""
        folder = not is_url(argument) and Path(argument).is_dir()
        for place, stamp in listed:
            own = _plain(place)
            if own in self._places or self._holds(own):
                yield None, stamp
                continue
            if not folder and not (is_url(place) and place != argument):
                self._places.add(own)
            yield place, stamp
        if folder or is_url(argument):
            self._folders.add(_plain(argument))

    def _holds(self, place: str) -> bool:
        """Returns whether a place lies below a folder that was listed, and is none that a listing passes over."""
        if not self._folders:
            return False
        above, parts = place, []
        while True:
            above, _, name = above.rpartition("/")
            parts.append(name)
            if any(map(ignored, parts)):
                return False
            if (above or ("/" if place.startswith("/") else ".")) in self._folders:
                return True
            if not above:
                return False


def _plain(place: str) -> str:
    """Returns a place as it is compared with others: some file systems list memory://x as memory:///x."""
    if not is_url(place):
        return Path(place).as_posix()
    scheme, _, path = place.partition("://")
    return f"{scheme}://{path.strip('/')}"


def images(part: Part) -> Iterator[tuple[str, Load]]:
    """Yields the name of each image of a part with what reads it, which may be called in a thread.

    Where a shard cannot be read to its end, the last one is named like the shard and says why, as it is read.

    Raises:
        UserError: a connection or disk fails, also as an image is read: what it holds may be had another time.
    """
    if part.kind == "files":
        for place in part.places:
            yield place, partial(_had, place, partial(read_place if is_url(place) else read_file, place))
        return
    (place,) = part.places
    members = _members if part.kind == "tar" else _rows
    try:
        yield from members(place)
    except MissingPackage:
        raise
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        _check_passing(place, error)
        why = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        yield place, partial(_fail, f"cannot be read to its end ({why})")


def _had(place: str, load: Load) -> bytes:
    """Returns what `load` reads; raises a UserError where that may be had another time."""
    try:
        return load()
    except OSError as error:
        _check_passing(place, error)
        raise


def _check_passing(place: str, error: Exception) -> None:
    """Raises a UserError for an error that says nothing of what a place holds: answers would be lost for good."""
    if (
        isinstance(error, ConnectionError | TimeoutError)
        or (isinstance(error, OSError) and error.errno in _PASSING)
        or (type(error) is OSError and _of_server(error.__cause__))
    ):
        why = reason(error) or type(error).__name__
        raise UserError(
            f"{place}: cannot be read now ({why}); give the same command again to go on, or leave it out"
        ) from None


def _of_server(cause: BaseException | None) -> bool:
    """Returns whether a protocol failed (see `places`), other than by a wrong request, as HTTP's 4xx."""
    status = getattr(cause, "status", 500)
    return cause is not None and (status >= 500 or status in (408, 429))


def _kind(place: str) -> str:
    lower = place.lower()
    return "tar" if lower.endswith(TAR) else "parquet" if lower.endswith(PARQUET) else "files"


def _part(kind: str, names: Sequence[str], stamps: Sequence[str]) -> Part:
    digest = hashlib.blake2b(digest_size=16)
    for name, stamp in zip(names, stamps, strict=True):
        digest.update(f"{name}\n{stamp}\n".encode("utf-8", "surrogateescape"))
    return Part(kind, tuple(names), digest.hexdigest())


def _listed(argument: str, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Yields places and stamps of images and shards at or below what a user names."""
    others: Counter[str] = Counter()
    for name, place, stamp in _files(argument, others):
        if is_image(name) or _kind(name) != "files" or place == argument:
            yield place, stamp
        else:
            others[Path(name).suffix.lower()] += 1
    if others:
        say(f"{argument}: files left out by their ending: {by_ending(others)}")


def _files(argument: str, others: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Yields name, place and stamp of what a user names, or lies below; `others` counts what a walk leaves out."""
    path = Path(argument)
    if is_url(argument):
        for url, stamp in below(argument):
            if not passed_over(part_below(argument, url)):
                yield url.rstrip("/").rpartition("/")[2].partition("?")[0], url, stamp
    elif glob.has_magic(argument) and not path.exists():
        for file in matching(argument):
            yield file.name, str(file), stamp_of(str(file))
    elif not path.is_dir():
        try:
            yield path.name, argument, stamp_of(argument)
        except (OSError, ValueError) as error:
            raise UserError(f"{argument}: {reason(error)}") from None
    else:
        counts: Counter[tuple[tuple[str, ...], str]] = Counter()
        for parts, stamp in each_image(path, argument, others=counts, endings=_ENDINGS):
            # Without the time of the entry itself: a link or a change of rights leaves the content as it is.
            yield parts[-1], str(path.joinpath(*parts)), stamp.rpartition("-")[0]
        for (_, ending), number in counts.items():
            others[ending] += number


def _members(place: str) -> Iterator[tuple[str, Load]]:
    """Yields the images of a tar archive, which is read from its beginning to its end: again, if it holds links."""
    linked = False
    with opened(place) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            linked |= is_link(member)
            if member.isfile() and is_image(member.name.rpartition("/")[2]) and not passed_over(member.name):
                content = archive.extractfile(member)
                data = content.read() if content else b""
                yield f"{place}/{member.name}", partial(bytes, data)
    if not linked:
        return
    with opened(place) as file, tarfile.open(fileobj=file, mode="r:*") as archive:
        for name, target in links_in(archive):
            if is_image(name.rpartition("/")[2]) and not passed_over(name):
                content = archive.extractfile(target) if target else None
                lost = partial(_fail, "is a link to no file in its archive")
                yield f"{place}/{name}", partial(bytes, content.read()) if content else lost


def _rows(place: str) -> Iterator[tuple[str, Load]]:
    """Yields the images of a Parquet file, a few rows at a time."""
    parquet = parquet_for(place)
    with opened(place) as file:
        table = parquet.ParquetFile(file)
        column = column_of_images(table.schema_arrow)
        if column is None:
            raise ValueError(f"it has no column of images, but {', '.join(table.schema_arrow.names)}")
        row = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield f"{place}#{row}", partial(_had, place, partial(image_in, value, partial(_named, place)))
                row += 1


def _tell_column(place: str, say: Callable[[str], None]) -> None:
    """Says which column of a Parquet file is taken, where several might hold images; `images` tells of damage."""
    try:
        with opened(place) as file:
            schema = parquet_for(place).read_schema(file)
    except (MissingPackage, OSError, ValueError):
        return
    column = column_of_images(schema) or ""
    for note in notes_on_columns(column, [name for name in columns_of_bytes(schema) if name != column]):
        say(f"{place}: {note}")


def _named(place: str, path: str) -> bytes:
    """Returns the file that a Parquet file names: below it, or as it was where it was written, as `--data` does."""
    if is_url(place):
        return read_place(path if is_url(path) else f"{place.rpartition('/')[0]}/{path}")
    return read_file(file_named(Path(place), path))


def _fail(why: str) -> bytes:
    raise OSError(why)
