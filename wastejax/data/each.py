"""Something done with each of many images, in threads of this process; `runtime.ray_cluster` does it elsewhere."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Read = Callable[[int], bytes]
Item = TypeVar("Item")

_AT_ONCE = 4096  # images that are queued, and waited for where the work is stopped


class Each(Protocol):
    """Does something with each of many images."""

    def __call__(self, do: Callable[[Read, int], Item], read: Read, indices: Sequence[int]) -> Iterator[Item]:
        """Yields what `do(read, index)` returns for each index, in their order."""


def in_threads(do: Callable[[Read, int], Item], read: Read, indices: Sequence[int]) -> Iterator[Item]:
    """An `Each`: PIL decodes outside the interpreter lock."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(indices), _AT_ONCE):
            yield from pool.map(lambda i: do(read, i), indices[start : start + _AT_ONCE])
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for thousands of files
