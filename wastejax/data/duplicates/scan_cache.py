"""What was computed of each image, kept for the next time: a SQLite file that grows and is never written anew."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.cache import go_without

_ASKED_AT_ONCE = 500  # SQLite takes 999 parameters on old systems
_WAIT = 30  # seconds for another process that writes


class Look(NamedTuple):
    """Of one image: the digest of what it is, its perceptual hash, and its small gray version."""

    key: bytes
    phash: np.uint64
    gray: np.ndarray


class ScanCache:
    """Looks of images by their keys; whatever is wrong with the file, the images are looked at instead."""

    def __init__(self, path: Path | None):
        """Takes the place of the file; None keeps nothing."""
        self._path = path
        self._open: sqlite3.Connection | None = None

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, np.uint64, np.ndarray]]:
        """Yields key, hash and the bytes of the gray version (uint8 [N]) of those images that are known."""
        if self._path is None or not self._path.is_file():
            return
        try:
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                some = keys[start : start + _ASKED_AT_ONCE]
                query = f"SELECT key, phash, grey FROM looks WHERE key IN ({','.join('?' * len(some))})"
                for key, phash, gray in self._connection().execute(query, some):
                    yield key, np.int64(phash).view(np.uint64), np.frombuffer(gray, np.uint8)
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError) or "no such table" in str(error):
                self._remove()  # damaged: it is only a cache
            self.close()

    def add(self, looks: Iterable[Look]) -> None:
        """Keeps looks; where that cannot be, `go_without` says so and the others are not kept either."""
        if self._path is None:
            return
        rows = [(key, int(phash.view(np.int64)), gray.tobytes()) for key, phash, gray in looks]
        if not rows:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._connection() as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS looks (key BLOB PRIMARY KEY, phash INTEGER, grey BLOB)"
                )
                connection.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            why = error if isinstance(error, OSError) else OSError(str(error))
            go_without(self._path, why)
            self.close()
            self._path = None

    def close(self) -> None:
        """Closes the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            assert self._path is not None
            self._open = sqlite3.connect(self._path, timeout=_WAIT)
        return self._open

    def _remove(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
