"""Decoded pictures in one memory-mapped file, so that each file is decoded once, not once an epoch."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

Progress = Callable[[int, int], None]


def cache_dir() -> Path:
    """Returns the folder for everything that can be made again: WASTEJAX_CACHE, or the user's cache folder."""
    return Path(os.environ.get("WASTEJAX_CACHE") or platformdirs.user_cache_dir("wastejax"))


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

    def __getitem__(self, i: int) -> np.ndarray:
        if self._bytes is None:
            # As a plain array: a slice of a memmap takes Python longer than its pixels take to read.
            self._bytes = np.asarray(np.memmap(self.path, np.uint8, mode="r"))
        shape = self._shapes[i]
        end = self._ends[i]
        return self._bytes[end - shape.prod(dtype=np.int64) : end].reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}


def build_store(
    path: Path, items: Iterable[int], make: Callable[[int], np.ndarray], progress: Progress | None = None
) -> ArrayStore:
    """Returns the store at `path`, and makes it first where it is not there yet.

    Args:
        path: the file; its shapes lie beside it as `.npy`. The name must say what went into it (`stamp`).
        items: what to call `make` with, one array each, in this order.
        make: item -> uint8 [h, w, 3]; called in threads.
        progress: called with (done, total).

    A killed build leaves only a file that the next one overwrites: the shapes, written last, make it valid.
    """
    if path.with_suffix(".npy").is_file():
        return ArrayStore(path)
    items = list(items)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    shapes = np.zeros((len(items), 3), np.int32)
    try:
        with partial.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            # In slices, since map() would otherwise run ahead and hold every picture in memory.
            for start in range(0, len(items), 256):
                for i, array in enumerate(pool.map(make, items[start : start + 256]), start):
                    shapes[i] = array.shape
                    file.write(array.tobytes())
                    if progress:
                        progress(i + 1, len(items))
        partial.replace(path)
        np.save(partial, shapes)
        Path(f"{partial}.npy").replace(path.with_suffix(".npy"))
    finally:
        partial.unlink(missing_ok=True)
    return ArrayStore(path)
