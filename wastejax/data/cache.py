"""Decoded images in one memory-mapped file, so that each file is decoded once, not once an epoch."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs

from wastejax.files import put_in_place, reason, user_path
from wastejax.progress import Count

log = logging.getLogger("wastejax")
_PARTIAL = re.compile(r"\.\d+\.partial$")  # how the files end that builds of stores write
_YOUNG = 10.0  # seconds for which a file may be without a lock: between it and its lock, and its last name


def cache_dir() -> Path:
    """Returns the folder for everything that can be made again: WASTEJAX_CACHE, or the user's cache folder."""
    return user_path(os.environ.get("WASTEJAX_CACHE") or platformdirs.user_cache_dir("wastejax"))


def go_without(path: Path, error: OSError) -> None:
    """Says, on standard error, that a cache cannot be written: everything still works, but slower."""
    folder = path.parent
    log.warning(
        f"note: {folder}: cannot be written ({reason(error)}); continuing without that cache "
        "(WASTEJAX_CACHE=FOLDER names another place)"
    )


def stamp(*parts: Any) -> str:
    """Returns a short hash of JSON-able values, to name a cache file by what went into it."""
    text = json.dumps(parts, default=list)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class ArrayStore:
    """Read-only uint8 arrays [h, w, 3] of differing sizes in one file; picklable, opened where it is used."""

    def __init__(self, path: Path):
        self.path = path
        self._shapes = np.load(path.with_suffix(".npy"))
        self._ends = np.cumsum(self._shapes.prod(axis=1, dtype=np.int64))
        self._bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def num_bytes(self) -> int:
        """Of all arrays together, which is the size of the file."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> np.ndarray:
        if self._bytes is None:
            # As a plain array: a slice of a memmap takes Python longer than its pixels take to read.
            self._bytes = np.asarray(np.memmap(self.path, np.uint8, mode="r"))
        shape = self._shapes[i]
        end = self._ends[i]
        return self._bytes[end - shape.prod(dtype=np.int64) : end].reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}


class _Unread(Exception):  # noqa: N818 - carries an error of another kind past those of writing
    """An item could not be read."""


def build_store(
    path: Path, items: Iterable[int], make: Callable[[int], np.ndarray], progress: Count | None = None
) -> ArrayStore | None:
    """Returns the store at `path`, and makes it first where it is not there yet.

    Args:
        path: the file; its shapes lie beside it as `.npy`. The name must say what went into it (`stamp`).
        items: what to call `make` with, one array each, in this order.
        make: item -> uint8 [h, w, 3]; called in threads. What it raises is raised here.
        progress: called with (done, total).

    Returns:
        None where it cannot be written, for which `go_without` has said why.

    A killed build leaves only files that the next one in that folder removes: the shapes, put there last, make a
    store valid.
    """
    _remove_abandoned(path.parent)
    if (kept := _kept(path)) is not None:
        return kept
    items = list(items)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial_shapes = Path(f"{partial}.npy")
    shapes = np.zeros((len(items), 3), np.int32)

    def made(item: int) -> np.ndarray:
        try:
            return make(item)
        except OSError as error:
            raise _Unread from error

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            _lock(file)
            # In slices, since map() would otherwise run ahead and hold every image in memory.
            for start in range(0, len(items), 256):
                for i, array in enumerate(pool.map(made, items[start : start + 256]), start):
                    shapes[i] = array.shape
                    file.write(array.tobytes())
                    if progress:
                        progress(i + 1, len(items))
            np.save(partial_shapes, shapes)  # as long as the lock says that somebody is at it
        put_in_place(partial, path)
        put_in_place(partial_shapes, path.with_suffix(".npy"))
    except _Unread as error:
        raise error.__cause__ or error from None
    except OSError as error:
        go_without(path, error)
        return None
    finally:
        _remove(partial, partial_shapes)
    return ArrayStore(path)


def _kept(path: Path) -> ArrayStore | None:
    """Returns the store that is there; one that is damaged, as by a power cut, is removed."""
    shapes = path.with_suffix(".npy")
    if not shapes.is_file():
        return None
    try:
        store = ArrayStore(path)
        if store.num_bytes == path.stat().st_size:
            return store
    except (OSError, EOFError, ValueError, IndexError, TypeError):
        pass  # as NumPy says of a file that is none of its
    _remove(shapes, path)  # the shapes first, as they make a store valid
    return None


def _lock(file: BinaryIO) -> bool:
    """Returns whether nobody else has a file locked; it then is, until it is closed or this process is gone.

    A process's number would not do: another machine or container that shares the folder counts its own.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which lets nobody remove a file that is open
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or it is on a file system without locks
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed builds have left in a folder: it may be gigabytes."""
    for partial in folder.glob("*.partial"):
        if not _PARTIAL.search(partial.name):
            continue
        with suppress(OSError):  # it is gone, or another user's
            with partial.open("r+b") as file:
                abandoned = _lock(file) and time.time() - os.fstat(file.fileno()).st_mtime > _YOUNG
            if abandoned:
                _remove(partial, Path(f"{partial}.npy"))


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # a folder that cannot be had holds nothing of ours either
            path.unlink(missing_ok=True)
