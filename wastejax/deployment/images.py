"""From what a user names to squares for the network: files, folders, globs and standard input."""

import fnmatch
import glob
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from wastejax.data import images
from wastejax.data.collections.places import is_url
from wastejax.data.formats.walk import by_ending, is_image, matching, no_images, walk
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.progress import Say

Decoded = TypeVar("Decoded")
STDIN = "-"
THREADS = 2  # that decode; the rest of the processor is for the network
AHEAD = 64  # images that are decoded before they are asked for


def find(arguments: Sequence[str], say: Say = lambda line: None) -> list[str]:
    """Returns the names of all images that are meant, each once.

    Args:
        arguments: files; folders, of which every image below is taken, hidden ones excepted; globs, in which
            `**` stands for folders of any depth; '-' for an image on standard input. A name that leads nowhere
            is returned as it is: reading it tells why.
        say: is told what a folder holds that is left out.

    Raises:
        UserError: no argument, a glob that matches nothing, or a folder without images.
    """
    if not arguments:
        raise UserError("no images: give files, folders, globs, or - for one on standard input")
    return list(dict.fromkeys(name for argument in arguments for name in _expand(argument, say)))


def _expand(argument: str, say: Say) -> list[str]:
    if not argument:
        raise UserError(
            "an image's name is empty; give files, folders, globs, or - for one on standard input"
        )
    if argument == STDIN or os.path.isfile(argument):  # noqa: PTH113 - Path's raises where nobody may look
        return [argument]
    if os.path.isdir(argument):  # noqa: PTH112
        return _below(Path(argument), say)
    if is_url(argument):
        raise UserError(f"{argument}: is an address; download it, or have it answered with --out=DIR")
    if not glob.has_magic(argument):
        return [argument]
    files = matching(argument)
    names = [str(path) for path in files if is_image(path.name)]
    left_out = by_ending(Counter(path.suffix.lower() for path in files if not is_image(path.name)))
    if not names:
        raise UserError(f"{argument}: matches no image" + (f", but {left_out}" if left_out else ""))
    if left_out:
        say(f"{argument}: files left out by their ending: {left_out}")
    return names


def beside(folder: str, arguments: Sequence[str], names: Sequence[str]) -> str:
    """Returns where images are found among which a folder lies, whose files are hence found the next time.

    Args:
        folder: where files are to be written.
        arguments: of `find`: globs among them count, whether or not they match any file of the folder yet.
        names: what it returned: of several in one folder, a shell may have made them of a glob. One by itself is
            the same the next time.

    Returns:
        The glob, or the folder of the images; '' for none.
    """
    place = Path(os.path.abspath(folder)).parts  # noqa: PTH100 - Path's leaves `..` as it is
    for argument in arguments:
        whole = Path(os.path.abspath(argument))  # noqa: PTH100
        # `**` at the end matches files of any depth.
        pattern = (whole if whole.name == "**" else whole.parent).parts
        if glob.has_magic(argument) and not os.path.exists(argument) and _reaches(pattern, place):  # noqa: PTH110
            return argument
    folders = {os.path.dirname(name) for name in names if name != STDIN}  # noqa: PTH120
    if len(names) == 1 and names[0] in arguments:
        return ""
    same = Path(folder).resolve()
    return next((where or "." for where in sorted(folders) if Path(where).resolve() == same), "")


def among(option: str, folder: str, where: str) -> UserError:
    """Returns the error for a folder that is to be written, and lies where images are found."""
    return UserError(
        f"--{option}={folder}: lies in {where}, and would be answered too the next time; name a folder beside it"
    )


def _reaches(pattern: Sequence[str], place: Sequence[str]) -> bool:
    """Returns whether the folders that a glob looks in, part by part, may be this one."""
    if not pattern or not place:
        return list(pattern) in ([], ["**"]) and not place
    if pattern[0] == "**":
        return _reaches(pattern[1:], place) or _reaches(pattern, place[1:])
    return fnmatch.fnmatch(place[0], pattern[0]) and _reaches(pattern[1:], place[1:])


def _below(folder: Path, say: Say) -> list[str]:
    found = walk(folder, str(folder))
    if not found.images:
        raise UserError(no_images(found, str(folder)))
    if left_out := by_ending(found.left_out()):
        say(f"{folder}: files left out by their ending: {left_out}")
    return [str(folder.joinpath(*path)) for path in found.images]


def squares(
    names: Sequence[str], preprocessing: Preprocessing, max_pixels: int = images.MAX_PIXELS
) -> Iterator[tuple[str, np.ndarray | images.BadImage]]:
    """Yields each name with its image, uint8 [S, S, 3], or with the reason why there is none; in order."""
    return squares_of(((name, partial(_content, name)) for name in names), preprocessing, max_pixels)


def squares_of(
    items: Iterable[tuple[str, Callable[[], bytes]]],
    preprocessing: Preprocessing,
    max_pixels: int = images.MAX_PIXELS,
) -> Iterator[tuple[str, np.ndarray | images.BadImage]]:
    """Yields what `squares` yields, for names with what reads the bytes of each; a few are read ahead."""

    def square(load: Callable[[], bytes]) -> np.ndarray | images.BadImage:
        try:
            return _told(preprocessing.of_file, load(), max_pixels)
        except images.BadImage as error:
            return error
        except OSError as error:
            return images.BadImage((error.strerror or str(error)).lower())

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque = deque()
        try:
            for name, load in items:
                waiting.append((name, pool.submit(square, load)))
                if len(waiting) > AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read(name: str, max_pixels: int = images.MAX_PIXELS) -> Image.Image:
    """Returns the image of a name, upright and RGB; standard input is read once and kept.

    Args:
        name: of `find`.
        max_pixels: larger ones are refused, JPEGs only where they are many times as large.

    Raises:
        BadImage: it cannot be decoded.
        OSError: it cannot be read.
    """
    return _told(images.decode, _content(name), max_pixels)


def _told(decode: Callable[..., Decoded], data: bytes, max_pixels: int) -> Decoded:
    """Returns what is made of a file's bytes; the error of one that is too large names the option."""
    try:
        return decode(data, max_pixels=max_pixels)
    except images.BadImage as error:
        if error.kind == "size":
            raise images.BadImage(f"{error}; --max-pixels=N takes larger ones", "size") from error
        raise


def _content(name: str) -> bytes:
    return _stdin() if name == STDIN else images.read_file(name)


@cache
def _stdin() -> bytes:
    return sys.stdin.buffer.read()
